"""FedCross and FedMut on the server alone, each against a few plain lines that say the same."""

from dataclasses import replace

import numpy as np
import pytest
from broken_runs import CopyAfter, load
from numpy_clients import NumpyClients
from pools import LAYOUT, POOL, models, recombined, send, spec
from small import config
from warm_pools import WarmPools

from fedbench import resume
from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.fedcross import FedCross
from fedbench.algorithms.fedmut import FedMut, signs
from fedbench.engine.rounds.pool_server import PoolServer
from fedbench.experiment.run import prepared, run
from fedbench.planning.schedules import Sequential
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.randomness import generator


def server(algorithm: Algorithm, *, cohort: int = POOL, partial: bool = False) -> PoolServer:
    schedule = Sequential(warmup_rounds=0, rounds_per_group=1) if partial else None
    return PoolServer(replace(spec(cohort=cohort, schedule=schedule), algorithm=algorithm))


@pytest.mark.parametrize("cohort", [2, 5, 6])
def test_fedcross_moves_each_model_towards_the_next_of_the_round(cohort: int) -> None:
    pool = server(FedCross(alpha=0.9, partner="in-order"), cohort=cohort)
    for r in range(4):
        before, after = recombined(pool, r)
        for channel, trained in before.items():
            for i in range(cohort):
                partner = (i + (r % (cohort - 1)) + 1) % cohort
                expected = 0.9 * trained[i].astype(float) + 0.1 * trained[partner].astype(float)
                np.testing.assert_allclose(after[channel][i], expected, rtol=0, atol=1e-6)
        for channel, mean in zip((PARAMETERS, STATISTICS), pool.model(), strict=True):
            np.testing.assert_allclose(mean, before[channel].mean(axis=0, dtype=float), rtol=0, atol=1e-6)


@pytest.mark.parametrize("partner", ["least-similar", "most-similar"])
def test_fedcross_finds_the_partner_by_the_cosine(partner: str) -> None:
    before, after = recombined(server(FedCross(alpha=0.8, partner=partner)))  # type: ignore[arg-type]
    unit = before[PARAMETERS] / np.linalg.norm(before[PARAMETERS], axis=1, keepdims=True)
    for i in range(POOL):
        others = {float(unit[i] @ unit[j]): j for j in range(POOL) if j != i}
        j = others[min(others) if partner == "least-similar" else max(others)]
        expected = 0.8 * before[PARAMETERS][i] + 0.2 * before[PARAMETERS][j]
        np.testing.assert_allclose(after[PARAMETERS][i], expected, rtol=0, atol=1e-6)


def test_fedcross_alone_is_local_training() -> None:
    before, after = recombined(server(FedCross(), cohort=1))
    np.testing.assert_array_equal(after[PARAMETERS], before[PARAMETERS])


def test_fedcross_averages_in_its_first_stage() -> None:
    pool = server(FedCross(first_stage_rounds=1))
    sent = send(pool, pool.plan(0))
    pool.finish()
    mean = np.mean([of_client[PARAMETERS].astype(float) for of_client in sent.values()], axis=0)
    np.testing.assert_allclose(models(pool)[PARAMETERS], np.tile(mean, (POOL, 1)), rtol=0, atol=1e-6)
    before, after = recombined(pool, 1)
    assert (before[PARAMETERS] != after[PARAMETERS]).all()


@pytest.mark.parametrize("cohort", [4, 5])
def test_fedmut_starts_from_both_sides_of_the_average(cohort: int) -> None:
    pool = server(FedMut(radius=2.0, rate=0.5, bound=2), cohort=cohort)
    for r in range(4):
        previous = pool.model()[0].astype(float)
        before, after = recombined(pool, r)
        average = before[PARAMETERS].mean(axis=0, dtype=float)
        np.testing.assert_allclose(pool.model()[0], average, rtol=0, atol=1e-6)
        np.testing.assert_allclose(after[STATISTICS], np.tile(pool.model()[1], (cohort, 1)), rtol=0, atol=1e-6)
        favour = 0.5 * (1 - min(r / 2, 1))
        drawn = []
        for slot in LAYOUT.slots:
            piece = slice(slot.offset, slot.stop)
            change = average[piece] - previous[piece]
            signs_of_tensor = (after[PARAMETERS][:, piece] - average[piece]) @ change / (2.0 * (change @ change))
            expected = np.outer(2.0 * signs_of_tensor, change) + average[piece]
            np.testing.assert_allclose(after[PARAMETERS][:, piece], expected, rtol=0, atol=1e-5)
            pairs = [1.0] * (cohort // 2) + [-1.0 + favour] * (cohort // 2)
            np.testing.assert_allclose(sorted(signs_of_tensor[: len(pairs)]), sorted(pairs), rtol=0, atol=1e-5)
            if cohort % 2:
                assert abs(signs_of_tensor[-1]) < 1e-5
            drawn.append(tuple(np.sign(signs_of_tensor[: len(pairs)])))
        assert len(set(drawn)) > 1, "each tensor has an order of its own"


def test_signs_are_dealt_in_every_order() -> None:
    rng = np.random.default_rng(0)
    assert {tuple(signs(2, 0.0, rng)) for _ in range(50)} == {(1.0, -1.0), (-1.0, 1.0)}
    assert signs(1, 0.5, rng).tolist() == [0.0]


@pytest.mark.parametrize("algorithm", [FedCross(alpha=0.7), FedMut()], ids=["fedcross", "fedmut"])
def test_a_partial_round_changes_its_own_group_alone(algorithm: Algorithm) -> None:
    pool = server(algorithm, partial=True)
    recombined(pool, 0)
    start = models(pool)
    _, after = recombined(pool, 1)
    changed = (start[PARAMETERS] != after[PARAMETERS]).any(axis=0)
    assert changed[LAYOUT.slices[1]].all()
    assert changed.sum() == LAYOUT.group_size(1)


WHOLE = (
    "data.clients=6", "participation.clients_per_round=3", "data.normalize=false", "model=small:TwoLayers",
    "local.batch_size=64", "local.optimizer=sgd", "local.optimizer.lr=0.1", "local.optimizer.momentum=0",
    "schedule=full", "rounds=3", "runtime.executor=inline",
)  # fmt: skip


def crossed(pool: np.ndarray, r: int, before: np.ndarray, clients: NumpyClients) -> tuple[np.ndarray, np.ndarray]:
    """FedCross with alpha = 0.8, and the mean model."""
    partners = [(i + r % 2 + 1) % 3 for i in range(3)]
    after = 0.8 * pool + 0.2 * pool[partners]
    return after, after.mean(axis=0)


def mutated(pool: np.ndarray, r: int, before: np.ndarray, clients: NumpyClients) -> tuple[np.ndarray, np.ndarray]:
    """FedMut with radius 2, rate 0.5 and bound 2: of three models the last is the mean itself."""
    mean, rng = pool.mean(axis=0), generator(0, "mutation", r)
    after, favour = np.tile(mean, (3, 1)), 0.5 * (1 - min(r / 2, 1))
    for slot in clients.layout.slots:
        piece = slice(slot.offset, slot.stop)
        dealt = [*rng.permutation([1.0, -1.0 + favour]), 0.0]
        after[:, piece] += 2 * np.outer(dealt, (mean - before)[piece])
    return after, mean


BY_HAND = {
    "fedcross": (("algorithm.alpha=0.8", "algorithm.partner=in-order"), crossed),
    "fedmut": (("algorithm.radius=2", "algorithm.rate=0.5", "algorithm.bound=2"), mutated),
}


@pytest.mark.usefixtures("flops_counted_once")
@pytest.mark.parametrize("name", BY_HAND)
def test_whole_runs_are_what_numpy_says(name: str) -> None:
    overrides, recombine = BY_HAND[name]
    with prepared(config(*WHOLE, f"algorithm={name}", *overrides)) as (problem, executor):
        clients = NumpyClients(problem)
        pool, mean = np.tile(clients.vector, (3, 1)), clients.vector
        for r in range(3):
            plan = executor.plan(r)  # type: ignore[union-attr]
            executor.train(plan)  # type: ignore[union-attr]
            executor.finish()  # type: ignore[union-attr]
            for client, model in zip(plan.cohort, generator(0, "pool", r).permutation(3), strict=True):
                pool[model], _ = clients.train(client, r, pool[model])
            pool, mean = recombine(pool, r, mean, clients)
            np.testing.assert_allclose(executor.model()[0], mean, rtol=0, atol=1e-6)


RUNS = {
    "fedcross by cosine": ("algorithm=fedcross", "algorithm.first_stage_rounds=1"),
    "fedpart x fedmut": (
        "algorithm=fedmut",
        "schedule=sequential",
        "schedule.warmup_rounds=1",
        "schedule.rounds_per_group=1",
    ),
}


@pytest.mark.slow
@pytest.mark.usefixtures("run_folder")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_actors_or_resumed_leaves_the_same_model(name: str, warm_pools: WarmPools) -> None:
    overrides = (*RUNS[name], "participation.clients_per_round=4")
    expected = run(load(*overrides, "output.directory=whole"), [CopyAfter(3, "broken")]).summary
    on_actors = warm_pools.run(load(*overrides, "runtime.executor=ray", "runtime.actors=2"))
    assert on_actors.summary["model_sha256"] == expected["model_sha256"]
    assert on_actors.summary["downlink_bytes"] == expected["downlink_bytes"]
    assert resume("broken").summary["model_sha256"] == expected["model_sha256"]
