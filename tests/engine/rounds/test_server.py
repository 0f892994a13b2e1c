"""The server's arithmetic and bookkeeping, against a naive FedAvg by name and a hand-kept account."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from scipy.stats import trim_mean

from fedbench.accounting.ledger import TransferLedger
from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.fedavg import FedAvg
from fedbench.algorithms.fedexp import FedExP
from fedbench.algorithms.fednova import FedNova
from fedbench.algorithms.robust import Median, TrimmedMean
from fedbench.engine.rounds.server import Server
from fedbench.engine.rounds.server_spec import ServerSpec
from fedbench.errors import RunError
from fedbench.planning.schedules import Full, PerClient, Schedule, Sequential
from fedbench.protocol.compression import Uncompressed
from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.message import PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.minibatches import LocalLength
from fedbench.training.optimizers import Constant

LAYOUT = ParameterLayout.build(
    [("conv", {"conv.weight": (4, 3, 2, 2)}), ("middle", {"middle.weight": (5, 4)}), ("head", {"head.bias": (7,)})],
    statistics=[("norm.running_mean", 0, (4,))],
)
SIZES = (10, 30, 25, 60, 5)
PLAIN = UpdatePipeline(clip_norm=None, noise_std=0.0, compression=Uncompressed())


def server(
    schedule: Schedule,
    *,
    aggregates: bool = True,
    cohort: int = 5,
    weighting: str = "samples",
    algorithm: Algorithm | None = None,
) -> Server:
    rng = np.random.default_rng(0)
    return Server(
        ServerSpec(
            table=PartTable(LAYOUT, aggregates),
            vector=rng.normal(size=LAYOUT.size).astype(np.float32),
            statistics=rng.normal(size=4).astype(np.float32),
            sizes=SIZES,
            cohort_size=cohort,
            rounds=20,
            seed=0,
            algorithm=algorithm or FedAvg(weighting=weighting),  # type: ignore[arg-type]
            schedule=schedule,
            learning_rate=Constant(),
            local=LocalLength(16, epochs=1, steps=None, smallest=1),
            update=PLAIN,
        )
    )


def uploads(server: Server, groups: tuple[int, ...], clients: int, statistics: bool, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    length = LAYOUT.count(groups) + (4 if statistics else 0)
    return rng.normal(size=(clients, length)).astype(np.float32)


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_averaging_equals_a_naive_fedavg_by_name(weighting: str) -> None:
    one = server(Full(), weighting=weighting)
    plan = one.plan(0)
    sent = uploads(one, plan.active.groups, 5, statistics=True)
    one.receive(sent.ravel(), plan.cohort)
    one.finish()
    vector, statistics = one.model()
    weights = np.array(SIZES, float) if weighting == "samples" else np.ones(5)
    weights /= weights.sum()
    clients = [LAYOUT.unflatten(values[: LAYOUT.size]) for values in sent]
    for name, tensor in LAYOUT.unflatten(vector).items():
        naive = sum(weight * client[name].astype(np.float64) for weight, client in zip(weights, clients, strict=True))
        np.testing.assert_allclose(tensor, naive, rtol=0, atol=5e-7)
    naive_statistics = (weights[:, None] * sent[:, LAYOUT.size :].astype(np.float64)).sum(0)
    np.testing.assert_allclose(statistics, naive_statistics, rtol=0, atol=5e-7)


def test_a_masked_round_replaces_exactly_the_active_slice() -> None:
    one = server(Sequential(warmup_rounds=0, rounds_per_group=1), aggregates=False)
    before = one.model()[0].copy()
    for index in range(3):
        plan = one.plan(index)
        assert plan.active.groups == (index,)
        sent = uploads(one, plan.active.groups, 5, statistics=False, seed=index)
        one.receive(sent.ravel(), plan.cohort)
        outcome = one.finish()
        after = one.model()[0]
        piece = LAYOUT.slices[index]
        outside = np.ones(LAYOUT.size, bool)
        outside[piece] = False
        np.testing.assert_array_equal(after[outside], before[outside])
        naive = np.average(sent.astype(np.float64), axis=0, weights=SIZES)
        np.testing.assert_allclose(after[piece], naive, rtol=0, atol=5e-7)
        assert outcome.update_norm == pytest.approx(float(np.linalg.norm(after - before)), rel=1e-6)
        before = after.copy()


def test_messages_in_any_order_and_grouping_give_the_same_model() -> None:
    straight, mixed = server(Full()), server(Full())
    plan = straight.plan(0)
    mixed.plan(0)
    sent = uploads(straight, plan.active.groups, 5, statistics=True)
    straight.receive(sent.ravel(), plan.cohort)
    straight.finish()
    mixed.receive(sent[[3, 1]].ravel(), (3, 1))
    mixed.receive(sent[4], (4,))
    mixed.receive(sent[[0, 2]].ravel(), (0, 2))
    mixed.finish()
    np.testing.assert_array_equal(straight.model()[0], mixed.model()[0])


def test_who_is_left_out_does_not_weigh() -> None:
    one = server(Full(), aggregates=False)
    plan = one.plan(0)
    sent = uploads(one, plan.active.groups, 5, statistics=False)
    one.receive(sent[[1, 3]].ravel(), (1, 3))
    assert one.finish().accepted == 2
    naive = np.average(sent[[1, 3]].astype(np.float64), axis=0, weights=[SIZES[1], SIZES[3]])
    np.testing.assert_allclose(one.model()[0], naive, rtol=0, atol=5e-7)


@pytest.mark.parametrize("accepted", [(0, 1, 2, 3, 4), (0, 1, 2, 4), (4,), (1, 3)])
def test_fednova_takes_its_effective_steps_over_the_accepted_clients(accepted: tuple[int, ...]) -> None:
    """x + tau_eff sum_i p_i delta_i / tau_i with p_i = n_i / n and tau_i, here the minibatches of 16, over these."""
    nova = server(Full(), aggregates=False, algorithm=FedNova())
    before, plan = nova.model()[0].astype(np.float64), nova.plan(0)
    sent = uploads(nova, plan.active.groups, 5, statistics=False)
    nova.receive(sent[list(accepted)].ravel(), accepted)
    nova.finish()
    samples = np.array([SIZES[client] for client in accepted], float)
    weights, steps = samples / samples.sum(), np.ceil(samples / 16)
    direction = sum(
        weight * (sent[client] - before) / tau for weight, client, tau in zip(weights, accepted, steps, strict=True)
    )
    np.testing.assert_allclose(nova.model()[0], before + weights @ steps * direction, rtol=0, atol=1e-6)


def test_fednova_of_a_sole_trainer_is_fedavg() -> None:
    """Clients 0 and 3 train the first group, 1 and 4 the second, and client 2 alone the third."""
    schedule = PerClient(warmup_rounds=0, rounds_per_group=1)
    models = []
    for algorithm in (FedNova(), FedAvg()):
        one = server(schedule, aggregates=False, algorithm=algorithm)
        plan = one.plan(0)
        for client, groups in zip(plan.cohort, plan.groups, strict=True):
            one.receive(uploads(one, groups, 1, statistics=False, seed=client).ravel(), (client,))
        one.finish()
        models.append(one.model()[0][LAYOUT.slices[2]])
    np.testing.assert_allclose(models[0], models[1], rtol=0, atol=1e-6)


def test_a_round_without_updates_is_an_error() -> None:
    one = server(Full())
    one.plan(0)
    with pytest.raises(RunError, match="round 1: no update of the 5 participants"):
        one.finish()


def test_the_model_that_is_handed_out_is_the_model_that_is_held() -> None:
    one = server(Full())
    vector, statistics = one.model()
    np.testing.assert_array_equal(one.payload((0, 1, 2, 3)), np.concatenate([vector, statistics]))
    np.testing.assert_array_equal(one.payload((1,)), vector[LAYOUT.slices[1]])
    np.testing.assert_array_equal(one.payload((0, 2)), np.concatenate([vector[:48], vector[68:]]))
    np.testing.assert_array_equal(one.payload((3,)), statistics)


def test_a_client_that_sat_out_pays_for_what_changed_meanwhile() -> None:
    sizes = [4 * LAYOUT.group_size(group) for group in LAYOUT.all_groups]
    ledger = TransferLedger(PartTable(LAYOUT, statistics=False), clients=3)
    whole = sum(sizes)
    assert ledger.download([0, 1, 2]) == (whole, whole, whole)
    ledger.changed((0,), 0)
    assert ledger.download([0, 1]) == (sizes[0], sizes[0])
    ledger.changed((1,), 1)
    assert ledger.download([0]) == (sizes[1],)
    ledger.changed((1,), 2)
    assert ledger.download([0, 1, 2]) == (sizes[1], sizes[1], sizes[0] + sizes[1])
    assert ledger.download([0, 1, 2]) == (0, 0, 0)
    assert PLAIN.nbytes(PartTable(LAYOUT, statistics=False), (0, 2)) == sizes[0] + sizes[2]


def test_statistics_count_when_they_travel() -> None:
    tables = [PartTable(LAYOUT, statistics=travel) for travel in (True, False)]
    with_them, without = (TransferLedger(table, clients=1) for table in tables)
    sent = [PLAIN.nbytes(table, table.uploaded((1,))) for table in tables]
    assert sent == [4 * 20 + 16, 4 * 20]
    assert with_them.download([0])[0] == without.download([0])[0] + 16
    with_them.changed(tables[0].uploaded((1,)), 0)
    assert with_them.download([0]) == (4 * 20 + 16,)


@pytest.mark.parametrize(
    ("algorithm", "statistic"),
    [(Median(), np.median), (TrimmedMean(trim=0.2), partial(trim_mean, proportiontocut=0.2))],
    ids=["median", "trimmed-mean"],
)
def test_robust_rules_take_their_statistic_of_the_running_statistics_too(
    algorithm: Algorithm, statistic: Callable[..., np.ndarray]
) -> None:
    robust = server(Full(), algorithm=algorithm)
    before, plan = robust.model()[1].astype(np.float64), robust.plan(0)
    sent = uploads(robust, plan.active.groups, 5, statistics=True)
    sent[2, LAYOUT.size :] = 1e5
    robust.receive(sent.ravel(), plan.cohort)
    robust.finish()
    expected = before + statistic(sent[:, LAYOUT.size :] - before, axis=0)
    np.testing.assert_allclose(robust.model()[1], expected, rtol=1e-6)
    assert np.abs(robust.model()[1]).max() < 10


def test_a_robust_rule_does_not_combine_fewer_updates_than_it_needs() -> None:
    robust = server(Full(), algorithm=TrimmedMean(trim=0.2), aggregates=False)
    plan = robust.plan(0)
    sent = uploads(robust, plan.active.groups, 5, statistics=False)
    robust.receive(sent[:4].ravel(), plan.cohort[:4])
    with pytest.raises(RunError, match=r"4 clients train layer group [a-z]\w*, .* leaves nobody out of fewer than 5"):
        robust.finish()


def test_rules_that_are_not_robust_average_the_running_statistics() -> None:
    models = []
    for algorithm in (FedExP(), FedAvg(weighting="uniform")):
        one = server(Full(), algorithm=algorithm)
        plan = one.plan(0)
        one.receive(uploads(one, plan.active.groups, 5, statistics=True).ravel(), plan.cohort)
        one.finish()
        models.append(one.model()[1])
    np.testing.assert_array_equal(*models)


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("parameters", lambda array: array[:-1], r"parameters is float32 \[74\], not float32 \[75\]"),
        ("parameters", lambda array: array.astype(np.float64), r"parameters is float64 \[75\], not float32"),
        ("statistics", lambda array: array.tolist(), r"statistics is list, not float32 \[4\]"),
    ],
)
def test_a_state_of_another_shape_is_not_taken_up(name: str, change: Callable[..., object], fault: str) -> None:
    state = server(Full()).state()
    state["vectors"] = {**state["vectors"], name: change(state["vectors"][name])}
    fresh = server(Full())
    before = fresh.model()[0].copy()
    with pytest.raises(ValueError, match=fault):
        fresh.restore(state)
    assert np.array_equal(fresh.model()[0], before)
