"""Exchanges: the layer groups that a participant sends, and those that it takes over from the server.

A schedule says what is *trained*. An exchange says what of it is *sent* and *combined*, and whether a client goes on
from its own values where nothing was combined. A layer group is combined in a round when any participant sends it.
Running statistics that are averaged (`local.batchnorm=aggregate`) travel in every round, whatever the exchange.

- Trained: what is trained is sent (FedAvg, FedPart, and all methods that do not say otherwise).
- Everything: the whole model is sent, whatever was trained.
- Rotating: the layer groups are divided into blocks, each participant sends one block, and some groups are sent by all
  (FedBCGD, J. Liu et al., ACM MM 2024).
- Strided and Intervals: clients go on with their own values, and each layer group is combined in some rounds only
  (Streaming DiLoCo, A. Douillard et al., 2025, arXiv 2501.18512; FedLAMA, S. Lee, T. Zhang, S. Avestimehr, AAAI 2023,
  arXiv 2110.10302).

Where clients go on with their own values, a participant takes over those groups that were combined since it last did,
and all groups in its first round. A participant whose update was not accepted (rejected, failed, dropped) takes over
the whole global model in its next round.

To write another exchange, derive a class from `Exchange` and say what each participant sends.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.components.base import Component
from fedbench.errors import ConfigError
from fedbench.planning.schedules import Feedback
from fedbench.randomness import generator

Memory = tuple[int, ...]
"""What the server keeps for an exchange between rounds; () for one that depends on the round alone."""


@dataclass(frozen=True)
class TrainedRound:
    """A round, as an exchange sees it.

    Attributes:
        round: the round, from 0.
        seed: seed of the experiment.
        sizes: for each layer group, its number of parameters.
        cohort: the participants, ascending.
        trained: for each participant, the layer groups that it trains.
    """

    round: int
    seed: int
    sizes: tuple[int, ...]
    cohort: tuple[int, ...]
    trained: tuple[tuple[int, ...], ...]

    @property
    def all_groups(self) -> tuple[int, ...]:
        """The indices of all layer groups."""
        return tuple(range(len(self.sizes)))


class Exchange(Component):
    """Base of all exchanges: what each participant of a round sends.

    Attributes:
        keeps_layers: whether clients go on from their own values in groups that were not combined since they last took
            part. Otherwise each participant starts from the global model.
        compares_updates: whether `remember` reads `Feedback.discrepancies`, for which the server receives and keeps the
            single updates of each round.
    """

    keeps_layers: ClassVar[bool] = False
    compares_updates: ClassVar[bool] = False

    @property
    def rounds_late(self) -> int:
        """Rounds that pass before participants take over what was combined; 0: they do in the next round."""
        return 0

    @property
    def own_share(self) -> float:
        """The share, in [0, 1), of its own values in what a participant goes on from when it takes a group over."""
        return 0.0

    @property
    def follows_training(self) -> bool:
        """Whether what is sent depends on the outcome of earlier rounds."""
        return type(self).remember is not Exchange.remember

    def first_memory(self, sizes: tuple[int, ...]) -> Memory:
        """What the server keeps before the first round, for layer groups of these sizes."""
        return ()

    @abstractmethod
    def sent(self, trained: TrainedRound, memory: Memory) -> tuple[tuple[int, ...], ...]:
        """For each participant, ascending, the layer groups that it sends; ascending, perhaps none.

        Args:
            trained: the round.
            memory: what the server keeps.
        """

    def remember(self, memory: Memory, round_index: int, feedback: Feedback) -> Memory:
        """What the server keeps after a round.

        Args:
            memory: what it kept before.
            round_index: the round, from 0.
            feedback: outcome of the rounds so far.
        """
        return memory


class Trained(Exchange):
    """A participant sends what it trains (FedAvg, FedPart and most others)."""

    name: str = "trained"

    def sent(self, trained: TrainedRound, memory: Memory) -> tuple[tuple[int, ...], ...]:
        return trained.trained


class Everything(Exchange):
    """A participant sends the whole model, whatever it trains.

    Groups that it did not train are as it received them, and count as updates of zero in the mean.
    """

    name: str = "full"

    def sent(self, trained: TrainedRound, memory: Memory) -> tuple[tuple[int, ...], ...]:
        return (trained.all_groups,) * len(trained.cohort)


class Rotating(Exchange):
    """A participant sends one block of layer groups, and those that all send (FedBCGD).

    The groups that the round trains are cut into blocks of consecutive groups, with parameters as equal as may be. The
    blocks are dealt evenly over the participants, in an order that is drawn anew in every round. Each block is averaged
    over those that sent it. With one block it is FedAvg.

    Attributes:
        blocks: N_b, the number of blocks; at most one for each group that is not shared.
        shared: Number of the model's last groups that every participant sends; FedBCGD shares the classifier.
    """

    name: str = "rotate"
    blocks: int = Field(default=5, ge=1)
    shared: int = Field(default=1, ge=0)

    def sent(self, trained: TrainedRound, memory: Memory) -> tuple[tuple[int, ...], ...]:
        first_shared = len(trained.sizes) - self.shared
        active = sorted(set().union(*trained.trained))
        blocks = consecutive_blocks([group for group in active if group < first_shared], trained.sizes, self.blocks)
        count = len(trained.cohort)
        dealt = generator(trained.seed, "blocks", trained.round).permutation(count) % max(1, len(blocks))
        return tuple(
            tuple(group for group in groups if group >= first_shared or group in blocks[block])
            for groups, block in zip(trained.trained, dealt.tolist(), strict=True)
        )


class Strided(Exchange):
    """Clients go on with their own models; fragments of layer groups are combined in turn (Streaming DiLoCo).

    Fragment p holds the groups p, p + P, p + 2 P, ... of the P fragments, or consecutive groups. It is combined every
    `every` rounds, first after round 1 + floor(p every / P), so that the fragments are spread over the rounds.

    Attributes:
        every: H, rounds from one combination of a fragment to the next.
        fragments: P, the number of fragments; at most one for each layer group.
        consecutive: Whether a fragment holds consecutive groups, rather than groups at equal strides.
        delay: tau, rounds that pass before clients take over what was combined; less than `every`.
        mixing: alpha, the share of a client's own values in what it goes on from when it takes a fragment over.
    """

    keeps_layers: ClassVar[bool] = True
    name: str = "strided"
    every: int = Field(default=3, ge=1)
    fragments: int = Field(default=3, ge=1)
    consecutive: bool = False
    delay: int = Field(default=0, ge=0)
    mixing: float = Field(default=0.0, ge=0, lt=1)

    def model_post_init(self, context: object) -> None:
        if self.delay >= self.every:
            raise ValueError(
                f"delay={self.delay}: must be less than every={self.every}, or a fragment is never current"
            )

    @property
    def rounds_late(self) -> int:
        return self.delay

    @property
    def own_share(self) -> float:
        return self.mixing

    def sent(self, trained: TrainedRound, memory: Memory) -> tuple[tuple[int, ...], ...]:
        groups, number = trained.all_groups, min(self.fragments, len(trained.sizes))
        fragments = (
            consecutive_blocks(groups, trained.sizes, number)
            if self.consecutive
            else [groups[place::number] for place in range(number)]
        )
        due = [
            group
            for place, fragment in enumerate(fragments)
            if (trained.round - place * self.every // number) % self.every == 0
            for group in fragment
        ]
        return (tuple(sorted(due)),) * len(trained.cohort)


class Intervals(Exchange):
    """Clients go on with their own models; each layer group is combined at an interval of its own.

    A group with interval I is combined after every I-th round. With 1 for all groups it is FedAvg.

    Attributes:
        every: The interval in rounds: one number for all groups, or one for each group in forward order.
    """

    keeps_layers: ClassVar[bool] = True
    name: str = "intervals"
    every: int | tuple[int, ...] = 2

    def model_post_init(self, context: object) -> None:
        given = (self.every,) if isinstance(self.every, int) else self.every
        if not given or min(given) < 1:
            raise ValueError(f"every={self.every}: intervals are whole numbers of at least 1")

    def first_memory(self, sizes: tuple[int, ...]) -> Memory:
        if isinstance(self.every, int):
            return (self.every,) * len(sizes)
        if len(self.every) != len(sizes):
            raise ConfigError(
                f"exchange.every={list(self.every)}: {len(self.every)} intervals for {len(sizes)} layer groups; give "
                "one for each group, or one number for all"
            )
        return self.every

    def sent(self, trained: TrainedRound, memory: Memory) -> tuple[tuple[int, ...], ...]:
        due = tuple(group for group, every in enumerate(memory) if (trained.round + 1) % every == 0)
        return (due,) * len(trained.cohort)


class AdaptiveIntervals(Exchange):
    """Clients go on with their own models; groups in which they differ little are combined less often (FedLAMA).

    All groups are combined after every round at first, and at the end of every phi rounds. Then they are sorted by
    their discrepancy per value and round, ascending,

        d_l = mean_i ||u_l - x_i,l||^2 / (I_l dim_l),

    and with the share delta_l of all discrepancy, and the share lambda_l of all parameters, that the groups up to l
    hold, the groups up to the first l with 1 - lambda_l < delta_l get the interval I = phi, the others 1, until the
    next such round (Lee et al., AAAI 2023, Algorithm 2; the group at which the two curves cross counts among the first,
    as in the authors' code). A round's local work is the paper's interval tau'. A group here is a layer with its biases
    and normalisation, where the authors' code looks at the kernels alone.

    Attributes:
        factor: phi, the larger of the two intervals, in rounds. With 1 it is FedAvg.
        first: Rounds before the intervals are adapted for the first time; 7 in the authors' code.
    """

    keeps_layers: ClassVar[bool] = True
    compares_updates: ClassVar[bool] = True
    name: str = "adaptive-intervals"
    factor: int = Field(default=2, ge=1)
    first: int = Field(default=7, ge=0)

    def first_memory(self, sizes: tuple[int, ...]) -> Memory:
        return (1,) * len(sizes)

    def sent(self, trained: TrainedRound, memory: Memory) -> tuple[tuple[int, ...], ...]:
        due = tuple(group for group, every in enumerate(memory) if (trained.round + 1) % every == 0)
        return (due,) * len(trained.cohort)

    def remember(self, memory: Memory, round_index: int, feedback: Feedback) -> Memory:
        rounds = round_index + 1
        known = [value for value in feedback.discrepancies if value is not None]
        if rounds % self.factor or rounds < self.first or len(known) < len(memory):
            return memory
        per_round = [value / every for value, every in zip(known, memory, strict=True)]  # d_l
        return tuple(self.factor if raised else 1 for raised in agreeing_groups(per_round, feedback.sizes))


def agreeing_groups(discrepancies: Sequence[float], sizes: Sequence[int]) -> list[bool]:
    """For each layer group, whether FedLAMA combines it less often.

    Args:
        discrepancies: d_l, of each group per value and round.
        sizes: dim_l, the parameters of each group.

    >>> agreeing_groups([1.0, 0.01, 0.02], [10, 10, 10])
    [False, True, True]
    """
    whole = math.fsum(d * size for d, size in zip(discrepancies, sizes, strict=True))
    agreeing, parameters, discrepancy = [False] * len(sizes), 0, 0.0
    for group in sorted(range(len(sizes)), key=lambda group: (discrepancies[group], group)):
        agreeing[group] = True
        parameters += sizes[group]
        discrepancy += discrepancies[group] * sizes[group]
        if 1 - parameters / sum(sizes) < (discrepancy / whole if whole else 0.0):  # 1 - lambda_l < delta_l
            break
    return agreeing


def consecutive_blocks(groups: Sequence[int], sizes: Sequence[int], blocks: int) -> list[tuple[int, ...]]:
    """Cut layer groups into blocks of consecutive groups with about the same number of parameters.

    A group belongs to the block in whose share of the parameters its middle lies; no block is empty.

    Args:
        groups: indices of the groups, ascending.
        sizes: for each group of the model, its number of parameters.
        blocks: number of blocks wanted; at most one for each group comes of it.

    >>> consecutive_blocks([0, 1, 2, 3], [10, 10, 10, 30], 2)
    [(0, 1, 2), (3,)]
    """
    count = min(blocks, len(groups))
    if not count:
        return []
    ends = np.cumsum([sizes[group] for group in groups], dtype=np.float64)
    middles = ends - np.array([sizes[group] for group in groups]) / 2
    wanted = np.floor(middles / ends[-1] * count).astype(int).tolist()
    places: list[int] = []
    for index, place in enumerate(wanted):
        before = places[-1] if places else -1
        at_least, at_most = max(before, count - (len(groups) - index)), before + 1
        places.append(min(max(place, at_least, 0), at_most))
    return [
        tuple(group for group, place in zip(groups, places, strict=True) if place == block) for block in range(count)
    ]
