"""Schedules, against the paper's own table (arXiv 2410.11559) and a spelled-out list."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from fedbench.planning.schedules import (
    ActiveGroups,
    Cyclic,
    Discrepancy,
    Feedback,
    Full,
    Importance,
    PerClient,
    Random,
    Reverse,
    Schedule,
    Sequential,
    Width,
)
from fedbench.protocol.layout import ParameterLayout

RESNET8, RESNET18, TEXT = 10, 21, 8


def unseen(groups: int) -> Feedback:
    """Before the first round, of groups of one parameter."""
    return Feedback.none(layout([1] * groups))


def layout(sizes: Sequence[int]) -> ParameterLayout:
    return ParameterLayout.build([(f"g{index}", {f"g{index}.weight": (size,)}) for index, size in enumerate(sizes)])


def active(schedule: Schedule, index: int, groups: int, seed: int = 0) -> ActiveGroups:
    return schedule.active(index, groups, seed, unseen(groups))


def labels(schedule: Cyclic, groups: int, seed: int = 0) -> list[int]:
    return [active(schedule, index, groups, seed).label for index in range(schedule.length(groups))]


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
    assert active(schedule, 0, 4).groups == (0, 1, 2, 3)
    assert active(schedule, 0, 4).phase == "full"
    assert active(schedule, 1, 4).groups == (0,)
    assert active(schedule, 1, 4).phase == "partial"
    assert Full().length(4) is None
    assert active(Full(), 99, 4).groups == (0, 1, 2, 3)


def test_a_window_of_groups_goes_from_shallow_to_deep_and_the_last_may_be_narrower() -> None:
    schedule = Width(k=3, warmup_rounds=1, cycles=2, rounds_per_group=2, full_rounds_between_cycles=1)
    found = [active(schedule, index, 7).groups for index in range(schedule.length(7))]
    full, cycle = tuple(range(7)), [(0, 1, 2)] * 2 + [(3, 4, 5)] * 2 + [(6,)] * 2
    assert found == [full, *cycle, full, *cycle]
    assert [active(schedule, index, 7).phase for index in (0, 1, 6, 7)] == ["full", "partial", "partial", "full"]
    assert active(schedule, 1, 7).label == -1
    assert active(schedule, 6, 7).label == 6


@pytest.mark.parametrize("k", [1, 2, 5, 8, 20])
def test_a_cycle_of_windows_trains_every_group_once(k: int) -> None:
    schedule = Width(k=k, warmup_rounds=0, rounds_per_group=1)
    visited = [active(schedule, index, 8).groups for index in range(schedule.length(8))]
    assert [group for groups in visited for group in groups] == list(range(8))
    assert all(len(groups) == k for groups in visited[:-1])
    assert all(active(schedule, index, 8).partial for index in range(len(visited)))


def test_a_window_of_one_group_is_the_sequential_schedule() -> None:
    numbers = {"warmup_rounds": 2, "cycles": 2, "rounds_per_group": 3, "full_rounds_between_cycles": 1}
    assert labels(Width(k=1, **numbers), 5) == labels(Sequential(**numbers), 5)


def own_groups(schedule: PerClient, clients: int, groups: int) -> list[list[tuple[int, ...]]]:
    """By round, what each client trains."""
    return [
        [schedule.client_groups(client, index, groups, active(schedule, index, groups)) for client in range(clients)]
        for index in range(schedule.length(groups))
    ]


def test_clients_of_a_round_train_one_group_each_and_as_many_different_ones_as_there_are() -> None:
    schedule = PerClient(warmup_rounds=0, rounds_per_group=1)
    for clients in (2, 5, 9):
        for chosen in own_groups(schedule, clients, 5):
            assert all(len(groups) == 1 for groups in chosen)
            assert len(set(chosen)) == min(clients, 5)


def test_over_a_cycle_every_client_trains_every_group_once_in_consecutive_rounds() -> None:
    schedule = PerClient(warmup_rounds=0, rounds_per_group=2)
    rounds = own_groups(schedule, clients=7, groups=4)
    for client in range(7):
        trained = [chosen[client] for chosen in rounds]
        assert trained[::2] == trained[1::2]
        assert sorted(trained[::2]) == [(0,), (1,), (2,), (3,)]


def test_in_full_rounds_every_client_trains_everything() -> None:
    schedule = PerClient(warmup_rounds=2, cycles=2, rounds_per_group=1, full_rounds_between_cycles=1)
    phases = [active(schedule, index, 3).phase for index in range(schedule.length(3))]
    assert phases == ["full"] * 2 + ["partial"] * 3 + ["full"] + ["partial"] * 3
    for phase, chosen in zip(phases, own_groups(schedule, 4, 3), strict=True):
        assert (set(chosen) == {(0, 1, 2)}) == (phase == "full")


def test_what_a_round_updates_is_the_union_of_what_its_participants_train() -> None:
    whole = ActiveGroups((0, 1, 2, 3, 4), partial=True)
    assert whole.union_of([(3,), (1,), (3,)]) == ActiveGroups((1, 3), partial=True)
    assert whole.union_of([(4,)]).label == 4
    assert whole.union_of([(3,), (1,)]).label == -1
    assert ActiveGroups((0, 1), partial=False).union_of([(0, 1), (0, 1)]) == ActiveGroups((0, 1), partial=False)


def test_all_participants_train_the_active_groups_unless_a_schedule_says_otherwise() -> None:
    for schedule in (Full(), Sequential(warmup_rounds=0), Width(warmup_rounds=0), Importance(warmup_rounds=0)):
        chosen = active(schedule, 0, 4)
        assert {schedule.client_groups(client, 0, 4, chosen) for client in range(5)} == {chosen.groups}


SIZES = (100, 10, 1000, 50, 5, 400)


def follow(schedule: Importance, norms: Sequence[Sequence[float]], sizes: Sequence[int] = SIZES) -> list[ActiveGroups]:
    """The rounds of a schedule when the groups change by `norms` in full round number 0, 1, ..., partial ones by 1."""
    groups, table = len(sizes), layout(sizes)
    feedback, found, full = Feedback.none(table), [], 0
    for index in range(schedule.length(groups)):
        chosen = schedule.active(index, groups, 0, feedback)
        found.append(chosen)
        changes = dict.fromkeys(chosen.groups, 1.0)
        if not chosen.partial:
            changes = dict(enumerate(norms[full]))
            full += 1
        feedback = feedback.after(chosen, chosen.groups, changes, table)
    return found


def test_before_the_first_full_round_importance_goes_from_shallow_to_deep() -> None:
    schedule = Importance(warmup_rounds=0, cycles=1, rounds_per_group=2)
    assert [chosen.groups for chosen in follow(schedule, [])] == [(group,) for group in range(6) for _ in range(2)]


def test_the_last_full_rounds_norm_per_byte_decides() -> None:
    # The largest norm is that of group 2, the largest norm per parameter that of group 4, then of group 1.
    first, second = (5.0, 3.0, 9.0, 1.0, 2.0, 4.0), (5.0, 3.0, 9.0, 1.0, 1.0, 4.0)
    schedule = Importance(
        warmup_rounds=2, cycles=2, rounds_per_group=1, full_rounds_between_cycles=1, longest_wait=1000
    )
    found = [chosen.label for chosen in follow(schedule, [(1.0, 0, 0, 0, 0, 0), first, second])]
    assert found == [-1, -1, *[4] * 6, -1, *[1] * 6]


@pytest.mark.parametrize("rounds_per_group", [2, 3])
def test_importance_stays_with_its_choice_for_all_rounds_of_a_visit(rounds_per_group: int) -> None:
    schedule = Importance(
        warmup_rounds=1, cycles=3, rounds_per_group=rounds_per_group, full_rounds_between_cycles=2, longest_wait=3
    )
    found = follow(schedule, [(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)] * 5)
    partial = [chosen.label for chosen in found if chosen.partial]
    visits = [partial[start : start + rounds_per_group] for start in range(0, len(partial), rounds_per_group)]
    assert all(len(set(visit)) == 1 for visit in visits)
    assert len({visit[0] for visit in visits}) > 1


@pytest.mark.parametrize("longest_wait", [None, 1, 4, 6, 15])
@pytest.mark.parametrize("rounds_per_group", [1, 2])
def test_no_group_starves(longest_wait: int | None, rounds_per_group: int) -> None:
    """At most `longest_wait` visits pass without a group, and those of the others that starve with it."""
    schedule = Importance(
        warmup_rounds=1,
        cycles=20,
        rounds_per_group=rounds_per_group,
        full_rounds_between_cycles=1,
        longest_wait=longest_wait,
    )
    rng = np.random.default_rng(0)
    found = follow(schedule, [tuple(rng.exponential(size=6) * 10.0 ** np.arange(6)) for _ in range(20)])
    visits = [chosen.label for chosen in found if chosen.partial][::rounds_per_group]
    assert len(visits) == 120
    patience = 12 if longest_wait is None else longest_wait
    for group in range(6):
        times = [-1, *(index for index, visited in enumerate(visits) if visited == group), len(visits)]
        assert max(later - earlier - 1 for earlier, later in pairwise(times)) <= patience + 5


def test_the_group_with_the_largest_discrepancy_comes_next_and_unknown_ones_before_it() -> None:
    table, schedule = (
        layout(SIZES[:3]),
        Discrepancy(warmup_rounds=0, cycles=2, rounds_per_group=1, full_rounds_between_cycles=0),
    )
    feedback, chosen = Feedback.none(table), []
    for measured in (5.0, 1.0, 9.0, 2.0, 0.5, 0.1):
        active = schedule.active(len(chosen), 3, 0, feedback)
        chosen.append(active.label)
        feedback = feedback.after(active, active.groups, {}, table, {active.label: measured})
    assert chosen == [0, 1, 2, 2, 0, 2]
    assert feedback.discrepancies == (0.5, 1.0, 0.1)


def test_a_full_round_measures_all_groups() -> None:
    table = layout(SIZES[:2])
    full = ActiveGroups((0, 1), partial=False)
    feedback = Feedback.none(table).after(full, (0, 1), {0: 1.0, 1: 1.0}, table, {0: 3.0, 1: 4.0})
    assert feedback.discrepancies == (3.0, 4.0)


def test_waiting_counts_partial_rounds_without_the_group() -> None:
    table = layout(SIZES[:3])
    feedback = Feedback.none(table)
    assert (feedback.norms, feedback.sizes, feedback.idle) == (None, SIZES[:3], (0, 0, 0))
    partial = ActiveGroups((1,), partial=True)
    feedback = feedback.after(partial, (1,), {1: 2.0}, table).after(partial, (1,), {1: 2.0}, table)
    assert (feedback.norms, feedback.idle) == (None, (2, 0, 2))
    full = ActiveGroups((0, 1, 2), partial=False)
    feedback = feedback.after(full, (0, 1, 2), {0: 1.0, 1: 2.0, 2: 3.0}, table)
    assert (feedback.norms, feedback.idle) == ((1.0, 2.0, 3.0), (2, 0, 2))
