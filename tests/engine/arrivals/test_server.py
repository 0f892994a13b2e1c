"""The server of asynchronous runs by itself: a machine per layer group, snapshots, running statistics."""

from collections.abc import Sequence

import numpy as np
import pytest

from fedbench.algorithms.arrivals import ArrivalRule, AsyncAlgorithm
from fedbench.algorithms.asgd import Asgd
from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.dana import DanaZero
from fedbench.algorithms.ormo import OrMo
from fedbench.components.catalogue import BUILTIN, component_class, make_component
from fedbench.engine.arrivals.server import ArrivalServer, ArrivalServerSpec
from fedbench.engine.arrivals.steps import ApplyStep, ForgetStep, SendStep
from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.message import PartTable

LAYOUT = ParameterLayout.build(
    [("a", {"a.weight": (3,)}), ("b", {"b.weight": (2,)}), ("c", {"c.weight": (4,)})],
    statistics=[("norm.running_mean", 0, (2,))],
)
RETENTION = np.array([0.5, 0.875], np.float32)
START = np.arange(1, 10, dtype=np.float32)
STATISTICS = np.array([8.0, 16.0], np.float32)
EVERYTHING = (0, 1, 2, 3)


def server(method: AsyncAlgorithm, workers: int = 2, *, travel: bool = True, share: float = 1.0) -> ArrivalServer:
    return ArrivalServer(
        ArrivalServerSpec(
            table=PartTable(LAYOUT, statistics=travel),
            vector=START,
            statistics=STATISTICS,
            retention=RETENTION,
            share=share,
            workers=workers,
            method=method,
        )
    )


def upload(groups: Sequence[int], value: float, statistics: np.ndarray | None = None) -> np.ndarray:
    """The same value for each parameter of these groups, then the client's statistics."""
    return np.concatenate([np.full(LAYOUT.count(groups), value), [] if statistics is None else statistics]).astype(
        np.float32
    )


def group(one: ArrivalServer, index: int) -> float:
    """How far a group's parameters have moved; all of it alike."""
    moved = (one.model()[0] - START)[LAYOUT.slices[index]]
    assert len(set(moved.tolist())) == 1
    return float(moved[0])


def state(machine: ArrivalRule) -> dict[str, object]:
    """Everything that a machine holds, as it is now."""
    return {
        name: value.tobytes() if isinstance(value, np.ndarray) else repr(value) for name, value in vars(machine).items()
    }


def methods() -> list[AsyncAlgorithm]:
    """Every built-in one."""
    buffered = {name: {"buffer_size": 2} for name in ("fedbuff", "fadas", "ca2fl")}
    parameters = {"ormo-da": {"smoothness": 1.0}, **buffered}
    made = []
    for name in BUILTIN["algorithm"]:
        if issubclass(component_class("algorithm", name), AsyncAlgorithm):
            one = make_component("algorithm", Algorithm, {"name": name, **parameters.get(name, {})})
            assert isinstance(one, AsyncAlgorithm)
            made.append(one)
    return made


every_method = pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)


def test_what_is_sent_is_what_is_held() -> None:
    one = server(Asgd())
    vector, statistics = one.model()
    np.testing.assert_array_equal(vector, START)
    np.testing.assert_array_equal(statistics, STATISTICS)
    for parts in (EVERYTHING, (1,), (0, 2), (3,), ()):
        expected = np.concatenate([START[0:3], START[3:5], START[5:9], STATISTICS])
        borders = [slice(0, 3), slice(3, 5), slice(5, 9), slice(9, 11)]
        chosen = np.concatenate([expected[borders[part]] for part in parts] + [np.empty(0, np.float32)])
        for sent in (one.send(0, 0, (0, 1, 2), parts), one.resend(0, parts), one.current(parts)):
            assert sent.dtype == np.float32
            np.testing.assert_array_equal(sent, chosen)


def test_the_model_that_it_was_made_from_is_copied() -> None:
    one = server(Asgd())
    one.send(0, 0, (0, 1, 2), ())
    one.apply(0, upload((0, 1, 2), 1.0, STATISTICS + 1), 1.0, 1)
    np.testing.assert_array_equal(START, np.arange(1, 10))
    np.testing.assert_array_equal(STATISTICS, [8, 16])


@every_method
def test_a_work_keeps_the_values_that_it_was_given(method: AsyncAlgorithm) -> None:
    """Whoever has to do it again, after other updates, starts from the same."""
    one = server(method)
    for number in range(4):  # so that there is momentum to estimate with
        one.send(number, number % 2, (0, 1, 2), ())
        one.apply(number, upload((0, 1, 2), 1.0 + number, STATISTICS), 0.1, 1)
    given = one.send(4, 0, (0, 2), EVERYTHING).copy()
    one.send(5, 1, (0, 1, 2), ())
    one.apply(5, upload((0, 1, 2), 1.0, STATISTICS + 5), 0.1, 1)
    one.send(6, 1, (0, 1, 2), ())
    one.apply(6, upload((0, 1, 2), 2.0, STATISTICS + 7), 0.1, 1)
    np.testing.assert_array_equal(one.resend(4, EVERYTHING), given)
    np.testing.assert_array_equal(one.resend(4, (1, 3)), given[[3, 4, 9, 10]])
    assert (one.current(EVERYTHING)[-2:] != given[-2:]).all()
    if not method.estimates:
        assert (one.current((0,)) != given[:3]).all()


def test_an_estimate_is_sent_of_the_groups_that_are_trained_and_no_other() -> None:
    one = server(DanaZero(momentum=0.5))
    one.send(0, 0, (0, 1, 2), ())
    one.apply(0, upload((0, 1, 2), 4.0, STATISTICS), 1.0, 1)
    sent = one.send(1, 0, (1,), (0, 1, 2))
    expected = START - 4.0
    expected[LAYOUT.slices[1]] -= 0.5 * 4.0
    np.testing.assert_array_equal(sent, expected)
    np.testing.assert_array_equal(one.current((0, 1, 2)), START - 4.0)


@every_method
def test_a_partial_update_leaves_other_groups_alone_with_their_momentum(method: AsyncAlgorithm) -> None:
    one = server(method)
    for number in range(5):
        one.send(number, number % 2, (0, 1, 2), ())
        one.apply(number, upload((0, 1, 2), 1.0 + number, STATISTICS), 0.1, 1)
    before = [state(machine) for machine in one._machines]
    vector = one.model()[0].copy()
    for number in range(5, 9):
        one.send(number, number % 2, (1,), ())
        one.apply(number, upload((1,), 1.0 + number, STATISTICS), 0.1, 1)
    after = [state(machine) for machine in one._machines]
    assert after[0] == before[0]
    assert after[2] == before[2]
    assert after[1] != before[1]
    outside = np.ones(LAYOUT.size, bool)
    outside[LAYOUT.slices[1]] = False
    np.testing.assert_array_equal(one.model()[0][outside], vector[outside])
    assert (one.model()[0][~outside] != vector[~outside]).all()


def test_indices_and_buckets_are_counted_for_each_group_by_itself() -> None:
    """Group a meets (1,0) (2,1) (4,0) (8,2) with K = 2, beta = 1/2: w = -1, -3.5, -9.5, -23.75, as by hand.

    Three updates of group b in between, which would have opened two buckets, change nothing of that; and b, whose
    updates are each computed on what the one before has left, has indices and buckets of its own.
    """
    one = server(OrMo(momentum=0.5), travel=False)
    moves: list[float] = []

    def answer(number: int, groups: Sequence[int], value: float) -> None:
        one.apply(number, upload(groups, value), 1.0, 1)

    def of_b(number: int) -> None:
        one.send(number, 0, (1,), ())
        answer(number, (1,), 1.0)

    one.send(0, 0, (0,), ())
    one.send(1, 1, (0,), ())
    answer(0, (0,), 1.0)
    moves.append(group(one, 0))
    of_b(10)
    one.send(2, 0, (0,), ())
    answer(2, (0,), 2.0)
    moves.append(group(one, 0))
    of_b(11)
    of_b(12)
    one.send(3, 0, (0,), ())
    answer(1, (0,), 4.0)
    moves.append(group(one, 0))
    answer(3, (0,), 8.0)
    moves.append(group(one, 0))
    assert moves == [-1.0, -3.5, -9.5, -23.75]
    assert [machine.index for machine in one._machines] == [4, 3, 0]
    # None of b's is late. t = 1 opens a bucket: w - u/2 with u = 1, then u = 1/2 + 1; at t = 2 it is 1/2 + 1 + 1.
    assert group(one, 1) == -(1.0 + 0.5 + 1.0 + 1.0)
    of_b(13)
    of_b(14)
    # t = 3 opens the next: w - u/2 with u = 2.5.
    assert group(one, 1) == -(3.5 + 1.25 + 1.0 + 1.0)


def test_random_groups_and_delays_agree_with_the_closed_form_of_each_group() -> None:
    """c = ceil((n-1)/K), d_j = c - ceil(ite_j/K): w = w_0 - sum_j (1 + beta + ... + beta^d_j) eta g_j."""
    workers, beta, lr, count = 3, 0.8, 0.1, 60
    rng = np.random.default_rng(0)
    one = server(OrMo(momentum=beta), workers, travel=False)
    applied: list[list[tuple[float, int]]] = [[], [], []]
    flying: dict[int, tuple[int, tuple[int, ...], list[int]]] = {}
    for number in range(count + workers):
        worker = number if number < workers else int(rng.integers(workers))
        if worker in flying:
            earlier, groups, indices = flying.pop(worker)
            gradient = float(rng.normal())
            one.apply(earlier, upload(groups, gradient), lr, 1)
            for index in groups:
                applied[index].append((gradient, indices[index]))
        chosen = tuple(int(index) for index in np.flatnonzero(rng.random(3) < [0.9, 0.6, 0.4])) or (2,)
        one.send(number, worker, chosen, ())
        flying[worker] = (number, chosen, [len(applied[index]) for index in range(3)])
    counts = [len(pairs) for pairs in applied]
    assert len(set(counts)) == 3
    for index, pairs in enumerate(applied):
        current = -(-(len(pairs) - 1) // workers)
        late = [current - -(-ite // workers) for _, ite in pairs]
        weights = [sum(beta**power for power in range(delay + 1)) for delay in late]
        expected = -sum(weight * lr * gradient for weight, (gradient, _) in zip(weights, pairs, strict=True))
        assert max(late) - min(late) > 3
        np.testing.assert_allclose((one.model()[0] - START)[LAYOUT.slices[index]], expected, rtol=0, atol=1e-5)


def trained(statistics: np.ndarray, batches: Sequence[Sequence[float]]) -> np.ndarray:
    """What a client's running statistics come to: s <- a s + x for each minibatch."""
    for batch in batches:
        statistics = RETENTION * statistics + np.asarray(batch, np.float32)
    return statistics


def test_with_one_worker_statistics_are_those_of_a_sequential_client() -> None:
    rng = np.random.default_rng(0)
    one, sequential = server(Asgd(), workers=1), STATISTICS
    for number, steps in enumerate([1, 3, 2, 1]):
        batches = rng.normal(size=(steps, 2)).astype(np.float32)
        held = one.send(number, 0, (0,), (3,))
        np.testing.assert_allclose(held, sequential, rtol=1e-6)
        one.apply(number, upload((0,), 0.0, trained(held, batches)), 0.1, steps)
        sequential = trained(sequential, batches)
        np.testing.assert_allclose(one.model()[1], sequential, rtol=1e-6)


def test_statistics_of_gradients_are_those_of_a_sequential_run_however_stale() -> None:
    """Both start from s = (8, 16); the second arrives when (5, 15) is there and is brought forward to it.

    With a = (1/2, 7/8): the first adds (1, 1), so 4 + 1, 14 + 1; the second adds (2, 3): its own are 4 + 2, 14 + 3, and
    from (5, 15) on they would be 2.5 + 2, 13.125 + 3.
    """
    one = server(Asgd())
    one.send(0, 0, (0,), ())
    one.send(1, 1, (0,), ())
    one.apply(0, upload((0,), 0.0, np.array([5.0, 15.0])), 0.1, 1)
    np.testing.assert_array_equal(one.model()[1], [5.0, 15.0])
    one.apply(1, upload((0,), 0.0, np.array([6.0, 17.0])), 0.1, 1)
    np.testing.assert_array_equal(one.model()[1], [4.5, 16.125])


def test_of_two_stale_steps_the_squared_share_is_kept() -> None:
    one = server(Asgd())
    one.send(0, 0, (0,), ())
    one.send(1, 1, (0,), ())
    one.apply(0, upload((0,), 0.0, np.array([4.0, 32.0])), 0.1, 1)
    one.apply(1, upload((0,), 0.0, trained(STATISTICS, [(1, 0), (1, 2)])), 0.1, 2)
    np.testing.assert_array_equal(one.model()[1], trained(np.array([4.0, 32.0], np.float32), [(1, 0), (1, 2)]))


def test_statistics_of_local_training_weigh_one_kth() -> None:
    """From 8 to 5 by a half is 6.5; the second's 6 becomes 6 + (6.5 - 8) / 2 = 5.25, and half the way there 5.875."""
    one = server(Asgd(), share=0.5)
    one.send(0, 0, (0,), ())
    one.send(1, 1, (0,), ())
    one.apply(0, upload((0,), 0.0, np.array([5.0, 16.0])), 1.0, 1)
    np.testing.assert_array_equal(one.model()[1], [6.5, 16.0])
    one.apply(1, upload((0,), 0.0, np.array([6.0, 16.0])), 1.0, 1)
    np.testing.assert_array_equal(one.model()[1], [5.875, 16.0])


def test_without_statistics_there_are_none_to_move() -> None:
    one = server(Asgd(), travel=False)
    assert len(one.send(0, 0, (2,), (0, 1, 2))) == LAYOUT.size
    one.apply(0, upload((2,), 1.0), 0.5, 1)
    assert [group(one, index) for index in range(3)] == [0.0, 0.0, -0.5]
    np.testing.assert_array_equal(one.model()[1], STATISTICS)


def test_the_norm_is_of_the_change_since_the_last_round() -> None:
    one = server(Asgd(), travel=False)
    one.send(0, 0, (0, 1, 2), ())
    assert one.end_round() == 0.0
    one.apply(0, upload((0, 1, 2), 2.0), 1.0, 1)
    one.send(1, 0, (1,), ())
    one.apply(1, upload((1,), -3.0), 1.0, 1)
    assert one.end_round() == pytest.approx((7 * 2.0**2 + 2 * 1.0**2) ** 0.5)
    assert one.end_round() == 0.0
    one.send(2, 0, (2,), ())
    one.apply(2, upload((2,), 0.5), 1.0, 1)
    assert one.end_round() == pytest.approx(1.0)


@every_method
def test_many_steps_in_one_call_are_those_steps_one_by_one(method: AsyncAlgorithm) -> None:
    """Parameters are those of the dispatch, whatever is applied after it in the same call."""
    rng = np.random.default_rng(0)
    uploads = [rng.normal(size=LAYOUT.size + 2).astype(np.float32) for _ in range(3)]
    every = (0, 1, 2)
    single, several = server(method, 3), server(method, 3)
    for number in range(3):
        single.send(number, number, every, EVERYTHING)
    single.apply(1, uploads[0], 0.1, 1)
    sent = single.send(3, 1, every, EVERYTHING)
    single.forget(0)
    partly = single.send(4, 0, every, (1, 3))
    single.apply(2, uploads[2], 0.2, 1)
    several.advance([SendStep(number, number, every) for number in range(3)], ())
    payloads, seconds = several.advance(
        [
            ApplyStep(1, 1, 0, 0.1, 1),
            SendStep(3, 1, every),
            ForgetStep(0),
            SendStep(4, 0, every),
            ApplyStep(2, 0, 1, 0.2, 1),
        ],
        [(4, (1, 3)), (3, EVERYTHING)],
        (uploads[1], uploads[2]),
        (uploads[0],),
    )
    assert seconds > 0
    assert [payload.tobytes() for payload in payloads] == [partly.tobytes(), sent.tobytes()]
    assert [state(machine) for machine in single._machines] == [state(machine) for machine in several._machines]
    assert single.model()[1].tobytes() == several.model()[1].tobytes()


@every_method
def test_a_work_that_sends_nothing_leaves_no_trace(method: AsyncAlgorithm) -> None:
    with_it, without = server(method), server(method)
    for one in (with_it, without):
        one.send(0, 0, (0, 1, 2), ())
        one.send(1, 1, (0, 1, 2), ())
        one.apply(0, upload((0, 1, 2), 1.0, STATISTICS + 1), 0.1, 1)
    with_it.send(2, 0, (0, 1, 2), ())
    with_it.forget(2)
    with pytest.raises(KeyError):
        with_it.resend(2, EVERYTHING)
    for one in (with_it, without):
        one.send(3, 0, (0, 1, 2), ())
        one.apply(1, upload((0, 1, 2), 2.0, STATISTICS + 2), 0.1, 1)
        one.apply(3, upload((0, 1, 2), 3.0, STATISTICS + 3), 0.1, 1)
    for mine, theirs in zip(with_it.model(), without.model(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not with_it._sent


def test_a_state_of_another_shape_is_not_taken_up() -> None:
    state = server(Asgd()).state()
    with pytest.raises(ValueError, match=r"statistics is float32 \[1\], not float32 \[2\]"):
        server(Asgd()).restore({**state, "statistics": STATISTICS[:1]})
    first, *others = state["machines"]
    shorter = {name: value[:-1] if isinstance(value, np.ndarray) else value for name, value in first.items()}
    with pytest.raises(ValueError, match=r"parameters is float32 \[2\], not float32 \[3\]"):
        server(Asgd()).restore({**state, "machines": [shorter, *others]})
