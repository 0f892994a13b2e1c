"""What a schedule answers for one round, checked against what its base class promises."""

from collections.abc import Sequence

from fedbench.errors import ConfigError, FedbenchError
from fedbench.planning.capacities import ALL_ALIKE, Clients
from fedbench.planning.schedules import ActiveGroups, Feedback, Schedule, full_update
from fedbench.randomness import seeded_if_foreign


def checked_groups(
    schedule: Schedule,
    round_index: int,
    groups: int,
    seed: int,
    feedback: Feedback,
    cohort: Sequence[int],
    error: type[FedbenchError] = ConfigError,
    clients: Clients = ALL_ALIKE,
) -> tuple[ActiveGroups, tuple[tuple[int, ...], ...]]:
    """The layer groups of a round, and those that each of its participants trains.

    A round in which all clients choose the whole network is a full one.

    Args:
        schedule: the schedule; built in, or a user's own.
        round_index: the round, from 0.
        groups: M, the number of layer groups of the model.
        seed: seed of the experiment.
        feedback: outcome of the rounds before.
        cohort: the participants.
        error: the kind of error that a broken promise is: a `ConfigError` before a run, a `RunError` within it.
        clients: what is known of the clients.

    Raises:
        FedbenchError: of the kind `error`, where `active`, `client_groups` or `cohort_groups` returned no layer groups,
            or some that do not exist or are not active, or where a client cannot train those that it was given.
    """
    with seeded_if_foreign(schedule, seed, "schedule", round_index):
        active: object = schedule.active(round_index, groups, seed, feedback)
        owner = f"schedule.name={schedule.name}: active({round_index}, {groups}, ...) returned"
        if not isinstance(active, ActiveGroups):
            raise error(f"{owner} {type(active).__name__}, a fedbench.ActiveGroups is needed")
        if problem := problem_of_groups(active.groups, tuple(range(groups))):
            raise error(f"{owner} {problem}")
        trained: object = schedule.cohort_groups(cohort, round_index, groups, active, clients)
        if not isinstance(trained, tuple) or len(trained) != len(cohort):
            needed = f"{len(cohort)} tuples of layer groups are needed, one for each participant"
            raise error(f"schedule.name={schedule.name}: cohort_groups returned {trained!r}; {needed}")
        for client, of_client in zip(cohort, trained, strict=True):
            problem = "" if of_client is active.groups else problem_of_groups(of_client, active.groups)
            if not problem and schedule.keeps_to_limits and not clients.affords(client, of_client):
                problem = f"groups={of_client}, more than client {client} can train"
            if problem:
                by_client = type(schedule).cohort_groups is Schedule.cohort_groups
                called = "client_groups" if by_client else "cohort_groups"
                arguments = f"{client}, {round_index}, {groups}, ..."
                raise error(f"schedule.name={schedule.name}: {called}({arguments}) returned {problem}")
        if (clients.are_limited or schedule.reads_gradient_norms) and set(trained) == {tuple(range(groups))}:
            return full_update(groups), trained
        return active, trained


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
