"""Schedules: the layer groups that train in each round; these travel and are averaged, too, unless an exchange differs.

The schedules are those of FedPart: H. Wang, X. Liu, J. Niu, W. Guo, S. Tang, "Why Go Full? Elevating Federated
Learning Through Partial Network Updates", NeurIPS 2024 (arXiv 2410.11559). A *cycle* visits each of the M layer
groups for `rounds_per_group` consecutive rounds; full network updates stand before the first cycle (warm-up) and
between cycles. The orders of a cycle are those of the paper's Table 7.

To write another schedule, derive a class from `Schedule` and say how long it is and which groups a round trains.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from fedbench.components.base import Component
from fedbench.planning.capacities import Clients
from fedbench.protocol.layout import ParameterLayout
from fedbench.randomness import generator


@dataclass(frozen=True)
class ActiveGroups:
    """The layer groups that a round updates.

    Attributes:
        groups: indices of the active layer groups, ascending.
        partial: whether it is a partial update; False for a full network update.
    """

    groups: tuple[int, ...]
    partial: bool

    def union_of(self, clients: Sequence[tuple[int, ...]]) -> "ActiveGroups":
        """The groups that a round updates whose participants train `clients`, one tuple of groups for each."""
        return ActiveGroups(tuple(sorted(set().union(*clients))), self.partial)

    @property
    def phase(self) -> str:
        """The column `phase` of `rounds.parquet`: "full" or "partial"."""
        return "partial" if self.partial else "full"

    @property
    def label(self) -> int:
        """The column `group` of `rounds.parquet`: the single active group of a partial round, else -1."""
        return self.groups[0] if self.partial and len(self.groups) == 1 else -1


@dataclass(frozen=True)
class Feedback:
    """The outcome of the rounds so far, which a schedule may follow.

    Attributes:
        norms: for each group, the L2 norm of its change in the last full round that combined it, 0 before; None before
            the first full round.
        sizes: for each group, its number of parameters.
        idle: for each group, the partial rounds since it was last trained in one, or since the start.
        discrepancies: for each group, how far the clients' updates of it pointed apart in the last round that trained
            it (`fedbench.measures.divergence`); None for a group that no round has trained, or that was not looked at;
            (): before the first round.
    """

    norms: tuple[float, ...] | None
    sizes: tuple[int, ...]
    idle: tuple[int, ...]
    discrepancies: tuple[float | None, ...] = ()

    @classmethod
    def none(cls, layout: ParameterLayout) -> "Feedback":
        """The feedback before the first round."""
        return cls(None, tuple(layout.group_size(group) for group in layout.all_groups), (0,) * layout.groups)

    def after(
        self,
        active: ActiveGroups,
        trained: Sequence[int],
        norms: Mapping[int, float],
        layout: ParameterLayout,
        discrepancies: Mapping[int, float] | None = None,
    ) -> "Feedback":
        """The feedback after one more round.

        Args:
            active: the groups that the round updated.
            trained: the groups of which an update was accepted.
            norms: {group: L2 norm of its change}.
            layout: layout of the parameters.
            discrepancies: {group: how far the clients' updates of it point apart}, where that is looked at.
        """
        known = self.discrepancies or (None,) * layout.groups
        latest = tuple((discrepancies or {}).get(group, known[group]) for group in layout.all_groups)
        if not active.partial:
            before = self.norms or (0.0,) * layout.groups
            latest_norms = tuple(norms.get(group, before[group]) for group in layout.all_groups)
            return replace(self, norms=latest_norms, discrepancies=latest)
        idle = tuple(0 if group in trained else rounds + 1 for group, rounds in enumerate(self.idle))
        return replace(self, idle=idle, discrepancies=latest)


class Schedule(Component):
    """Base of all schedules: a pure function from the round to the active layer groups.

    Attributes:
        follows_training: whether the active groups depend on the outcome of earlier rounds (`Feedback`).
        compares_updates: whether they depend on `Feedback.discrepancies`, for which the server receives and keeps the
            single updates of each round.
        keeps_to_limits: whether no client trains more than it can (`participation.capacities`).
        reads_gradient_norms: whether clients report the gradient's norm in each layer group (`Clients.gradient_norms`).
    """

    follows_training: ClassVar[bool] = False
    compares_updates: ClassVar[bool] = False
    keeps_to_limits: ClassVar[bool] = False
    reads_gradient_norms: ClassVar[bool] = False

    @abstractmethod
    def length(self, groups: int) -> int | None:
        """Number of rounds for a model of `groups` layer groups; None where the schedule has no end."""

    @abstractmethod
    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        """The groups that a round updates.

        Args:
            round_index: the round, from 0 and below `length`.
            groups: M, the number of layer groups of the model.
            seed: seed of the experiment.
            feedback: outcome of the rounds before.
        """

    def client_groups(self, client: int, round_index: int, groups: int, active: ActiveGroups) -> tuple[int, ...]:
        """The layer groups that one participant trains, ascending: the active ones, unless a schedule overrides this.

        Args:
            client: the participant.
            round_index: the round, from 0.
            groups: M, the number of layer groups of the model.
            active: what `active` returned for the round.
        """
        return active.groups

    def cohort_groups(
        self, cohort: Sequence[int], round_index: int, groups: int, active: ActiveGroups, clients: Clients
    ) -> tuple[tuple[int, ...], ...]:
        """The layer groups that each participant trains, where these depend on each other or on the clients' limits.

        Args:
            cohort: the participants, ascending.
            round_index, groups, active: as for `client_groups`, which this class asks for each of them.
            clients: what is known of the clients; a schedule that keeps to their limits says so in `keeps_to_limits`.
        """
        return tuple(self.client_groups(client, round_index, groups, active) for client in cohort)

    @property
    def same_for_all(self) -> bool:
        """Whether all participants of a round train the same layer groups."""
        kind = type(self)
        return kind.client_groups is Schedule.client_groups and kind.cohort_groups is Schedule.cohort_groups


def full_update(groups: int) -> ActiveGroups:
    """A full network update of all `groups` layer groups."""
    return ActiveGroups(tuple(range(groups)), partial=False)


class Full(Schedule):
    """Every round updates the full network (the baseline of all papers)."""

    name: str = "full"

    def length(self, groups: int) -> int | None:
        return None

    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        return full_update(groups)


class Cyclic(Schedule):
    """Warm-up, then cycles that visit each layer group in turn, full rounds between the cycles.

    Attributes:
        warmup_rounds: full network updates before the first cycle.
        cycles: number of cycles; each visits every layer group once.
        rounds_per_group: consecutive rounds for which a group stays active (R/L in the paper).
        full_rounds_between_cycles: full network updates before each later cycle.
    """

    warmup_rounds: int = Field(default=5, ge=0)
    cycles: int = Field(default=1, ge=1)
    rounds_per_group: int = Field(default=2, ge=1)
    full_rounds_between_cycles: int = Field(default=5, ge=0)

    def order(self, cycle: int, groups: int, seed: int) -> list[int]:
        """The groups in the order in which cycle `cycle` (from 0) visits them; shallow to deep unless overridden."""
        return list(range(groups))

    def length(self, groups: int) -> int:
        partial = self.cycles * self.visits(groups) * self.rounds_per_group
        return self.warmup_rounds + partial + (self.cycles - 1) * self.full_rounds_between_cycles

    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        position = self.place(round_index, groups)
        if position is None:
            return full_update(groups)
        return self.visit(*position, groups, seed, feedback)

    def place(self, round_index: int, groups: int) -> tuple[int, int, int] | None:
        """Position of a round in the cycles; None where the round is a full network update.

        Returns:
            (number of the cycle, number of the visit within it, number of the round within the visit), all from 0.
        """
        since_warmup = round_index - self.warmup_rounds
        partial_rounds = self.visits(groups) * self.rounds_per_group
        cycle, position = divmod(since_warmup, partial_rounds + self.full_rounds_between_cycles)
        if since_warmup < 0 or position >= partial_rounds:
            return None
        return cycle, *divmod(position, self.rounds_per_group)

    def visits(self, groups: int) -> int:
        """Number of visits of a cycle; by default one to each group."""
        return groups

    def visit(self, cycle: int, visit: int, step: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        """The groups that a visit trains; arguments as for `active`, `cycle`, `visit` and `step` as from `place`."""
        return ActiveGroups((self.order(cycle, groups, seed)[visit],), partial=True)


class Sequential(Cyclic):
    """Shallow to deep (FedPart's default).

    ResNet-8 has ten groups, so with the defaults rounds 0-4 are full and rounds 5-24 visit each group twice:

    >>> schedule = Sequential()
    >>> schedule.length(10)
    25
    >>> [schedule.place(r, 10) for r in (4, 5, 6, 7, 24)]
    [None, (0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 9, 1)]
    """

    name: str = "sequential"


class Reverse(Cyclic):
    """Deep to shallow (FedPart, Table 7)."""

    name: str = "reverse"

    def order(self, cycle: int, groups: int, seed: int) -> list[int]:
        return list(reversed(range(groups)))


class Random(Cyclic):
    """A new seeded permutation of the groups for each cycle (FedPart, Table 7)."""

    name: str = "random"

    def order(self, cycle: int, groups: int, seed: int) -> list[int]:
        return [int(group) for group in generator(seed, "schedule", cycle).permutation(groups)]


class Width(Cyclic):
    """Several consecutive groups at once, shallow to deep: FedPart with a wider window.

    Attributes:
        k: consecutive groups of a visit; the last visit of a cycle may have fewer.

    >>> Width(k=3, warmup_rounds=0, rounds_per_group=1).length(10)
    4
    """

    name: str = "width"
    k: int = Field(default=2, ge=1)

    def visits(self, groups: int) -> int:
        return -(-groups // self.k)

    def visit(self, cycle: int, visit: int, step: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        first = visit * self.k
        return ActiveGroups(tuple(range(first, min(first + self.k, groups))), partial=True)


class Ranked(Cyclic):
    """Visits the group with the highest score, with a floor so that none starves; a cycle has a visit for each group.

    Attributes:
        longest_wait: visits that a group may wait; a group that was not trained for so long goes first. None: twice
            the number of groups.
    """

    follows_training: ClassVar[bool] = True
    longest_wait: int | None = Field(default=None, ge=1)

    @abstractmethod
    def scores(self, feedback: Feedback) -> list[float] | None:
        """For each group a number, the largest of which goes first; None: the order is shallow to deep as yet."""

    def visit(self, cycle: int, visit: int, step: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        scores = self.scores(feedback)
        if scores is None:
            return super().visit(cycle, visit, step, groups, seed, feedback)
        if step > 0:
            return ActiveGroups((feedback.idle.index(0),), partial=True)
        longest_wait_rounds = (self.longest_wait or 2 * groups) * self.rounds_per_group
        starved = [group for group in range(groups) if feedback.idle[group] >= longest_wait_rounds]
        if starved:
            return ActiveGroups((max(starved, key=lambda group: feedback.idle[group]),), partial=True)
        return ActiveGroups((scores.index(max(scores)),), partial=True)


class Importance(Ranked):
    """Visits the group that changed most per byte in the last full round, with a floor so that none starves.

    The norm of a group's mean update in the last full network update, divided by its bytes, decides; before the first
    full round the order is shallow to deep. A cycle has as many visits as there are groups.

    Attributes:
        longest_wait: visits that a group may wait; a group that was not trained for so long goes first. None: twice
            the number of groups.
    """

    name: str = "importance"

    def scores(self, feedback: Feedback) -> list[float] | None:
        if feedback.norms is None:
            return None
        return [norm / size for norm, size in zip(feedback.norms, feedback.sizes, strict=True)]


class Discrepancy(Ranked):
    """Visits the group in which the clients differ most per byte, with a floor so that none starves.

    FedLAMA's discrepancy decides, of each group in the last round that trained it: the mean squared distance of the
    clients' values from their mean, per value sent (Lee, Zhang, Avestimehr, AAAI 2023). A group that no round has
    trained goes first, the shallowest of several. A cycle has as many visits as there are groups.

    Attributes:
        longest_wait: visits that a group may wait; a group that was not trained for so long goes first. None: twice
            the number of groups.
    """

    compares_updates: ClassVar[bool] = True
    name: str = "discrepancy"

    def scores(self, feedback: Feedback) -> list[float] | None:
        if not feedback.discrepancies:
            return None
        return [math.inf if value is None else value for value in feedback.discrepancies]


class PerClient(Cyclic):
    """Clients train different groups in the same round: in visit v, client c trains group (v + c) mod M.

    Each group is averaged over the clients that trained it. A cycle still takes every client through every group once.
    With `participation.capacities` a client trains group (v + c) mod M and the following ones, as many as it can: the
    first that it cannot train any more ends the window. Where it cannot even train the first one, its window begins
    at the next that it can.
    """

    keeps_to_limits: ClassVar[bool] = True
    name: str = "per-client"

    def visit(self, cycle: int, visit: int, step: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        return ActiveGroups(tuple(range(groups)), partial=True)

    def client_groups(self, client: int, round_index: int, groups: int, active: ActiveGroups) -> tuple[int, ...]:
        position = self.place(round_index, groups)
        return active.groups if position is None else ((position[1] + client) % groups,)

    def cohort_groups(
        self, cohort: Sequence[int], round_index: int, groups: int, active: ActiveGroups, clients: Clients
    ) -> tuple[tuple[int, ...], ...]:
        if not clients.are_limited or self.place(round_index, groups) is None:
            return super().cohort_groups(cohort, round_index, groups, active, clients)
        first = [self.client_groups(client, round_index, groups, active)[0] for client in cohort]
        return tuple(affordable_window(client, group, clients) for client, group in zip(cohort, first, strict=True))


def affordable_window(client: int, first: int, clients: Clients) -> tuple[int, ...]:
    """The consecutive layer groups from `first` on, after the last from the first again, that a client can train.

    >>> affordable_window(0, 2, Clients(budgets=(5,), costs=(2, 9, 1, 3)))
    (2, 3)
    """
    count, window = len(clients.windows[client] if clients.windows else clients.costs), list[int]()
    for group in ((first + step) % count for step in range(count)):
        if clients.affords(client, [*window, group]):
            window.append(group)
        elif window:
            break
    return tuple(sorted(window))
