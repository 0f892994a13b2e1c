"""The pool of models that are recombined instead of averaged (FedMR), on the server alone with random uploads."""

from dataclasses import replace

import numpy as np
import pytest
from pools import (
    GRANULARITIES,
    LAYOUT,
    POOL,
    TENSORS,
    Granularity,
    Lists,
    models,
    order_of,
    orders,
    recombined,
    send,
    spec,
)
from small import config

from fedbench.algorithms.fedavg import FedAvg
from fedbench.engine.rounds.pool_server import PoolServer
from fedbench.engine.rounds.server import Server
from fedbench.errors import RunError
from fedbench.experiment.run import run
from fedbench.planning.schedules import Importance, PerClient, Sequential
from fedbench.protocol.message import PARAMETERS, STATISTICS


def test_every_client_starts_from_a_model_of_its_own() -> None:
    server = PoolServer(spec())
    recombined(server)
    plan = server.plan(1)
    assert plan.own_starts
    starts = np.split(server.starts(plan.cohort), POOL)
    pool = models(server)
    whole = np.concatenate([pool[PARAMETERS], pool[STATISTICS]], axis=1)
    assert sorted(order_of(whole, np.array(starts))) == list(range(POOL))
    np.testing.assert_array_equal(server.starts((plan.cohort[2],)), starts[2])


def test_models_go_to_clients_in_another_order_every_round() -> None:
    server = PoolServer(spec())
    drawn = set()
    for index in range(5):
        server.plan(index)
        drawn.add(tuple(server._models_of.values()))
        assert sorted(server._models_of.values()) == list(range(POOL))
    assert len(drawn) > 1


def test_what_a_client_trained_replaces_the_model_that_it_was_given() -> None:
    server = PoolServer(spec(schedule=Sequential(warmup_rounds=1, rounds_per_group=1)))
    recombined(server)
    plan = server.plan(1)
    before, slots = models(server), dict(server._models_of)
    sent = send(server, plan)
    pool, piece = models(server), LAYOUT.slices[0]
    for client, slot in slots.items():
        np.testing.assert_array_equal(pool[PARAMETERS][slot, piece], sent[client][PARAMETERS][piece])
        np.testing.assert_array_equal(pool[STATISTICS][slot], sent[client][STATISTICS])
        np.testing.assert_array_equal(pool[PARAMETERS][slot, piece.stop :], before[PARAMETERS][slot, piece.stop :])


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_no_layer_of_any_model_is_lost_or_doubled(granularity: Granularity) -> None:
    before, after = recombined(PoolServer(spec(granularity)))
    for order in orders(before, after).values():
        assert sorted(order) == list(range(POOL))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_mean_model_is_that_before_recombination(granularity: Granularity) -> None:
    server = PoolServer(spec(granularity))
    before, after = recombined(server)
    for channel, mean in zip((PARAMETERS, STATISTICS), server.model(), strict=True):
        expected = before[channel].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(mean, expected, rtol=0, atol=5e-7)
        np.testing.assert_allclose(after[channel].mean(axis=0, dtype=np.float64), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_pool_of_one_model_stays_as_it_is(granularity: Granularity) -> None:
    before, after = recombined(PoolServer(spec(granularity, cohort=1)))
    for channel in before:
        np.testing.assert_array_equal(after[channel], before[channel])


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_pool_of_equal_models_stays_as_it_is(granularity: Granularity) -> None:
    server = PoolServer(spec(granularity))
    plan = server.plan(0)
    vectors = {PARAMETERS: np.ones(LAYOUT.size, np.float32), STATISTICS: np.full(13, 2, np.float32)}
    for client in plan.cohort:
        server.receive(server._table.gather(vectors, server.start_parts()), (client,))
    server.finish()
    for channel, rows in models(server).items():
        np.testing.assert_array_equal(rows, np.repeat(vectors[channel][None], POOL, axis=0))


def test_tensors_are_permuted_each_by_itself() -> None:
    found = orders(*recombined(PoolServer(spec("tensor"))))
    assert len(set(found.values())) == len(found) == 8, "eight of 720 permutations, all different"


def test_groups_are_permuted_each_by_itself_with_their_statistics() -> None:
    found = orders(*recombined(PoolServer(spec("group"))))
    groups: dict[int, set[tuple[int, ...]]] = {}
    for _, slot in TENSORS:
        groups.setdefault(slot.group, set()).add(found[slot.name])
    assert [len(orders) for orders in groups.values()] == [1, 1, 1]
    assert len(set().union(*groups.values())) == 3


def test_whole_models_are_permuted_and_not_mixed() -> None:
    found = orders(*recombined(PoolServer(spec("model"))))
    assert len(set(found.values())) == 1


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_permutations_depend_on_seed_and_round_alone(granularity: Granularity) -> None:
    def drawn(seed: int, uploads: int, index: int) -> dict[str, tuple[int, ...]]:
        return orders(*recombined(PoolServer(spec(granularity, seed=seed)), index, seed=uploads))

    assert drawn(3, 0, 0) == drawn(3, 1, 0)
    assert drawn(3, 0, 0) != drawn(4, 0, 0)
    assert drawn(3, 0, 0) != drawn(3, 0, 1)


def test_every_permutation_is_drawn_as_often_fixed_points_included() -> None:
    server = PoolServer(spec("model", cohort=3))
    counts: dict[tuple[int, ...], int] = {}
    for index in range(300):
        order = next(iter(orders(*recombined(server, index)).values()))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert all(25 <= count <= 80 for count in counts.values()), "50 expected, with a standard deviation of 6.5"


@pytest.mark.usefixtures("run_folder")
@pytest.mark.parametrize("schedule", ["full", "sequential"])
def test_a_first_stage_that_never_ends_is_unweighted_fedavg_bit_for_bit(schedule: str) -> None:
    common = (
        f"schedule={schedule}",
        "rounds=3",
        "participation.clients_per_round=3",
        "data.partition=quantity",
        "data.partition.alpha=1.0",
        "runtime.executor=inline",
        "evaluation.every=100",
    )
    pool = run(config("algorithm=fedmr", "algorithm.first_stage_rounds=3", *common))
    plain = run(config("algorithm=fedavg", "algorithm.weighting=uniform", *common))
    assert pool.summary["model_sha256"] == plain.summary["model_sha256"]
    for column in ("train_loss", "uplink_bytes", "test_accuracy", "update_norm"):
        assert pool.history.column(column).equals(plain.history.column(column)), column


def test_after_a_round_of_averaging_all_models_are_the_mean() -> None:
    server = PoolServer(spec(first_stage_rounds=1))
    sent = send(server, server.plan(0))
    server.finish()
    for channel, rows in models(server).items():
        assert (rows == rows[0]).all()
        naive = np.mean([one[channel].astype(np.float64) for one in sent.values()], axis=0)
        np.testing.assert_allclose(rows[0], naive, rtol=0, atol=5e-7)
    _, after = recombined(server, 1)
    assert not (after[PARAMETERS] == after[PARAMETERS][0]).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_in_a_partial_round_only_the_active_group_is_sent_and_shuffled(granularity: Granularity) -> None:
    server = PoolServer(spec(granularity, schedule=Lists(rounds=(-1, 1, 1))))
    recombined(server)
    for index in (1, 2):
        plan = server.plan(index)
        assert plan.uplink_bytes == (4 * (LAYOUT.group_size(1) + LAYOUT.statistics_size),) * POOL
        start = models(server)
        send(server, plan)
        before = models(server)
        server.finish()
        after, piece = models(server), LAYOUT.slices[1]
        for slot in (slot for slot in LAYOUT.slots if slot.group == 1):
            own = slice(slot.offset, slot.stop)
            assert sorted(order_of(before[PARAMETERS][:, own], after[PARAMETERS][:, own])) == list(range(POOL))
        for frozen in (slice(0, piece.start), slice(piece.stop, None)):
            np.testing.assert_array_equal(after[PARAMETERS][:, frozen], start[PARAMETERS][:, frozen])
        # Statistics of other groups were trained along and stay with the model in which they were.
        np.testing.assert_array_equal(after[STATISTICS][:, :8], before[STATISTICS][:, :8])
        own = order_of(before[STATISTICS][:, 8:], after[STATISTICS][:, 8:])
        assert sorted(own) == list(range(POOL))


def test_who_sent_nothing_keeps_the_model_in_the_pool() -> None:
    server = PoolServer(spec("model"))
    recombined(server)
    plan, start = server.plan(1), models(server)
    slots = dict(server._models_of)
    missing = plan.cohort[2]
    sent = send(server, plan, [client for client in plan.cohort if client != missing])
    assert server.finish().accepted == POOL - 1
    after = models(server)[PARAMETERS]
    expected = [sent[client][PARAMETERS] for client in sent] + [start[PARAMETERS][slots[missing]]]
    assert sorted(order_of(np.array(expected), after)) == list(range(POOL))


def test_a_round_without_updates_is_an_error() -> None:
    server = PoolServer(spec())
    server.plan(0)
    with pytest.raises(RunError, match="round 1: no update of the 6 participants"):
        server.finish()


def test_clients_that_train_other_groups_than_others_replace_those_alone() -> None:
    server = PoolServer(spec(schedule=PerClient(warmup_rounds=1, rounds_per_group=1)))
    recombined(server)
    plan = server.plan(1)
    start, slots = models(server), dict(server._models_of)
    sent = send(server, plan)
    pool = models(server)
    for client, groups in zip(plan.cohort, plan.groups, strict=True):
        for group in LAYOUT.all_groups:
            piece = LAYOUT.slices[group]
            expected = sent[client][PARAMETERS][piece] if group in groups else start[PARAMETERS][slots[client], piece]
            np.testing.assert_array_equal(pool[PARAMETERS][slots[client], piece], expected)


def test_a_schedule_by_importance_hears_how_groups_changed() -> None:
    """The head changes most per parameter in the full round, so that it is the first to train alone."""
    one = replace(spec(schedule=Importance(warmup_rounds=1, rounds_per_group=1)), statistics=np.zeros(13, np.float32))
    labels = {}
    for name, server in (("pool", PoolServer(one)), ("mean", Server(replace(one, algorithm=FedAvg())))):
        plan = server.plan(0)
        for client in plan.cohort:
            values = np.concatenate([server._vectors[PARAMETERS], server._vectors[STATISTICS]]).copy()
            values[LAYOUT.slices[2]] += 5
            server.receive(values, (client,))
        server.finish()
        labels[name] = server.plan(1).active.label
    assert labels == {"pool": 2, "mean": 2}
