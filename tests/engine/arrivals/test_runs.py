"""Asynchronous runs end to end in one process: who computes when, and who is sent what."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from arrival_runs import followed
from async_cases import (
    EQUAL_TIMES,
    PERCEPTRON,
    SEQUENTIAL,
    events_of,
    inline,
    without_wall,
)

from fedbench.experiment.run import run

pytestmark = pytest.mark.usefixtures("run_folder")


def test_two_workers_of_which_one_is_three_times_slower() -> None:
    """The fast one ends at 1, 2, 3, 4, ..., the slow one at 3, before the fast one, and at 6, likewise."""
    config = inline("data.clients=2", "delays.slow_fraction=0.5", "delays.slow_factor=3", *EQUAL_TIMES, "rounds=4")
    (slow,) = config.delays.slow_clients(config.seed, 2)
    fast = 1 - slow
    columns = ("worker", "dispatched_seconds", "arrived_seconds", "index", "staleness")
    found = [tuple(event[name] for name in columns) for event in events_of(run(config))]
    expected = [
        (fast, 0.0, 1.0, 0, 0),
        (fast, 1.0, 2.0, 1, 0),
        (slow, 0.0, 3.0, 0, 2),
        (fast, 2.0, 3.0, 2, 1),
        (fast, 3.0, 4.0, 4, 0),
        (fast, 4.0, 5.0, 5, 0),
        (slow, 3.0, 6.0, 3, 3),
        (fast, 5.0, 6.0, 6, 1),
    ]
    # Their first tasks were given out at the same time, the one in slot 0 first; from there on the slow one's is older.
    assert [(worker, *map(pytest.approx, rest)) for worker, *rest in expected] == found


def test_rounds_of_seconds_hold_what_arrives_in_them() -> None:
    config = inline("rounds=12", "delays.seconds_per_round=0.4", "delays.drop_rate=0.2", "delays.away_seconds=1")
    result = run(config)
    events, rows = events_of(result), result.history.to_pylist()
    assert [row["virtual_seconds"] for row in rows] == pytest.approx([0.4 * number for number in range(1, 13)])
    for event in events:
        assert 0.4 * event["round"] < event["arrived_seconds"] <= 0.4 * (event["round"] + 1)
    for row in rows:
        own = [event for event in events if event["round"] == row["round"]]
        delays = [event["staleness"] for event in own if event["status"] == "ok"]
        assert row["clients"] == len(delays)
        assert row["downlink_bytes"] == sum(event["downlink_bytes"] for event in own)
        assert row["staleness_max"] == max(delays, default=None)
        assert row["test_accuracy"] is not None
    empty = [row for row in rows if not row["clients"]]
    assert empty
    assert len(empty) < len(rows)
    assert all(row["update_norm"] == 0 and row["staleness_mean"] is None for row in empty)


def test_seconds_per_round_and_arrivals_per_round_are_the_same_run_cut_differently() -> None:
    by_time = run(inline("rounds=1", "delays.seconds_per_round=4.5"))
    arrivals = by_time.summary["arrivals"]
    by_count = run(inline("rounds=1", f"delays.arrivals_per_round={arrivals}"))
    assert by_time.summary["model_sha256"] == by_count.summary["model_sha256"]
    assert without_wall(by_time) == without_wall(by_count)


def test_who_drops_out_sends_nothing_and_changes_nothing() -> None:
    config = inline("delays.drop_rate=0.4", "delays.away_seconds=2.5", "rounds=6", *EQUAL_TIMES)
    result = run(config)
    events = events_of(result)
    lost = [event for event in events if event["status"] == "lost"]
    assert 5 < len(lost) < len(events) - 5
    assert result.summary["lost_updates"] == len(lost)
    for event in events:
        took = event["arrived_seconds"] - event["dispatched_seconds"]
        assert took == pytest.approx(3.5 if event["status"] == "lost" else 1.0)
    assert all(event["uplink_bytes"] == 0 < event["downlink_bytes"] or event["index"] for event in lost)
    clients = pq.read_table(result.directory / "clients.parquet").to_pylist()
    assert len(clients) == len(events) - len(lost) == 6 * 4


def test_a_freed_slot_goes_to_a_client_that_is_not_at_work_and_nobody_starves() -> None:
    config = inline("data.clients=9", "delays.concurrency=3", "delays.arrivals_per_round=60", "evaluation.every=9")
    result = run(config)
    events = events_of(result)
    assert {event["worker"] for event in events} == {0, 1, 2}
    for client in range(9):
        own = [event for event in events if event["client"] == client]
        for earlier, later in itertools.pairwise(own):
            assert earlier["arrived_seconds"] <= later["dispatched_seconds"]
    tasks = Counter(event["client"] for event in events)
    assert sorted(tasks) == list(range(9))
    assert min(tasks.values()) > 180 / 9 / 2
    for slot in range(3):
        own = [event["client"] for event in events if event["worker"] == slot]
        assert len(set(own)) == 9, "a slot belongs to nobody"
    again = sum(earlier == later for earlier, later in itertools.pairwise(own))
    assert 0 < again < len(own) / 2, "its last client may be drawn again, with one chance in seven"


def test_with_as_many_slots_as_clients_each_keeps_its_own() -> None:
    assert all(event["worker"] == event["client"] for event in events_of(run(inline())))


@pytest.mark.slow
def test_a_hundred_times_slower_worker_holds_nobody_up() -> None:
    config = inline(
        "data.clients=64",
        "data.samples_per_client=16",
        *PERCEPTRON,
        "delays.slow_fraction=0.015625",
        "delays.slow_factor=100",
        "delays.drop_rate=0.1",
        "delays.away_seconds=1",
        "delays.arrivals_per_round=160",
        "rounds=4",
        "evaluation.every=9",
    )
    (slow,) = config.delays.slow_clients(config.seed, 64)
    result = run(config)
    accepted = Counter(event["client"] for event in events_of(result) if event["status"] == "ok")
    assert set(range(64)) - set(accepted) == {slow}
    assert min(accepted.values()) >= 2
    assert result.summary["arrivals"] == 640
    assert result.summary["virtual_seconds"] < 50


def test_inside_a_stretch_only_its_slice_travels_and_changes() -> None:
    """Each round of 12 arrivals begins with what two slots were given out before it, and catches up with that."""
    config = inline(*SEQUENTIAL, "data.clients=2", "delays.arrivals_per_round=12", "rounds=5")
    done = followed(config)
    problem, layout, before = done.problem, done.problem.layout, done.problem.vector
    statistics = 4 * layout.statistics_size
    for row, (vector, _) in zip(done.rows, done.models, strict=True):
        own = [arrival for arrival in done.arrivals if arrival.round == row.round]
        trained = set(layout.all_groups) if row.round < 2 else {row.round - 2, row.round - 1}
        for group in layout.all_groups:
            piece = layout.slices[group]
            assert np.array_equal(vector[piece], before[piece]) == (group not in trained), (row.round, group)
        before = vector
        if row.round == 0:
            continue
        assert [arrival.group for arrival in own[2:]] == [row.round - 1] * 10
        slice_bytes = 4 * layout.group_size(row.round - 1) + statistics
        assert all(arrival.uplink_bytes == slice_bytes for arrival in own[2:])
        assert all(arrival.downlink_bytes == slice_bytes for arrival in own[8:])
    assert row.round == problem.layout.groups


def test_a_method_that_sends_estimates_has_to_send_them() -> None:
    """What a worker trains is made for it; that it holds the server's parameters of that group is no help."""
    config = inline(*SEQUENTIAL, "rounds=5", "delays.arrivals_per_round=8", "algorithm=dana-zero")
    done = followed(config)
    layout = done.problem.layout
    for arrival in done.arrivals:
        trained = layout.all_groups if arrival.group == -1 else (arrival.group,)
        assert arrival.downlink_bytes >= 4 * (layout.count(trained) + layout.statistics_size)


def test_what_one_worker_is_charged_for_is_what_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a single client its host holds what the client holds: the payloads are the protocol's downloads."""
    from fedbench.engine.arrivals.server import ArrivalServer

    sizes: list[int] = []
    send = ArrivalServer.send

    def watched(self: ArrivalServer, *arguments: Any) -> Any:
        payload = send(self, *arguments)
        sizes.append(payload.nbytes)
        return payload

    monkeypatch.setattr(ArrivalServer, "send", watched)
    for algorithm in ("ormo", "dana-zero", "smega2"):
        sizes.clear()
        one = ("data.clients=1", "evaluation.every=99", "delays.arrivals_per_round=3", f"algorithm={algorithm}")
        done = followed(inline(*SEQUENTIAL, "rounds=5", *one))
        assert [arrival.downlink_bytes for arrival in done.arrivals] == sizes, algorithm
