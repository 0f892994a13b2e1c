"""What a federated method is: a local objective and a server rule, crossed with any schedule.

A method of one's own is one file with one class:

    from fedbench.algorithms.base import Algorithm, ServerRule

    class HalfStep(Algorithm):
        '''The mean update, halved.'''
        name: str = "mypkg.half:HalfStep"

        def rule(self) -> ServerRule:
            return Half()

    class Half(ServerRule):
        def combine(self, previous, update, context):
            return previous + update / 2

and is run with `fedbench run algorithm=mypkg.half:HalfStep`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedbench.components.base import Component
from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.model_pool import ModelPool
from fedbench.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedbench.models.flat import FlatModel

Values = npt.NDArray[np.float64]


@dataclass
class LocalContext:
    """One client's round, as its objective sees it. All vectors are float32 [P], laid out as the parameters are.

    Attributes:
        model: trains in place: `model.vector`, `model.gradient`, `model.module`.
        anchor: the global parameters, from which the client started; not to be changed.
        groups: the active layer groups.
        pieces: where they lie in the vectors, as few slices as possible.
        learning_rate: of the local optimizer in this round.
        shared: the server's further channels, by name; not to be changed.
        state: what this client keeps, by name; `finish` changes it. Missing before its first round.
        passes: forward passes of every minibatch beside the training step's own; set by `begin`, counted as FLOPs.
        outgoing: filled by `finish`: for each of the objective's `channels`, what the client adds to it; only the
            active pieces are sent.
    """

    model: "FlatModel"
    anchor: "Tensor"
    groups: tuple[int, ...]
    pieces: list[slice]
    learning_rate: float
    shared: "dict[str, Tensor]"
    state: "dict[str, Tensor]"
    passes: int = 0
    outgoing: "dict[str, Tensor]" = field(default_factory=dict)


class Objective:
    """What a client minimises: the mean cross-entropy, unless a method says otherwise.

    Attributes:
        channels: names of vectors that travel beside the parameters, both ways.
        keeps: names of vectors that a client keeps from round to round.
        working_vectors: float32 [P] vectors held while a client trains, beside the model's own and those that are
            kept: for the memory estimate.
    """

    channels: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    working_vectors: int = 0

    def begin(self, context: LocalContext) -> None:
        """Before a client's first step."""

    def loss(self, module: "nn.Module", inputs: "Tensor", labels: "Tensor") -> "Tensor":
        """The scalar loss of one minibatch.

        Args:
            module: the client's model, in training mode.
            inputs: float32 [B, C, H, W] or int64 [B, L].
            labels: int64 [B].
        """
        from torch.nn.functional import cross_entropy

        return cross_entropy(module(inputs), labels)

    def correct(self, context: LocalContext) -> None:
        """Between backward pass and step: change `context.model.gradient` on `context.pieces`, in place."""

    def idle_reason(self, groups: tuple[int, ...], layout: ParameterLayout, module: "nn.Module") -> str | None:
        """Why the method does nothing of its own while `groups` are active, in one line; None where it does."""
        return None

    def extra_passes(self, groups: tuple[int, ...], layout: ParameterLayout, module: "nn.Module") -> int:
        """What `context.passes` will be for a client that took part before: to foresee a run's costs."""
        return 0

    def finish(self, context: LocalContext, steps: int) -> None:
        """After a client's last step: fill `context.outgoing`, renew `context.state`."""


Needs = Literal["mean", "updates", "round"]
"""What a server rule is given of a round: the mean update, the single updates of one layer group at a time, or all."""


@dataclass(frozen=True)
class RuleContext:
    """A round, as the server rule sees it.

    Attributes:
        layout: of the parameters.
        groups: the layer groups that were trained, ascending; arrays hold them one after the other.
        round: from 0.
        participants: clients whose updates were accepted.
        population: clients in all.
        seed: of the run.
    """

    layout: ParameterLayout
    groups: tuple[int, ...]
    round: int
    participants: int
    population: int
    seed: int = 0

    def gather(self, vector: Values) -> Values:
        """The active groups of a float64 [P] vector that the rule keeps."""
        return np.concatenate([vector[piece] for piece in self.layout.ranges(self.groups)])

    def scatter(self, values: Values, vector: Values) -> None:
        """Write the active groups back."""
        start = 0
        for piece in self.layout.ranges(self.groups):
            length = piece.stop - piece.start
            vector[piece] = values[start : start + length]
            start += length

    def generator(self, purpose: str) -> np.random.Generator:
        """A random generator for this round; the same for the same seed, purpose and round."""
        return generator(self.seed, purpose, self.round)


@dataclass(frozen=True)
class RoundUpdates:
    """All updates of a round, for a rule that asks for the whole round.

    Attributes:
        previous: float64 [n], the global values of the groups of the context, one after the other.
        messages: for each accepted client, in ascending order, float32: its values of the groups that it trained.
        pieces: for each of these clients, where those values lie in `previous`.
        weights: float64 [k], p_i, normalised over the accepted clients.
    """

    previous: Values
    messages: tuple[npt.NDArray[np.float32], ...]
    pieces: tuple[tuple[slice, ...], ...]
    weights: Values

    def __len__(self) -> int:
        """k, the number of clients."""
        return len(self.messages)

    def update(self, index: int) -> Values:
        """float64, Delta_i = (client - previous) over the groups that client number `index` trained."""
        previous = np.concatenate([self.previous[piece] for piece in self.pieces[index]])
        update: Values = self.messages[index].astype(np.float64) - previous
        return update

    def squared_norms(self) -> Values:
        """float64 [k], ||Delta_i||^2."""
        updates = (self.update(index) for index in range(len(self)))
        return np.array([update @ update for update in updates])

    def mean(self, weights: Values | None = None) -> Values:
        """float64 [n], the weighted mean of the updates; in each group, over the clients that trained it.

        Args:
            weights: float64 [k], of any sum, in place of `weights`.
        """
        total, normaliser = np.zeros_like(self.previous), np.zeros_like(self.previous)
        for index, weight in enumerate(self.weights if weights is None else weights):
            update, start = self.update(index), 0
            for piece in self.pieces[index]:
                stop = start + piece.stop - piece.start
                total[piece] += weight * update[start:stop]
                normaliser[piece] += weight
                start = stop
        return total / normaliser


class ServerRule:
    """How the server combines what the participants sent. Keeps its own state between rounds, if any.

    A rule that needs more than the mean update says so in `needs`. The server then holds the updates of all
    participants at once, and actors cannot answer with one sum.

    Attributes:
        own_models: each participant starts from a model of its own, out of a pool that the server keeps, and the
            global model is the mean of the pool. In rounds in which such a rule needs the "mean", every model of the
            pool becomes the averaged one; in the others the rule changes the pool (`recombine`).
    """

    own_models: ClassVar[bool] = False

    def needs(self, round_index: int) -> Needs:
        """What the rule is given in a round: "mean" calls `combine`, "updates" `combine_each`, "round"
        `combine_round`, or `recombine` where participants have models of their own."""
        return "mean"

    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        """The new values of the active parameters; the default is averaging.

        Args:
            previous: float64 [n], the global values of the active groups.
            update: float64 [n], the weighted mean of (client - previous).
        """
        return previous + update

    def combine_each(self, previous: Values, updates: Values, weights: Values, context: RuleContext) -> Values:
        """The same from single updates, for one layer group at a time (`context.groups` has one).

        Args:
            updates: float64 [k, n], (client - previous) of the k clients that trained the group, by client.
            weights: float64 [k], normalised over them.
        """
        return self.combine(previous, weights @ updates, context)

    def combine_round(self, previous: Values, updates: RoundUpdates, context: RuleContext) -> Values:
        """The same from the whole round: all active groups and all participants' updates at once."""
        return self.combine(previous, updates.mean(), context)

    def recombine(self, pool: ModelPool, context: RuleContext) -> None:
        """Change the models of the pool, in place, after each has been trained by its client."""

    def combine_channel(self, previous: Values, update: Values, context: RuleContext) -> Values:
        """The new values of a further channel: c + (|S|/N) * mean of what the participants S of N clients added.

        Args:
            previous: float64 [n], the channel's values in the active groups.
            update: float64 [n], the weighted mean of what the clients added.
        """
        return previous + update * (context.participants / context.population)

    @classmethod
    def takes_means(cls) -> bool:
        """Whether the rule never needs more of a round than the mean update."""
        return cls.needs is ServerRule.needs and not cls.own_models


class Algorithm(Component):
    """A federated method.

    Attributes:
        paper: where it comes from.
        sends: in words, what travels.
        keeps: in words, what a client keeps.
        refuses: in words, what it cannot be combined with.
    """

    paper: ClassVar[str] = ""
    sends: ClassVar[str] = "the active groups, both ways"
    keeps: ClassVar[str] = "nothing"
    refuses: ClassVar[str] = "nothing"

    def objective(self) -> Objective:
        """The local objective, made once per actor."""
        return Objective()

    def rule(self) -> ServerRule:
        """The server rule, made once per run."""
        return ServerRule()

    def weight(self, samples: int) -> float:
        """A participant's weight in the mean, before normalisation over the cohort."""
        return float(samples)

    def scales(self, weights: Sequence[float], steps: Sequence[int]) -> tuple[float, ...]:
        """Factors on the participants' updates, beside their weights.

        Args:
            weights: normalised over the cohort.
            steps: minibatches that each participant trains on.
        """
        return (1.0,) * len(weights)

    def sums(self) -> bool:
        """Whether the sum of a round's updates is all that the server needs of them."""
        return self.rule().takes_means()

    def rule_is_special(self) -> bool:
        """Whether the method brings a server rule other than averaging."""
        return type(self).rule is not Algorithm.rule

    def objective_is_special(self) -> bool:
        """Whether the method brings a local objective other than the plain one."""
        return type(self).objective is not Algorithm.objective

    def scales_are_special(self) -> bool:
        """Whether the method gives each update a factor of its own."""
        return type(self).scales is not Algorithm.scales

    def check(self, config: Any) -> None:
        """Refuse combinations that make no sense.

        Args:
            config: the whole `ExperimentConfig`.

        Raises:
            ConfigError: names the combination and the reason.
        """
