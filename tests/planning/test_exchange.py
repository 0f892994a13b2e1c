"""What participants send under each exchange, spelled out; and what is refused."""

import itertools

import numpy as np
import pytest
from small import config

from fedbench.errors import ConfigError, RunError
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import prepared
from fedbench.experiment.setup import Problem, build_problem
from fedbench.planning.checked_exchange import checked_exchange
from fedbench.planning.exchange import (
    AdaptiveIntervals,
    Everything,
    Exchange,
    Intervals,
    Memory,
    Rotating,
    Strided,
    Trained,
    TrainedRound,
    agreeing_groups,
    consecutive_blocks,
)
from fedbench.planning.schedules import Feedback

pytestmark = pytest.mark.usefixtures("flops_counted_once")

SIZES = (10, 20, 30, 40, 5)
ALL = (0, 1, 2, 3, 4)


def sent(exchange: Exchange, index: int, *trained: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    trained = trained or (ALL,) * 6
    of_round = TrainedRound(index, 3, SIZES, tuple(range(len(trained))), trained)
    return checked_exchange(exchange, of_round, exchange.first_memory(SIZES))


def test_what_is_trained_is_sent_unless_everything_is() -> None:
    assert sent(Trained(), 0, (1,), (0, 2)) == ((1,), (0, 2))
    assert sent(Everything(), 0, (1,), (0, 2)) == (ALL, ALL)


@pytest.mark.parametrize("clients", [4, 6, 7])
def test_blocks_are_dealt_evenly_and_anew_in_each_round(clients: int) -> None:
    rounds = [sent(Rotating(blocks=2, shared=1), index, *(ALL,) * clients) for index in range(20)]
    for groups in rounds:
        counts = [groups.count(block) for block in ((0, 1, 2, 4), (3, 4))]
        assert sum(counts) == clients
        assert abs(counts[0] - counts[1]) <= 1
    assert len(set(rounds)) > 5


def test_blocks_are_cut_from_what_the_round_trains() -> None:
    assert sent(Rotating(blocks=5, shared=1), 0, (2,), (2,)) == ((2,), (2,))
    assert set(sent(Rotating(blocks=2, shared=0), 0, (1, 2), (1, 2))) == {(1,), (2,)}
    assert sent(Rotating(blocks=2, shared=1), 0, (4,), (4,)) == ((4,), (4,))
    assert sent(Rotating(blocks=3, shared=9), 0) == (ALL,) * 6


@pytest.mark.parametrize("count", range(1, 8))
def test_blocks_are_consecutive_and_none_is_empty(count: int) -> None:
    for sizes in itertools.permutations((1, 1, 50, 2, 9)):
        blocks = consecutive_blocks(range(5), sizes, count)
        assert len(blocks) == min(count, 5)
        assert all(blocks)
        assert [group for block in blocks for group in block] == list(range(5))


def test_fragments_are_sent_in_turn() -> None:
    strided = [sent(Strided(every=3, fragments=3), index)[0] for index in range(6)]
    assert strided == [(0, 3), (1, 4), (2,)] * 2
    spread = [sent(Strided(every=4, fragments=2, consecutive=True), index)[0] for index in range(5)]
    assert spread == [(0, 1, 2), (), (3, 4), (), (0, 1, 2)]
    assert [sent(Strided(every=1, fragments=9), index)[0] for index in range(2)] == [ALL, ALL]


def test_groups_are_sent_at_their_intervals() -> None:
    exchange = Intervals(every=(1, 2, 3, 2, 1))
    assert [sent(exchange, index)[0] for index in range(4)] == [(0, 4), (0, 1, 3, 4), (0, 2, 4), (0, 1, 3, 4)]
    assert [sent(Intervals(every=2), index)[0] for index in range(2)] == [(), ALL]


def test_the_groups_up_to_the_crossing_of_the_curves_are_sent_less_often() -> None:
    """Sorted by d: c, b, a. Shares of the parameters .3, .9, 1; of the discrepancy 3/51, 15/51, 1."""
    assert agreeing_groups([0.36, 0.02, 0.01], [100, 600, 300]) == [False, True, True]
    assert agreeing_groups([0.0, 0.0], [1, 1]) == [True, True]


def test_intervals_are_adapted_when_all_groups_were_combined() -> None:
    exchange = AdaptiveIntervals(factor=2, first=3)
    feedback = Feedback(None, (100, 600, 300), (0, 0, 0), (0.36, 0.02, 0.01))
    memory = exchange.first_memory(feedback.sizes)
    assert [exchange.remember(memory, index, feedback) for index in range(3)] == [(1, 1, 1)] * 3
    memory = exchange.remember(memory, 3, feedback)
    assert memory == (1, 2, 2)
    # What has grown over two rounds counts half in each: (0.05, 0.02, 0.03), and the second group is 12 of 26 in all.
    later = Feedback(None, feedback.sizes, feedback.idle, (0.05, 0.04, 0.06))
    assert exchange.remember(memory, 5, later) == (1, 2, 1)
    assert exchange.remember(memory, 5, Feedback(None, feedback.sizes, feedback.idle, (0.1, None, 0.1))) == memory


class Wrong(Exchange):
    name: str = "test_exchange:Wrong"
    answer: str = ""

    def sent(self, trained: TrainedRound, memory: Memory) -> tuple[tuple[int, ...], ...]:
        return {"list": [(0,), (1,)], "short": ((0,),), "unknown": ((0,), (7,)), "order": ((0,), (2, 1))}[self.answer]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("list", "a tuple of layer groups for each of 2 clients is needed"),
        ("short", "a tuple of layer groups for each of 2 clients is needed"),
        ("unknown", "in round 3, returned layer group 7; allowed: 0, 1, 2, 3, 4"),
        ("order", "they must be ascending, each once"),
    ],
)
def test_a_broken_promise_is_named(answer: str, message: str) -> None:
    of_round = TrainedRound(2, 0, SIZES, (0, 1), (ALL, ALL))
    with pytest.raises(RunError, match=f"exchange.name=test_exchange:Wrong: .*{message}"):
        checked_exchange(Wrong(answer=answer), of_round, (), RunError)


REFUSED = {
    ("algorithm=ormo", "exchange=rotate", "schedule=full"): "exchange.name=rotate: ormo applies single updates of what",
    ("algorithm=fedmr", "exchange=full"): "exchange.name=full: fedmr deals whole models to the clients",
    ("algorithm=scaffold", "exchange=strided"): "exchange.name=strided: the server of scaffold relies on what clients",
    ("algorithm=feddyn", "exchange=intervals"): "exchange.name=intervals: the server of feddyn relies on what clients",
    ("algorithm=fednova", "exchange=strided"): "exchange.name=strided: fednova scales an update by the steps of",
    ("exchange=rotate", "analysis.barrier=[1]"): "analysis.barrier=\\[1\\] rebuilds a client's model from its message",
    ("exchange=intervals", "exchange.every=[1,2]"): "exchange.every=\\[1, 2\\]: 2 intervals for 4 layer groups",
    ("exchange=strided", "exchange.delay=3"): "exchange.delay=3: must be less than every=3",
    ("exchange=intervals", "exchange.every=0"): "exchange.every=0: intervals are whole numbers of at least 1",
    ("exchange=rotat",): "exchange=rotat: no such exchange; did you mean 'rotate'",
    ("exchange=rotate", "runtime.keep_models=[1]", "runtime.keep_messages=[0]"): "runtime.keep_messages=\\[0\\] keeps",
    ("algorithm=median", "exchange=rotate", "exchange.blocks=3"): "leaves nobody out of fewer than 3",
    ("algorithm=fedlama", "data.clients=1"): "exchange.name=adaptive-intervals: compares the updates of a",
    ("algorithm=fedlama", "runtime.combine=node"): "exchange.name=adaptive-intervals looks at single updates",
}  # fmt: skip


def problem_of(*overrides: str) -> Problem:
    chosen = config(*overrides)
    return build_problem(chosen, load_federation(chosen))


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_what_makes_no_sense_is_refused_in_one_line(overrides: tuple[str, ...]) -> None:
    plain = ("local.optimizer=sgd", "local.optimizer.momentum=0", "local.optimizer.lr=0.1", "schedule=full")
    with pytest.raises(ConfigError, match=REFUSED[overrides]) as caught:
        problem_of(*plain, *overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "exchange"),
    [
        (
            ("algorithm=streaming-diloco", "exchange.delay=1", "exchange.mixing=0.5"),
            ("exchange=strided", "exchange.delay=1", "exchange.mixing=0.5"),
        ),
        (
            ("algorithm=fedprox", "server=fedlama", "exchange.factor=4"),
            ("exchange=adaptive-intervals", "exchange.factor=4"),
        ),
        (("algorithm=fedlama", "exchange=strided", "exchange.every=2"), ("exchange=strided", "exchange.every=2")),
    ],
)
def test_parameters_without_a_name_are_those_of_the_methods_exchange(
    overrides: tuple[str, ...], exchange: tuple[str, ...]
) -> None:
    assert config(*overrides).chosen_exchange == config(*exchange).chosen_exchange


def test_a_parameter_that_the_methods_exchange_has_not_is_unknown() -> None:
    with pytest.raises(ConfigError, match=r"exchange\.blocks: unknown key with exchange\.name=adaptive-intervals"):
        config("algorithm=fedlama", "exchange.blocks=2")


CROSSED = [
    *itertools.product(("fedavg", "fedexp"), ("per-client",), ("rotate",)),
    *itertools.product(
        ("fedprox", "moon", "scaffold", "fednova"), ("full", "sequential", "per-client"), ("rotate", "full")
    ),
    *itertools.product(("fedadam", "fedexp", "fedavgm"), ("full", "sequential"), ("rotate", "strided", "intervals")),
    *itertools.product(("fedprox", "moon"), ("full", "sequential"), ("strided", "adaptive-intervals")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "schedule", "exchange"), CROSSED)
def test_exchanges_cross_with_methods_and_schedules(algorithm: str, schedule: str, exchange: str) -> None:
    """Bytes by formula; what nobody sent is as it was, and what somebody sent that trained it is not."""
    plain = ("local.optimizer=sgd", "local.optimizer.momentum=0", "local.optimizer.lr=0.1", "data.clients=4")
    small = ("runtime.executor=inline", "model.width=2", "local.epochs=null", "local.steps=1", "rounds=4")
    if schedule == "per-client":  # then a client may have nothing at all to send
        plain = (*plain, "local.batchnorm=local")
    chosen = config(*plain, *small, f"algorithm={algorithm}", f"schedule={schedule}", f"exchange={exchange}")
    with prepared(chosen) as (problem, executor):
        layout, table, before = problem.layout, problem.server.table, problem.vector.copy()
        foreseen = problem.costs.project(
            chosen.schedule, 4, 4, chosen.seed, chosen.participation.sampler, chosen.chosen_exchange
        )
        for index in range(4):
            plan = executor.plan(index)  # type: ignore[union-attr]
            executor.train(plan)  # type: ignore[union-attr]
            executor.finish()  # type: ignore[union-attr]
            after = executor.model()[0]
            for group in layout.all_groups:
                piece = layout.slices[group]
                sent_by_a_trainer = any(
                    group in set(sent) & set(trained) for sent, trained in zip(plan.sent, plan.groups, strict=True)
                )
                if group not in plan.combined or sent_by_a_trainer:
                    assert np.array_equal(after[piece], before[piece]) == (group not in plan.combined), group
            beside = layout.statistics_size if table.statistics else 0
            sizes = [layout.count(groups) * (1 + len(table.channels)) + beside for groups in plan.sent]
            assert plan.uplink_bytes == tuple(4 * size for size in sizes)
            assert sum(plan.uplink_bytes) == foreseen[index].uplink_bytes
            assert sum(plan.downlink_bytes) == foreseen[index].downlink_bytes
            before = after.copy()
