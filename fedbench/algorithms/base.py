"""The base classes of federated methods: a method is a local objective and a server rule, crossed with any schedule.

To write another method, write one file:

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

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fedbench.algorithms.round_updates import RoundUpdates as RoundUpdates
from fedbench.algorithms.round_updates import Values as Values
from fedbench.algorithms.rule_context import RuleContext as RuleContext
from fedbench.checkpoints.state import AttributeState
from fedbench.components.base import Component
from fedbench.planning.exchange import Exchange, Trained
from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.model_pool import ModelPool

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedbench.models.flat import FlatModel


Weights = tuple[float, ...]
"""One number for each participant of a round."""


@dataclass
class LocalContext:
    """One client's round, as its local objective sees it. All vectors are float32 [P], laid out like the parameters.

    Attributes:
        model: the model that trains in place: `model.vector`, `model.gradient`, `model.module`.
        anchor: the global parameters from which the client started; must not be changed.
        groups: the active layer groups.
        pieces: places of the active groups in the vectors, as few slices as possible.
        learning_rate: learning rate of the local optimizer in this round.
        shared: {channel: vector}, the server's values of the method's further channels; must not be changed.
        state: {name: vector}, what this client keeps between rounds; changed by `finish`, empty before its first round.
        passes: additional forward passes of every minibatch, beside that of the training step; set by `begin` and
            counted as FLOPs.
        outgoing: {channel: vector}, what the client adds to each of the objective's `channels`; filled by `finish`.
            Only the active groups are sent.
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
    """The local objective: what a client minimises. This base class minimises the loss of the task.

    Attributes:
        criterion: the loss of the task (`fedbench.tasks.losses`), from a minibatch's outputs and labels; the
            engine sets it. `loss` uses it in place of a loss of its own, so that a method serves every task.
        channels: names of the vectors that travel beside the parameters, in both directions.
        keeps: names of the vectors that a client keeps from round to round.
        tracks: those of `channels` of which the client adds up in its state what the server reads (`correct_state`).
            What compression leaves out of these is a part of their next difference, and is not kept as a residual.
        reads_features: whether it compares the features of samples, the input of the final classifier
            (`fedbench.models.groups.feature_layer`).
        working_vectors: number of float32 [P] vectors that are held while a client trains, beside the model's own and
            those that the client keeps; for the memory estimate.
    """

    channels: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    tracks: tuple[str, ...] = ()
    reads_features: bool = False
    working_vectors: int = 0

    @cached_property
    def criterion(self) -> "Callable[[Tensor, Tensor], Tensor]":
        """Cross-entropy, where the engine has not set another."""
        from torch.nn.functional import cross_entropy

        return cross_entropy

    @property
    def corrects(self) -> bool:
        """Whether the objective defines `correct`, for which every step's gradient is copied into one vector."""
        return getattr(self.correct, "__func__", None) is not Objective.correct

    def variant(self) -> Hashable | None:
        """After `begin`: distinguishes training steps that do different things, for steps captured as CUDA graphs.

        A captured step is repeated for other clients. `loss` and `correct` must then read what differs between clients
        from the tensors of the context or from tensors of the objective that stay where they are. None, which is what
        this class answers for a method that changes the step: no step is captured.
        """
        changes = self.corrects or type(self).loss is not Objective.loss
        return None if changes else ()

    def begin(self, context: LocalContext) -> None:
        """Prepare for a client's training; called before its first step."""

    def loss(self, module: "nn.Module", inputs: "Tensor", labels: "Tensor") -> "Tensor":
        """The scalar loss of one minibatch.

        Args:
            module: the client's model, in training mode.
            inputs: float32 [B, C, H, W] of images, [B, ...] of arrays, or int64 [B, L] of text.
            labels: int64 [B]; of tasks beside classification as `fedbench.tasks.kinds.TASKS` says.
        """
        return self.criterion(module(inputs), labels)

    def correct(self, context: LocalContext) -> None:
        """Change `context.model.gradient` on `context.pieces` in place; called between backward pass and step."""

    def refusal(self, layout: ParameterLayout, module: "nn.Module") -> str | None:
        """The reason, in one line, why the objective's options cannot be used with a network; None where they can.

        Args:
            layout: layout of the parameters and the running statistics.
            module: the network.
        """
        return None

    def idle_reason(self, groups: tuple[int, ...], layout: ParameterLayout, module: "nn.Module") -> str | None:
        """The reason, in one line, why the objective is the plain one while `groups` are active; None where it is not.

        Args:
            groups: the active layer groups.
            layout: layout of the parameters.
            module: the network.
        """
        return None

    def extra_passes(self, groups: tuple[int, ...], layout: ParameterLayout, module: "nn.Module") -> int:
        """The `context.passes` of a client that took part before, to predict costs; arguments as for `idle_reason`."""
        return 0

    def finish(self, context: LocalContext, steps: int) -> None:
        """Fill `context.outgoing` and change `context.state`; called after a client's last step.

        Args:
            context: the client's round.
            steps: number of local steps that it took.
        """

    def correct_state(
        self, state: "dict[str, Tensor]", difference: "dict[str, Tensor]", pieces: Sequence[slice]
    ) -> None:
        """Bring what the client keeps in line with what the server reads; called after `finish`.

        It is called where clipping, noise or compression changed the message. A method whose server relies on what
        clients keep changes that here; state that concerns the client's own model alone stays as it is.

        Args:
            state: {name: float32 [P]}, what the client keeps, on the CPU; to be changed by putting new tensors here.
            difference: {"parameters" or a channel: float32 [P]}, what the server reads minus what `finish` assumed to
                be sent; 0 outside of the groups that the client trained.
            pieces: places of these groups in the vectors.
        """


Needs = Literal["mean", "updates", "round"]
"""The part of a round's updates that a server rule is given.

"mean" is the mean update, "updates" the single updates of one layer group at a time, "round" all updates at once.
"""


class ServerRule(AttributeState):
    """Base of the server rules: how the server combines what the participants sent. This class averages.

    A rule may keep state between rounds in its attributes. A rule that needs more than the mean update says so in
    `needs`; the server then holds the updates of all participants at once, and actors cannot answer with one sum.

    Attributes:
        own_models: whether each participant starts from its own model of a pool that the server keeps. The global
            model is then the mean of the pool. In rounds in which such a rule needs the "mean", every model of the
            pool becomes the averaged one; in the others the rule changes the pool (`recombine`).
        averages_trained: with `own_models`, whether the global model is the mean of the pool as the clients left it,
            before the rule changes it.
        fewest: the smallest number of updates that the rule can do its work on. A run that would combine fewer of a
            layer group is refused, and a round that does ends it.
    """

    own_models: ClassVar[bool] = False
    averages_trained: ClassVar[bool] = False
    fewest: int = 1

    def needs(self, round_index: int) -> Needs:
        """The part of a round's updates that the rule is given, and with it the method that the server calls.

        "mean" calls `combine`, "updates" calls `combine_each`, and "round" calls `combine_round`, or `recombine` where
        `own_models` is set.
        """
        return "mean"

    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        """The new values of the active parameters, from the mean update; this class returns the average.

        Args:
            previous: float64 [n], the global values of the context's groups.
            update: float64 [n], the weighted mean of (client's values - previous).
            context: the round.

        Returns:
            float64 [n].
        """
        return previous + update

    def combine_each(self, previous: Values, updates: Values, weights: Values, context: RuleContext) -> Values:
        """The new values of one layer group, from the single updates of the k clients that trained it.

        Args:
            previous: float64 [n], the global values of the group.
            updates: float64 [k, n], (client's values - previous) of each client, ascending by client.
            weights: float64 [k], the clients' weights, which sum to 1.
            context: the round; its `groups` has one group.

        Returns:
            float64 [n].
        """
        return self.combine(previous, weights @ updates, context)

    def combine_round(self, previous: Values, updates: RoundUpdates, context: RuleContext) -> Values:
        """The new values of all active groups, from the updates of all participants at once.

        Args:
            previous: float64 [n], the global values of the context's groups.
            updates: the updates of all accepted clients.
            context: the round.

        Returns:
            float64 [n].
        """
        return self.combine(previous, updates.mean(), context)

    def client_weights(self, updates: RoundUpdates, context: RuleContext) -> Values | None:
        """Other weights of the clients, by what they sent, in the mean of their parameters and running statistics.

        It is called where `needs` is "round", before `combine_round`, whose `updates` then have these weights.

        Args:
            updates: the updates of all accepted clients.
            context: the round.

        Returns:
            float64 [k], none below 0, their sum 1; None: the clients' own weights, which is what this class returns.
        """
        return None

    def location(self, updates: Values, weights: Values) -> Values:
        """The one update that stands for those of the running statistics.

        It is called where `needs` is "updates" and a rule overrides it; this class returns the weighted mean.

        Args:
            updates: float64 [k, n], one update a row.
            weights: float64 [k], the clients' weights, which sum to 1.

        Returns:
            float64 [n].
        """
        mean: Values = weights @ updates
        return mean

    def recombine(self, pool: ModelPool, context: RuleContext) -> None:
        """Change the models of the pool in place, after each has been trained by its client."""

    def combine_channel(self, previous: Values, update: Values, context: RuleContext) -> Values:
        """The new values of one of the method's further channels: c + (|S|/N) mean(what the participants S added).

        Args:
            previous: float64 [n], c, the channel's values in the context's groups.
            update: float64 [n], the weighted mean of what the participants added.
            context: the round, with |S| participants of N clients.

        Returns:
            float64 [n].
        """
        return previous + update * (context.participants / context.population)

    def defines_needs(self) -> bool:
        """Whether the rule has a `needs` other than this class's: of its class, or given to the instance."""
        return getattr(self.needs, "__func__", None) is not ServerRule.needs

    def takes_means(self) -> bool:
        """Whether the rule never needs more of a round than the mean update."""
        return not self.defines_needs() and not self.own_models


class Algorithm(Component):
    """Base of the federated methods. The texts below are shown by `fedbench list`; nothing else reads them.

    Attributes:
        paper: citation of the paper that describes the method.
        sends: text that says what travels between clients and server.
        keeps: text that says what a client keeps between rounds.
        refuses: text that says what the method cannot be combined with.
        pools_rows: whether one client stands for all: it trains on all their rows, as `algorithms/centralised.py` says.
        has_global_model: whether the server's model is scored and saved. For `algorithms/local.py` and what derives
            from it, clients' own models are.
    """

    paper: ClassVar[str] = ""
    sends: ClassVar[str] = "the active groups, both ways"
    keeps: ClassVar[str] = "nothing"
    refuses: ClassVar[str] = "nothing"
    pools_rows: ClassVar[bool] = False
    has_global_model: ClassVar[bool] = True

    def objective(self) -> Objective:
        """Make the local objective; called once for each actor."""
        return Objective()

    def rule(self) -> ServerRule:
        """Make the server rule; called once for each run."""
        return ServerRule()

    def exchange(self) -> Exchange:
        """What clients send and take over, where the configuration does not say; what they train, in this class."""
        return Trained()

    def weight(self, samples: int) -> float:
        """The weight of a participant with `samples` samples in the mean, before normalisation over the cohort."""
        return float(samples)

    def scales(self, weights: Sequence[float], steps: Sequence[int]) -> tuple[float, ...]:
        """For each participant, a further factor on its update beside its weight.

        It is asked for the whole cohort before a round. Where a layer group was trained by, or accepted from, a part
        of the cohort alone, it is asked for these clients after the round, and their sum is multiplied by what has
        changed. The factors must therefore be the product of one number for all clients and one for each client alone,
        greater than 0.

        Args:
            weights: the participants' weights, which sum to 1.
            steps: for each participant, the number of minibatches that it trains on.
        """
        return (1.0,) * len(weights)

    def weights_and_scales(self, samples: Sequence[int], steps: Sequence[int]) -> tuple[Weights, Weights]:
        """The weights of a round's participants in the mean, which sum to 1, and their further factors.

        Args:
            samples: for each participant, its number of samples.
            steps: for each participant, the number of minibatches that it trains on.
        """
        raw = [self.weight(count) for count in samples]
        weights = tuple(weight / sum(raw) for weight in raw)
        return weights, self.scales(weights, steps)

    def sums(self) -> bool:
        """Whether the server needs no more than the sum of a round's updates."""
        return self.rule().takes_means()

    def rule_is_special(self) -> bool:
        """Whether the method has a server rule other than averaging."""
        return type(self).rule is not Algorithm.rule

    def objective_is_special(self) -> bool:
        """Whether the method has a local objective other than the plain one."""
        return type(self).objective is not Algorithm.objective

    def scales_are_special(self) -> bool:
        """Whether the method gives each participant's update a further factor."""
        return type(self).scales is not Algorithm.scales

    def check(self, config: Any) -> None:
        """Refuse configurations that the method cannot be combined with.

        Args:
            config: the whole `ExperimentConfig`.

        Raises:
            ConfigError: names the combination and the reason.
        """
