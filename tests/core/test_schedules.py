"""Schedules, against the paper's own table (arXiv 2410.11559) and a spelled-out list."""

import pytest

from fedbench.schedules import Cyclic, Full, Random, Reverse, Sequential

RESNET8, RESNET18, TEXT = 10, 21, 8


def labels(schedule: Cyclic, groups: int, seed: int = 0) -> list[int]:
    return [schedule.active(index, groups, seed).label for index in range(schedule.length(groups))]


def test_resnet8_follows_the_paper() -> None:
    schedule = Sequential(warmup_rounds=5, cycles=2, rounds_per_group=2, full_rounds_between_cycles=5)
    cycle = [-1] * 5 + [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    assert labels(schedule, RESNET8) == cycle * 2


@pytest.mark.parametrize(("groups", "rounds"), [(RESNET8, 25), (RESNET18, 47), (TEXT, 21)])
def test_a_cycle_has_the_papers_length(groups: int, rounds: int) -> None:
    assert Sequential().length(groups) == rounds
    assert Sequential(cycles=4).length(groups) == 4 * rounds


def test_warm_up_and_rounds_between_are_separate() -> None:
    schedule = Sequential(warmup_rounds=3, cycles=3, rounds_per_group=1, full_rounds_between_cycles=1)
    assert labels(schedule, 2) == [-1, -1, -1, 0, 1, -1, 0, 1, -1, 0, 1]
    none = Sequential(warmup_rounds=0, cycles=2, rounds_per_group=1, full_rounds_between_cycles=0)
    assert labels(none, 3) == [0, 1, 2, 0, 1, 2]


def test_reverse_goes_from_deep_to_shallow() -> None:
    assert labels(Reverse(warmup_rounds=1, rounds_per_group=2), 3) == [-1, 2, 2, 1, 1, 0, 0]


def test_random_draws_a_new_permutation_each_cycle() -> None:
    schedule = Random(warmup_rounds=0, cycles=6, rounds_per_group=1, full_rounds_between_cycles=0)
    drawn = labels(schedule, 10, seed=4)
    cycles = [tuple(drawn[start : start + 10]) for start in range(0, 60, 10)]
    assert all(sorted(cycle) == list(range(10)) for cycle in cycles)
    assert len(set(cycles)) == 6
    assert drawn == labels(schedule, 10, seed=4) != labels(schedule, 10, seed=5)


def test_phases_and_groups() -> None:
    schedule = Sequential(warmup_rounds=1)
    assert schedule.active(0, 4, 0).groups == (0, 1, 2, 3)
    assert schedule.active(0, 4, 0).phase == "full"
    assert schedule.active(1, 4, 0).groups == (0,)
    assert schedule.active(1, 4, 0).phase == "partial"
    assert Full().length(4) is None
    assert Full().active(99, 4, 0).groups == (0, 1, 2, 3)
