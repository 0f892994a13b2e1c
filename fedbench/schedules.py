"""Which layer groups train, travel and are averaged in which round.

The schedules are those of FedPart: H. Wang, X. Liu, J. Niu, W. Guo, S. Tang, "Why Go Full? Elevating Federated
Learning Through Partial Network Updates", NeurIPS 2024 (arXiv 2410.11559). A *cycle* visits each of the M layer
groups for `rounds_per_group` consecutive rounds; full network updates stand before the first cycle (warm-up) and
between cycles. Orders: Table 7.

A schedule of one's own derives from `Schedule` and says two things: how long it is and what is active in a round.
"""

from abc import abstractmethod
from dataclasses import dataclass

from pydantic import Field

from fedbench.component import Component
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

    @property
    def phase(self) -> str:
        """full | partial, as in `rounds.parquet`."""
        return "partial" if self.partial else "full"

    @property
    def label(self) -> int:
        """The one active group of a partial round; -1 for all, or for several."""
        return self.groups[0] if self.partial and len(self.groups) == 1 else -1


class Schedule(Component):
    """Base of all schedules: a pure function from the round to the active layer groups."""

    @abstractmethod
    def length(self, groups: int) -> int | None:
        """Number of rounds for a model of `groups` layer groups; None when it has no end."""

    @abstractmethod
    def active(self, round_index: int, groups: int, seed: int) -> ActiveGroups:
        """What is updated in round `round_index` (from 0), `round_index` < `length`."""


def full_update(groups: int) -> ActiveGroups:
    """All groups, as a full network update."""
    return ActiveGroups(tuple(range(groups)), partial=False)


class Full(Schedule):
    """Every round updates the full network (the baseline of all papers)."""

    name: str = "full"

    def length(self, groups: int) -> int | None:
        return None

    def active(self, round_index: int, groups: int, seed: int) -> ActiveGroups:
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

    @abstractmethod
    def order(self, cycle: int, groups: int, seed: int) -> list[int]:
        """The groups in the order in which cycle `cycle` (from 0) visits them."""

    def length(self, groups: int) -> int:
        partial = self.cycles * groups * self.rounds_per_group
        return self.warmup_rounds + partial + (self.cycles - 1) * self.full_rounds_between_cycles

    def active(self, round_index: int, groups: int, seed: int) -> ActiveGroups:
        since_warmup = round_index - self.warmup_rounds
        partial_rounds = groups * self.rounds_per_group
        cycle, position = divmod(since_warmup, partial_rounds + self.full_rounds_between_cycles)
        if since_warmup < 0 or position >= partial_rounds:
            return full_update(groups)
        return ActiveGroups((self.order(cycle, groups, seed)[position // self.rounds_per_group],), partial=True)


class Sequential(Cyclic):
    """Shallow to deep (FedPart's default).

    ResNet-8 has ten groups, so with the defaults rounds 0-4 are full and rounds 5-24 visit each group twice:

    >>> schedule = Sequential()
    >>> schedule.length(10)
    25
    >>> [schedule.active(r, 10, seed=0).label for r in (0, 4, 5, 6, 7, 24)]
    [-1, -1, 0, 0, 1, 9]
    """

    name: str = "sequential"

    def order(self, cycle: int, groups: int, seed: int) -> list[int]:
        return list(range(groups))


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
