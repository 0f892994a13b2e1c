"""Which layer groups train, travel and are averaged in which round.

The schedules are those of FedPart: H. Wang, X. Liu, J. Niu, W. Guo, S. Tang, "Why Go Full? Elevating Federated
Learning Through Partial Network Updates", NeurIPS 2024 (arXiv 2410.11559). A *cycle* visits each of the M layer
groups for `rounds_per_group` consecutive rounds; full network updates stand before the first cycle (warm-up) and
between cycles. Orders: Table 7.

A schedule of one's own derives from `Schedule` and says two things: how long it is and what is active in a round.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from fedbench.components.base import Component
from fedbench.protocol.layout import ParameterLayout
from fedbench.randomness import generator


@dataclass(frozen=True)
class ActiveGroups:
    """What a round updates.

    Attributes:
        groups: indices of the active layer groups, ascending.
        partial: False for a full network update.
    """

    groups: tuple[int, ...]
    partial: bool

    def union_of(self, clients: Sequence[tuple[int, ...]]) -> "ActiveGroups":
        """What a round updates whose participants train these groups."""
        return ActiveGroups(tuple(sorted(set().union(*clients))), self.partial)

    @property
    def phase(self) -> str:
        """full | partial, as in `rounds.parquet`."""
        return "partial" if self.partial else "full"

    @property
    def label(self) -> int:
        """The one active group of a partial round; -1 for all, or for several."""
        return self.groups[0] if self.partial and len(self.groups) == 1 else -1


@dataclass(frozen=True)
class Feedback:
    """What a schedule may look at of the rounds so far.

    Attributes:
        norms: L2 norm of each group's change in the last full round; None before the first.
        sizes: parameters of each group.
        idle: rounds since each group was last trained in a partial round (or since the start).
    """

    norms: tuple[float, ...] | None
    sizes: tuple[int, ...]
    idle: tuple[int, ...]

    @classmethod
    def none(cls, layout: ParameterLayout) -> "Feedback":
        """Before the first round."""
        return cls(None, tuple(layout.group_size(group) for group in layout.all_groups), (0,) * layout.groups)

    def after(
        self, active: ActiveGroups, trained: Sequence[int], norms: Mapping[int, float], layout: ParameterLayout
    ) -> "Feedback":
        """After a round in which `trained` changed by `norms`."""
        if not active.partial:
            return replace(self, norms=tuple(norms[group] for group in layout.all_groups))
        idle = tuple(0 if group in trained else rounds + 1 for group, rounds in enumerate(self.idle))
        return replace(self, idle=idle)


class Schedule(Component):
    """Base of all schedules: a pure function from the round to the active layer groups.

    Attributes:
        follows_training: what is active depends on how earlier rounds went (`Feedback`).
    """

    follows_training: ClassVar[bool] = False

    @abstractmethod
    def length(self, groups: int) -> int | None:
        """Number of rounds for a model of `groups` layer groups; None when it has no end."""

    @abstractmethod
    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        """What is updated in round `round_index` (from 0), `round_index` < `length`."""

    def client_groups(self, client: int, round_index: int, groups: int, active: ActiveGroups) -> tuple[int, ...]:
        """What one participant trains, ascending; all train the active groups, unless a schedule says otherwise."""
        return active.groups


def full_update(groups: int) -> ActiveGroups:
    """All groups, as a full network update."""
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
        cycles: how often the groups are gone through.
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
        place = self.place(round_index, groups)
        if place is None:
            return full_update(groups)
        return self.visit(*place, groups, seed, feedback)

    def place(self, round_index: int, groups: int) -> tuple[int, int, int] | None:
        """(cycle, visit within it, round within that), all from 0; None for a full network update."""
        since_warmup = round_index - self.warmup_rounds
        partial_rounds = self.visits(groups) * self.rounds_per_group
        cycle, position = divmod(since_warmup, partial_rounds + self.full_rounds_between_cycles)
        if since_warmup < 0 or position >= partial_rounds:
            return None
        return cycle, *divmod(position, self.rounds_per_group)

    def visits(self, groups: int) -> int:
        """Visits of a cycle: one to each group."""
        return groups

    def visit(self, cycle: int, visit: int, step: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        """What a visit trains."""
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


class Importance(Cyclic):
    """The group that changed most per byte in the last full round, with a floor so that none starves.

    The norm of a group's mean update in the last full network update, divided by its bytes, decides; before the first
    full round the order is shallow to deep. A cycle has as many visits as there are groups.

    Attributes:
        longest_wait: a group that was not trained for this many visits' worth of partial rounds goes first; None:
            twice the number of groups.
    """

    follows_training: ClassVar[bool] = True
    name: str = "importance"
    longest_wait: int | None = Field(default=None, ge=1)

    def visit(self, cycle: int, visit: int, step: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        if feedback.norms is None:
            return super().visit(cycle, visit, step, groups, seed, feedback)
        if step > 0:
            return ActiveGroups((feedback.idle.index(0),), partial=True)
        patience = (self.longest_wait or 2 * groups) * self.rounds_per_group
        starved = [group for group in range(groups) if feedback.idle[group] >= patience]
        if starved:
            return ActiveGroups((max(starved, key=lambda group: feedback.idle[group]),), partial=True)
        scores = [norm / size for norm, size in zip(feedback.norms, feedback.sizes, strict=True)]
        return ActiveGroups((scores.index(max(scores)),), partial=True)


class PerClient(Cyclic):
    """Each client trains another group in the same round: client c, in visit v, group (v + c) mod M.

    Every group is averaged over those who trained it. A cycle still takes every client through every group once.
    """

    name: str = "per-client"

    def visit(self, cycle: int, visit: int, step: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        return ActiveGroups(tuple(range(groups)), partial=True)

    def client_groups(self, client: int, round_index: int, groups: int, active: ActiveGroups) -> tuple[int, ...]:
        place = self.place(round_index, groups)
        return active.groups if place is None else ((place[1] + client) % groups,)
