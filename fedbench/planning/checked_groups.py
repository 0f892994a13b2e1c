"""What a schedule answers for one round, checked against what its base class promises."""

from collections.abc import Sequence

from fedbench.errors import ConfigError, FedbenchError
from fedbench.planning.schedules import ActiveGroups, Feedback, Schedule
from fedbench.randomness import seeded_if_foreign


def checked_groups(
    schedule: Schedule,
    round_index: int,
    groups: int,
    seed: int,
    feedback: Feedback,
    cohort: Sequence[int],
    error: type[FedbenchError] = ConfigError,
) -> tuple[ActiveGroups, tuple[tuple[int, ...], ...]]:
    """The layer groups of a round, and those that each of its participants trains.

    Args:
        schedule: the schedule; built in, or a user's own.
        round_index: the round, from 0.
        groups: M, the number of layer groups of the model.
        seed: seed of the experiment.
        feedback: outcome of the rounds before.
        cohort: the participants.
        error: the kind of error that a broken promise is: a `ConfigError` before a run, a `RunError` within it.

    Raises:
        FedbenchError: of the kind `error`, where `active` or `client_groups` returned no layer groups, or some that do
            not exist or are not active.
    """
    with seeded_if_foreign(schedule, seed, "schedule", round_index):
        active: object = schedule.active(round_index, groups, seed, feedback)
        owner = f"schedule.name={schedule.name}: active({round_index}, {groups}, ...) returned"
        if not isinstance(active, ActiveGroups):
            raise error(f"{owner} {type(active).__name__}, a fedbench.ActiveGroups is needed")
        if problem := problem_of_groups(active.groups, tuple(range(groups))):
            raise error(f"{owner} {problem}")
        trained: list[tuple[int, ...]] = []
        for client in cohort:
            client_groups: object = schedule.client_groups(client, round_index, groups, active)
            if client_groups is not active.groups and (problem := problem_of_groups(client_groups, active.groups)):
                called = f"client_groups({client}, {round_index}, {groups}, ...)"
                raise error(f"schedule.name={schedule.name}: {called} returned {problem}")
            trained.append(client_groups)  # type: ignore[arg-type]
        return active, tuple(trained)


def problem_of_groups(groups: object, allowed: tuple[int, ...]) -> str:
    """What is wrong with indices of layer groups, to stand behind "returned"; "" for sound ones."""
    if not isinstance(groups, tuple) or not all(isinstance(group, int) for group in groups):
        return f"groups={groups!r}; a tuple of whole numbers is needed"
    if not groups:
        return "no layer groups; at least one must be active"
    unknown = [group for group in groups if group not in allowed]
    if unknown:
        return f"layer group {unknown[0]}; allowed: {', '.join(map(str, allowed))}"
    if list(groups) != sorted(set(groups)):
        return f"groups={groups}; they must be ascending, each once"
    return ""
