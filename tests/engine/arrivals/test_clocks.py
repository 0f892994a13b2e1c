"""When tasks end: a schedule written out by hand, what service times depend on, logs that are followed or refused."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.engine.arrivals import clocks
from fedbench.engine.arrivals.clocks import NEVER, Clock, ReplayClock, TaskEnd, VirtualClock, WallClock
from fedbench.engine.messages import TaskOrder
from fedbench.errors import ConfigError, DataError, RunError
from fedbench.planning.delays import Constant, DelaysSection, Distribution, Gamma, LogNormal, Pareto
from fedbench.records.schema import ARRIVAL_SCHEMA


def order(number: int, client: int, visit: int = 0, worker: int | None = None) -> TaskOrder:
    return TaskOrder(
        number=number,
        worker=client if worker is None else worker,
        client=client,
        visit=visit,
        groups=(0,),
        stale=(),
        lr_factor=1.0,
        gradient=True,
    )


def virtual(seed: int = 0, clients: int = 4, **delays: object) -> VirtualClock:
    return VirtualClock(DelaysSection(**delays), seed, clients)  # type: ignore[arg-type]


def begin(clock: Clock, one: TaskOrder, now: float = 0.0, share: float = 1.0, nbytes: int = 0) -> float | None:
    return clock.dispatched(one, now, share, nbytes)


def seconds(clock: VirtualClock, client: int, visit: int, share: float = 1.0, nbytes: int = 0) -> float:
    """Service time of one task, given out at time 0 and taken back at once."""
    begin(clock, order(0, client, visit), share=share, nbytes=nbytes)
    due = clock.next(NEVER)
    assert due is not None
    return due.seconds


def test_two_workers_of_which_one_is_three_times_slower() -> None:
    """The fast one ends at 2, 4, 6, the slow one at 6, too: it goes first, because its task was given out earlier."""
    delays = DelaysSection(distribution="constant", mean_seconds=2, slow_fraction=0.5, slow_factor=3)
    (slow,) = delays.slow_clients(seed=0, clients=2)
    fast = 1 - slow
    clock = VirtualClock(delays, seed=0, clients=2)
    assert begin(clock, order(0, fast)) == 2.0
    assert begin(clock, order(1, slow)) == 6.0
    assert clock.next(NEVER) == TaskEnd(2.0, 0)
    begin(clock, order(2, fast, 1), now=2.0)
    assert clock.next(NEVER) == TaskEnd(4.0, 2)
    begin(clock, order(3, fast, 2), now=4.0)
    assert clock.next(NEVER) == TaskEnd(6.0, 1)
    assert clock.next(NEVER) == TaskEnd(6.0, 3)
    begin(clock, order(4, slow, 1), now=6.0)
    begin(clock, order(5, fast, 3), now=6.0)
    assert clock.next(NEVER) == TaskEnd(8.0, 5)
    assert clock.next(NEVER) == TaskEnd(12.0, 4)
    assert clock.next(NEVER) is None


def test_ties_go_to_the_earlier_dispatch_however_many_there_are() -> None:
    clock = virtual(clients=9, distribution="constant")
    numbers = [4, 7, 0, 8, 2, 6, 1, 5, 3]
    for client, number in enumerate(numbers):
        begin(clock, order(number, client))
    found = [clock.next(NEVER) for _ in numbers]
    assert found == [TaskEnd(1.0, number) for number in range(9)]


def test_what_ends_later_is_left_for_later() -> None:
    clock = virtual(distribution="constant", mean_seconds=3)
    begin(clock, order(0, 0))
    assert clock.next(2.9) is None
    assert clock.next(2.9) is None
    assert clock.next(3.0) == TaskEnd(3.0, 0), "the end of a stretch belongs to it"
    assert clock.next(NEVER) is None


def test_service_times_depend_on_seed_client_and_visit_alone() -> None:
    visits = [(client, visit) for visit in range(3) for client in range(4)]
    straight = {key: seconds(virtual(), *key) for key in visits}
    assert len(set(straight.values())) == len(visits)
    together = virtual()
    for number, (client, visit) in enumerate(reversed(visits)):
        begin(together, order(100 - number, client, visit, worker=number), now=0.0)
    dues = [together.next(NEVER) for _ in visits]
    numbers = {100 - number: key for number, key in enumerate(reversed(visits))}
    assert {numbers[due.number]: due.seconds for due in dues if due} == straight
    assert [due.seconds for due in dues if due] == sorted(straight.values())
    assert all(seconds(virtual(seed=1), *key) != time for key, time in straight.items())
    assert all(seconds(virtual(clients=9), *key) == time for key, time in straight.items())


def test_a_task_takes_time_in_proportion_to_its_flops() -> None:
    for share in (0.25, 1.0, 3.0):
        time = seconds(virtual(mean_seconds=5), 2, 7, share=share)
        assert time == pytest.approx(5 * share * seconds(virtual(), 2, 7), rel=1e-12)


def test_a_task_begins_when_it_is_given_out() -> None:
    clock = virtual()
    begin(clock, order(0, 1), now=7.5)
    due = clock.next(NEVER)
    assert due is not None
    assert due.seconds == 7.5 + seconds(virtual(), 1, 0)


@pytest.mark.parametrize(
    ("distribution", "deviation"),
    [
        (Constant(), 0.0),
        (Gamma(), 0.25),
        (Gamma(cv=1.5), 1.5),
        (LogNormal(), 0.5),
        (LogNormal(cv=1.0), 1.0),
        (Pareto(alpha=6.0), 1 / math.sqrt(24)),
        (Pareto(), 1 / math.sqrt(3)),
    ],
    ids=str,
)
def test_service_times_have_mean_1_and_the_deviation_they_are_told(
    distribution: Distribution, deviation: float
) -> None:
    """The variance of Pareto's law with mean 1 is 1 / (alpha (alpha - 2))."""
    rng = np.random.default_rng(0)
    draws = np.array([distribution.draw(rng) for _ in range(20_000)])
    assert draws.min() > 0
    assert draws.mean() == pytest.approx(1.0, abs=4 * deviation / math.sqrt(len(draws)))
    assert draws.std() == pytest.approx(deviation, rel=0.2)


@pytest.mark.parametrize(("fraction", "clients", "count"), [(0, 7, 0), (0.0625, 16, 1), (0.25, 10, 2), (1, 3, 3)])
def test_so_many_clients_are_slow(fraction: float, clients: int, count: int) -> None:
    factor = {"slow_factor": 1000} if fraction else {}
    delays = DelaysSection(distribution="constant", slow_fraction=fraction, **factor)  # type: ignore[arg-type]
    chosen = delays.slow_clients(3, clients)
    assert len(chosen) == count
    assert chosen <= set(range(clients))
    clock = VirtualClock(delays, 3, clients)
    assert {client for client in range(clients) if seconds(clock, client, 0) == 1000} == chosen
    assert {seconds(clock, client, 0) for client in range(clients)} <= {1.0, 1000.0}


def test_who_is_slow_is_drawn_from_the_seed() -> None:
    delays = DelaysSection(slow_fraction=0.1)
    assert len({delays.slow_clients(seed, 100) for seed in range(5)}) == 5
    assert delays.slow_clients(0, 100) == delays.slow_clients(0, 100)


def test_communication_takes_bytes_over_bandwidth_also_for_the_slow() -> None:
    slow = {"slow_fraction": 1.0, "slow_factor": 10.0}
    for delays in ({}, slow):
        without = seconds(virtual(**delays), 1, 0, nbytes=5_000)
        with_it = seconds(virtual(bandwidth=1_000.0, **delays), 1, 0, nbytes=5_000)
        assert with_it == pytest.approx(without + 5.0, rel=1e-12)
        assert seconds(virtual(**delays), 1, 0, nbytes=0) == without


def test_lost_works_free_their_slot_some_seconds_after_they_would_have_ended() -> None:
    visits = [(client, visit) for client in range(4) for visit in range(50)]
    plain, dropping = virtual(), virtual(drop_rate=0.3, away_seconds=40.0)
    lost = 0
    for client, visit in visits:
        expected = begin(dropping, order(5, client, visit), now=2.0)
        due = dropping.next(NEVER)
        assert due is not None
        assert due.lost != expected
        away = 40.0 if due.lost else 0.0
        assert due.seconds == pytest.approx(2.0 + seconds(plain, client, visit) + away, rel=1e-12)
        lost += due.lost
    assert lost / len(visits) == pytest.approx(0.3, abs=0.1)


class Ready:
    """Finished tasks with the times at which they end, as an executor would hand them out; time passes by waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ends: float) -> None:
        self.now, self._ends = 100.0, list(ends)
        self.waits: list[float] = []
        monkeypatch.setattr(clocks.time, "perf_counter", lambda: self.now)

    def __call__(self, timeout: float) -> int | None:
        self.waits.append(timeout)
        end = 100.0 + self._ends[0]
        if end > self.now + timeout:
            self.now += timeout
            return None
        self.now = max(self.now, end)
        self._ends.pop(0)
        return len(self.waits)


def test_the_wall_clock_waits_for_what_is_left_of_a_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Ready(monkeypatch, 1.0, 2.5, 7.0)
    clock = WallClock(ready)
    assert begin(clock, order(0, 0))
    assert clock.next(4.0) == TaskEnd(1.0, 1)
    assert clock.next(4.0) == TaskEnd(2.5, 2)
    assert clock.next(4.0) is None
    assert clock.next(NEVER) == TaskEnd(7.0, 4)
    assert ready.waits == [4.0, 3.0, 1.5, math.inf]


def test_on_the_wall_clock_a_stretch_has_no_arrival_after_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a replay, which goes by the recorded times, would put it into the next stretch."""
    ready = Ready(monkeypatch, 1.0, 5.0)
    clock = WallClock(ready)
    ready.now += 9.0  # the model was scored meanwhile
    due = clock.next(4.0)
    assert due is None or due.seconds <= 4.0


ROWS = [  # worker, client, arrived_seconds, status
    (1, 1, 0.5, "ok"),
    (0, 0, 0.75, "lost"),
    (1, 2, 1.0, "rejected"),
    (0, 3, 4.0, "ok"),
]


def log(path: Path, rows: Sequence[tuple[int, int, float, str]] = ROWS) -> Path:
    """An `events.parquet` of these arrivals."""
    empty = {field.name: "" if field.type == pa.string() else 0 for field in ARRIVAL_SCHEMA}
    table = [
        empty | {"arrival": number, "worker": worker, "client": client, "arrived_seconds": time, "status": status}
        for number, (worker, client, time, status) in enumerate(rows)
    ]
    file = path / "events.parquet"
    pq.write_table(pa.Table.from_pylist(table, schema=ARRIVAL_SCHEMA), file)
    return file


def test_a_replay_follows_the_log(tmp_path: Path) -> None:
    clock = ReplayClock(log(tmp_path), "wall")
    assert clock.name == "wall"
    assert begin(clock, order(0, 0)) is None, "it was lost there"
    assert begin(clock, order(1, 1)) == 0.5
    assert clock.next(0.4) is None
    assert clock.next(0.6) == TaskEnd(0.5, 1)
    assert begin(clock, order(2, 2, worker=1)) == 1.0
    assert clock.next(NEVER) == TaskEnd(0.75, 0, lost=True)
    assert begin(clock, order(3, 3, worker=0)) == 4.0
    assert clock.next(NEVER) == TaskEnd(1.0, 2)
    assert begin(clock, order(4, 7, worker=1)) == NEVER, "in flight when the recorded run ended"
    assert clock.next(NEVER) == TaskEnd(4.0, 3)


def test_a_log_of_another_configuration_is_refused(tmp_path: Path) -> None:
    file = log(tmp_path)
    clock = ReplayClock(file, "virtual")
    with pytest.raises(ConfigError) as caught:
        begin(clock, order(0, 2, worker=0))
    assert str(caught.value) == (
        f"delays.replay={file}: worker 0 has client 0 there and 2 here; replay it with the configuration of its own "
        "run (config.yaml beside it)"
    )


def test_a_log_with_more_workers_is_refused(tmp_path: Path) -> None:
    clock = ReplayClock(log(tmp_path), "virtual")
    begin(clock, order(0, 0))
    with pytest.raises(ConfigError, match=r"^delays\.replay=.*events\.parquet: .*\b1\b.*no task here"):
        clock.next(NEVER)


def test_a_worker_that_never_came_up_in_the_log_is_still_at_work(tmp_path: Path) -> None:
    """It is slow, and the recorded run had ended before its first answer."""
    clock = ReplayClock(log(tmp_path, ROWS[:1]), "virtual")
    assert begin(clock, order(0, 0))
    assert begin(clock, order(1, 1))
    assert clock.next(NEVER) == TaskEnd(0.5, 1)


def test_a_log_that_ends_too_early_is_told(tmp_path: Path) -> None:
    clock = ReplayClock(log(tmp_path, ROWS[:1]), "virtual")
    begin(clock, order(0, 1))
    clock.next(NEVER)
    begin(clock, order(1, 1, 1))
    with pytest.raises(RunError, match=r"^delays\.replay=.*: ends before the run does; lower rounds, or run it anew$"):
        clock.next(NEVER)


def test_a_stretch_of_time_may_outlast_the_last_arrival_of_its_log(tmp_path: Path) -> None:
    """A run in rounds of seconds ends when these are over, and not with an arrival."""
    clock = ReplayClock(log(tmp_path, ROWS[:1]), "virtual")
    begin(clock, order(0, 1))
    assert clock.next(0.6) == TaskEnd(0.5, 0)
    begin(clock, order(1, 1, 1), now=0.5)
    assert clock.next(0.6) is None


def test_what_is_no_record_of_arrivals_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"events\.parquet: is missing"):
        ReplayClock(tmp_path / "events.parquet", "virtual")
