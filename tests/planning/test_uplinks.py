"""Shared uplinks against max-min fair sharing worked out by hand."""

import math

import numpy as np
import pytest

from fedbench.errors import ConfigError
from fedbench.planning.uplinks import UplinkGroups, Upload, fair_share, shared_ends


def test_a_slow_link_leaves_the_rest_of_the_uplink_to_the_others() -> None:
    """B = 10: the slow client sends 2/s, the two others 4/s each; when one of them is done, the last has 8/s."""
    uploads = [Upload(0.0, 20.0, 2.0), Upload(0.0, 20.0, 9.0), Upload(0.0, 60.0, 9.0)]
    ends = shared_ends(uploads, 10.0)
    # Until 5 s: 10, 20 and 20 bytes. Then 2/s and 8/s: the third needs 40 / 8 = 5 s more, the first 10 / 2 = 5 s more.
    assert [end.time for end in ends] == [10.0, 5.0, 10.0]
    assert all(end.done for end in ends)


def test_who_begins_later_shares_from_then_on() -> None:
    ends = shared_ends([Upload(0.0, 40.0, 10.0), Upload(2.0, 10.0, 10.0)], 10.0)
    # 20 bytes alone by 2 s, then 5/s each until 4 s, when the second is done; the first has 10 bytes left.
    assert [end.time for end in ends] == [5.0, 4.0]


def test_who_stops_leaves_its_share() -> None:
    ends = shared_ends([Upload(0.0, 40.0, 10.0), Upload(0.0, 40.0, 10.0, stop=4.0)], 10.0)
    assert [(end.time, end.sent, end.done) for end in ends] == [(6.0, 40.0, True), (4.0, 20.0, False)]


def test_an_uplink_that_is_wide_enough_is_as_if_nobody_shared() -> None:
    rng = np.random.default_rng(0)
    uploads = [Upload(float(rng.random()), float(rng.integers(1, 99)), float(rng.integers(1, 9))) for _ in range(8)]
    alone = [upload.begin + upload.nbytes / upload.rate for upload in uploads]
    assert [end.time for end in shared_ends(uploads, math.inf)] == alone
    assert [end.time for end in shared_ends(uploads, 1e9)] == pytest.approx(alone)


def test_the_uplink_is_never_idle_nor_exceeded() -> None:
    """With links as wide as the uplink, the last upload ends when all bytes are through at its full rate."""
    rng = np.random.default_rng(1)
    uploads = [Upload(0.0, float(rng.integers(1, 99)), 7.0) for _ in range(9)]
    last = max(end.time for end in shared_ends(uploads, 7.0))
    assert last == pytest.approx(sum(upload.nbytes for upload in uploads) / 7.0)


def test_nothing_to_send_ends_at_once() -> None:
    assert shared_ends([Upload(3.0, 0.0, 1.0), Upload(0.0, 2.0, 1.0)], 1.0)[0].time == 3.0


def test_the_fair_share_is_none_where_all_have_what_they_can_use() -> None:
    assert fair_share([2.0, 3.0], 5.0) == 3.0
    assert fair_share([2.0, 3.0], 6.0) == math.inf
    assert fair_share([1.0, 5.0, 5.0], 9.0) == 4.0


def test_groups_are_dealt_out_evenly_by_the_seed() -> None:
    section = UplinkGroups(bytes_per_second=1.0, groups=3)
    groups = section.of_clients(8, seed=0)
    assert sorted(groups.count(group) for group in range(3)) == [2, 3, 3]
    assert groups == section.of_clients(8, seed=0)
    assert groups != section.of_clients(8, seed=1)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (UplinkGroups(bytes_per_second=1.0, groups=9), "delays.uplink_groups.groups=9: more than data.clients=4"),
        (UplinkGroups(bytes_per_second=1.0, clients=(0, 1)), "has 2 groups for data.clients=4"),
    ],
)
def test_groups_fit_the_population(section: UplinkGroups, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        section.of_clients(4, 0)
