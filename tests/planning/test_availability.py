"""When clients are on: by chance, by day and night, by a trace; and how long one waits for enough of them."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from traces import a_trace

from fedbench.errors import ConfigError, RunError
from fedbench.planning.availability import Availability, DayNight, Exponential, Presence, Trace

HOUR = 3600.0


def test_clients_are_on_for_their_share_of_the_time() -> None:
    availability = Exponential(on_seconds=30.0, off_seconds=90.0)
    presence = Presence(availability, 400, seed=3)
    shares = [len(presence.available(now)) / 400 for now in (0.0, 50.0, 1000.0)]
    # The standard deviation of a share is sqrt(0.25 * 0.75 / 400) = 0.022.
    assert shares == pytest.approx([0.25] * 3, abs=0.09)
    spans = list(itertools.islice(availability.spans(0, 3), 2000))
    assert np.mean([end - start for start, end in spans]) == pytest.approx(30.0, rel=0.1)


def test_traces_are_a_function_of_the_seed_and_the_client() -> None:
    one, other = (Presence(Exponential(), 5, seed=1) for _ in range(2))
    later = other.available(90_000.0)  # asked for first
    assert one.available(0.0) == other.available(0.0)
    assert one.available(90_000.0) == later
    assert [one.on_until(c, 0.0) for c in range(5)] != [
        Presence(Exponential(), 5, 2).on_until(c, 0.0) for c in range(5)
    ]


def test_days_and_nights_are_those_of_the_time_zone() -> None:
    presence = Presence(DayNight(from_hour=22.0, hours=8.0, zones=1), 1, seed=0)
    assert presence.available(0.0) == (0,)  # since 22 o'clock of the day before
    assert presence.on_until(0, 0.0) == 6 * HOUR
    assert presence.on_from(0, 7 * HOUR) == 22 * HOUR
    assert presence.on_until(0, 23 * HOUR) == 30 * HOUR
    two_zones = Presence(DayNight(from_hour=0.0, hours=6.0, zones=2), 40, seed=0)
    day, night = set(two_zones.available(HOUR)), set(two_zones.available(13 * HOUR))
    assert day | night == set(range(40))
    assert not day & night
    assert len(day) > 8
    assert len(night) > 8


def test_a_trace_is_followed_and_may_be_repeated(tmp_path: Path) -> None:
    rows = [(1, 10.0, 20.0), (0, 0.0, 5.0), (0, 5.0, 8.0), (0, 30.0, 40.0)]
    presence = Presence(a_trace(tmp_path, rows), 3, seed=0)
    assert presence.available(0.0) == (0,)
    assert presence.on_until(0, 1.0) == 8.0  # two rows that follow on each other are one span
    assert presence.on_from(0, 8.0) == 30.0
    assert presence.on_from(1, 20.0) == float("inf")
    assert presence.on_from(2, 0.0) == float("inf")
    repeated = Presence(a_trace(tmp_path, rows, repeat_seconds=50.0), 3, seed=0)
    assert repeated.on_from(1, 20.0) == 60.0
    assert repeated.on_until(0, 51.0) == 58.0


def test_who_is_on_throughout_a_repeated_trace_never_goes(tmp_path: Path) -> None:
    presence = Presence(a_trace(tmp_path, [(0, 0.0, 50.0)], repeat_seconds=50.0), 1, seed=0)
    assert presence.on_until(0, 1e6) == float("inf")


def test_a_round_waits_until_enough_are_on_at_once(tmp_path: Path) -> None:
    presence = Presence(a_trace(tmp_path, [(0, 0.0, 10.0), (1, 5.0, 20.0), (2, 30.0, 40.0)]), 3, seed=0)
    assert presence.wait_for(1, 0.0, 0) == (0.0, (0,))
    assert presence.wait_for(2, 0.0, 0) == (5.0, (0, 1))
    assert presence.wait_for(1, 25.0, 0) == (30.0, (2,))
    with pytest.raises(
        RunError, match="round 4: 3 clients are needed and at most 2 are on at once, for ever after 0 s"
    ):
        presence.wait_for(3, 0.0, 3)


def test_a_wait_of_more_than_a_year_is_told_in_days(tmp_path: Path) -> None:
    presence = Presence(a_trace(tmp_path, [(0, 0.0, 10.0), (1, 4e7, 5e7)]), 2, seed=0)
    with pytest.raises(RunError, match=r"at most 1 are on at once, for 463\.0 days after 0 s of the virtual clock"):
        presence.wait_for(2, 0.0, 0)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([(0, 5.0, 5.0)], {}, "row 0: needs a client and 0 <= start < end"),
        ([(0, 0.0, 9.0), (0, 5.0, 10.0)], {}, "client 0 comes at 5 s and is there until 9 s"),
        ([(7, 0.0, 9.0)], {}, "has client 7; with data.clients=2 there are 0 to 1"),
        ([(0, 0.0, 9.0)], {"repeat_seconds": 5.0}, "repeat_seconds=5: client 0 is on until 9 s"),
    ],
)
def test_wrong_traces_are_refused_in_one_line(
    tmp_path: Path, rows: list[tuple[int, float, float]], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        a_trace(tmp_path, rows, **options).check(2)
    assert "\n" not in str(error.value)


def test_a_trace_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        Trace(path=tmp_path / "missing.parquet").check(2)
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(ConfigError, match="not a Parquet file with numbers client, start, end"):
        Trace(path=tmp_path / "text.parquet").check(2)
    pq.write_table(pa.table({"client": [0], "begin": [1.0]}), tmp_path / "columns.parquet")
    with pytest.raises(ConfigError, match=r"no column 'start'; needs client, start and end, has client, begin$"):
        Trace(path=tmp_path / "columns.parquet").check(2)


class Backwards(Availability):
    name: str = "test_availability:Backwards"

    def spans(self, client: int, seed: int):  # type: ignore[no-untyped-def]
        yield 5.0, 9.0
        yield 1.0, 2.0


def test_spans_that_go_back_are_refused() -> None:
    with pytest.raises(RunError, match="client 0 has the span 1 to 2 s"):
        Presence(Backwards(), 1, 0).on_from(0, 6.0)
