"""Virtual seconds and joules of rounds against a world worked out by hand."""

from pathlib import Path

import pytest
from traces import a_trace

from fedbench.planning.availability import Presence
from fedbench.planning.profiles import Device, Link, Profile
from fedbench.planning.worlds import Work, World

FAST = Profile(
    "fast+near",
    Device(flops_per_second=100.0, joules_per_flop=0.01),
    Link(down_bytes_per_second=10.0, up_bytes_per_second=5.0, joules_per_byte_down=0.1, joules_per_byte_up=0.3),
)
SLOW = Profile(
    "slow+far",
    Device(flops_per_second=20.0, joules_per_flop=0.02),
    Link(
        down_bytes_per_second=4.0,
        up_bytes_per_second=2.0,
        latency_seconds=1.0,
        joules_per_byte_down=0.2,
        joules_per_byte_up=0.5,
    ),
)
WORK = Work(flops=200, down_bytes=40, up_bytes=20)


def test_two_clients_by_hand() -> None:
    """Fast: 40/10 + 200/100 + 20/5 = 10 s; slow: (1 + 40/4) + 200/20 + (1 + 20/2) = 32 s."""
    times = World([FAST, SLOW]).round(100.0, (0, 1), (WORK, WORK))
    fast, slow = times.clients[0], times.clients[1]
    assert (fast.download, fast.compute, fast.upload, fast.end) == (4.0, 2.0, 4.0, 110.0)
    assert (slow.download, slow.compute, slow.upload, slow.end) == (11.0, 10.0, 11.0, 132.0)
    assert times.end == 132.0
    assert not times.dropped
    # 200 * 0.01 + 40 * 0.1 + 20 * 0.3 = 12 J; 200 * 0.02 + 40 * 0.2 + 20 * 0.5 = 22 J.
    assert fast.joules == pytest.approx(12.0)
    assert slow.joules == pytest.approx(22.0)
    assert times.joules == pytest.approx(34.0)


def test_nothing_to_move_takes_no_latency() -> None:
    times = World([SLOW]).task(0, 0.0, Work(flops=20, down_bytes=0, up_bytes=0))
    assert (times.download, times.compute, times.upload) == (0.0, 1.0, 0.0)


def test_the_deadline_ends_the_round_and_counts_what_was_spent_until_then() -> None:
    times = World([FAST, SLOW], deadline=16.0).round(100.0, (0, 1), (WORK, WORK))
    slow = times.clients[1]
    assert times.end == 116.0
    assert times.too_slow == {1}
    assert times.clients[0].done
    assert (slow.download, slow.compute, slow.upload) == (11.0, 5.0, 0.0)
    assert slow.joules == pytest.approx(40 * 0.2 + 200 * 0.02 * 0.5)
    late = World([FAST, SLOW], deadline=27.0).round(0.0, (1,), (WORK,)).clients[1]
    # 11 s down, 10 s computing, 1 s latency and 5 s of sending at 2 bytes a second.
    assert (late.download, late.compute, late.upload) == (11.0, 10.0, 6.0)
    assert late.joules == pytest.approx(40 * 0.2 + 200 * 0.02 + 10 * 0.5)


def test_a_deadline_that_all_meet_does_not_lengthen_the_round() -> None:
    assert World([FAST], deadline=16.0).round(0.0, (0,), (WORK,)).end == 10.0


def test_who_goes_off_during_its_work_is_dropped_and_not_waited_for(tmp_path: Path) -> None:
    presence = Presence(a_trace(tmp_path, [(0, 0.0, 99.0), (1, 0.0, 15.0)]), 2, seed=0)
    times = World([FAST, SLOW], presence).round(0.0, (0, 1), (WORK, WORK))
    assert times.went_off == {1}
    assert times.end == 10.0
    assert times.clients[1].end == 15.0
    assert times.clients[1].joules == pytest.approx(40 * 0.2 + 200 * 0.02 * 0.4)


def test_a_round_opens_when_enough_clients_are_on(tmp_path: Path) -> None:
    presence = Presence(a_trace(tmp_path, [(0, 0.0, 10.0), (1, 5.0, 20.0)]), 2, seed=0)
    opening = World([FAST, SLOW], presence).open(2.0, size=2, round_index=0)
    assert (opening.start, opening.waited, opening.available) == (5.0, 3.0, (0, 1))
    assert World([FAST, SLOW]).open(2.0, 2, 0).available is None


def test_clients_of_one_group_share_its_uplink() -> None:
    """Both begin to send at 6 s; 20 bytes each at 2.5 a second where 5 are shared."""
    shared = World([FAST, FAST], uplinks=[0, 0], uplink_bandwidth=5.0).round(0.0, (0, 1), (WORK, WORK))
    apart = World([FAST, FAST], uplinks=[0, 1], uplink_bandwidth=5.0).round(0.0, (0, 1), (WORK, WORK))
    assert [shared.clients[client].upload for client in (0, 1)] == [8.0, 8.0]
    assert [apart.clients[client].upload for client in (0, 1)] == [4.0, 4.0]
    assert shared.joules == apart.joules


def test_joules_are_unknown_where_one_energy_is() -> None:
    device = Device(flops_per_second=1.0)
    unknown = Profile("unknown+near", device, FAST.link)
    times = World([FAST, unknown]).round(0.0, (0, 1), (WORK, WORK))
    assert times.clients[0].joules is not None
    assert times.joules is None
    assert unknown.missing_energies == ("joules_per_flop",)
