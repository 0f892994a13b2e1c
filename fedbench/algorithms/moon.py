"""MOON: Q. Li, B. He, D. Song, "Model-Contrastive Federated Learning", CVPR 2021 (arXiv 2103.16257), Section 3.3 and
Algorithm 1.

With z the features of a sample under the model that trains, z_glob under the global model that it started from and
z_prev under the client's own last model,

    l     = l_sup + mu l_con
    l_con = -log( exp(sim(z, z_glob) / T) / (exp(sim(z, z_glob) / T) + exp(sim(z, z_prev) / T)) ),

where sim is the cosine similarity and l_sup the cross-entropy, both averaged over the minibatch. The features are the
input of the final classifier, the layer that `fedbench.models.groups.feature_layer` names.

The paper leaves open how the two other models normalise, which moves the accuracy of a network with BatchNorm about as
much as the term itself does. `reference` chooses between the two published codes:

- "own", as in the code of MOON's authors (QinbinLi/MOON): the two models run in eval mode, each with the running
  statistics that belong to it. Those of the global model are the ones that the client starts the round with (its own
  where `local.batchnorm=local`), those of its last model the ones that its last training ended with.
- "batch", as in Fling, the code of FedPart's authors (arXiv 2410.11559): the two models run in training mode, so that
  their BatchNorm layers normalise with the statistics of the minibatch, and their dropout is on.

A network without running statistics is compared in eval mode, and "batch" is refused.

MOON's authors put a projection head of two linear layers before the final classifier, and compare its output. The model
`cnn` has one with `projection=256`; a network that has none is compared without one. Their code takes the freshly
initialised network for the last model of a client that takes part for the first time after the first round; here the
term waits until the client has a last model.

The term is left out, and its two forward passes with it, where it cannot act: before the client has a last model, with
mu = 0, and where only the classifier trains, on which no feature depends (FedPart x MOON). What remains is FedAvg bit
for bit. A client keeps its whole last model, frozen layer groups included, and with "own" its running statistics. The
training loss that is recorded is l, the contrastive part included where there is one.

Bytes: FedAvg's. With n parameters in the active groups and s running statistics (s = 0 where clients keep theirs), a
participant sends 4 (n + s) and receives 4 bytes for every value that changed since it last downloaded.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fedbench.algorithms.base import Algorithm, LocalContext, Objective
from fedbench.errors import ModelError
from fedbench.protocol.layout import ParameterLayout

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedbench.models.flat import FlatModel

PREVIOUS = "previous"
"""Name of the client's last model in its state."""

PREVIOUS_STATISTICS = "previous_statistics"
"""Name of the running statistics of the client's last model in its state."""

Reference = Literal["own", "batch"]
"""The statistics with which the two other models normalise: each model's own, or those of the minibatch."""

COMPARED_MODELS = 2
"""Number of models that the training one is compared with: the global one and the client's last one."""


class Moon(Algorithm):
    """Features drawn to the global model's and away from the client's last ones (Li et al., CVPR 2021).

    Attributes:
        mu: mu, the weight of the contrastive term; 0 is FedAvg.
        temperature: T, the temperature of the contrastive term.
        reference: the statistics with which the two other models normalise: "own", each with its own running
            statistics, as in the code of MOON's authors; or "batch", those of the minibatch, as in FedPart's code.
    """

    paper: ClassVar[str] = "Li et al., CVPR 2021, arXiv 2103.16257"
    keeps: ClassVar[str] = "its last model"
    refuses: ClassVar[str] = "models without a classifier layer whose input is the features"
    name: str = "moon"
    mu: float = Field(default=1.0, ge=0, le=1e30)
    temperature: float = Field(default=0.5, gt=0)
    reference: Reference = "own"

    def objective(self) -> Objective:
        return Contrastive(self.mu, self.temperature, self.reference)


class Contrastive(Objective):
    """The loss l = l_sup + mu l_con.

    Args:
        mu: weight of the contrastive term, at least 0.
        temperature: T, greater than 0.
        reference: the statistics with which the two other models normalise.
    """

    def __init__(self, mu: float, temperature: float, reference: Reference = "own") -> None:
        self._mu = mu
        self._temperature = temperature
        self._reference = reference
        self._compared: tuple[FlatModel, FlatModel] | None = None
        self._contrasts = False
        kept = (PREVIOUS, PREVIOUS_STATISTICS) if reference == "own" else (PREVIOUS,)
        self.keeps = kept if mu else ()
        self.reads_features = mu > 0
        self.working_vectors = COMPARED_MODELS if mu else 0

    def idle_reason(self, groups: tuple[int, ...], layout: ParameterLayout, module: "nn.Module") -> str | None:
        """The reason, in one line, why the contrastive term cannot act while `groups` are active; None where it can."""
        from fedbench.models.groups import feature_layer

        if not self._mu:
            return "algorithm.mu=0: no contrastive term, as FedAvg"
        classifier = feature_layer(module)
        if any(slot.group in groups and not slot.name.startswith(f"{classifier}.") for slot in layout.slots):
            return None
        return f"only {classifier} trains, on which no feature depends: no contrastive term, as FedAvg"

    def refusal(self, layout: ParameterLayout, module: "nn.Module") -> str | None:
        if self._reference == "own":
            return None
        if not layout.statistics_size:
            return (
                f"algorithm.reference={self._reference}: has no effect, {type(module).__name__} has no running "
                "statistics; leave it out"
            )
        if not self._mu:
            return f"algorithm.reference={self._reference}: has no effect with algorithm.mu=0; leave it out"
        return None

    def extra_passes(self, groups: tuple[int, ...], layout: ParameterLayout, module: "nn.Module") -> int:
        """Two passes, of the global and of the client's last model, where the contrastive term can act; else none."""
        return 0 if self.idle_reason(groups, layout, module) else COMPARED_MODELS

    def begin(self, context: LocalContext) -> None:
        model = context.model
        passes = self.extra_passes(context.groups, model.layout, model.module)
        self._contrasts = passes > 0 and PREVIOUS in context.state
        if not self._contrasts:
            return
        context.passes = passes
        from fedbench.models.groups import feature_layer

        self._layer = feature_layer(model.module)
        self._compared = self._compared or (_copy(model), _copy(model))
        vectors = (context.anchor, context.state[PREVIOUS])
        with_own = self._reference == "own" and model.layout.statistics_size
        statistics = (model.statistics, context.state[PREVIOUS_STATISTICS] if with_own else model.statistics)
        for compared, vector, running in zip(self._compared, vectors, statistics, strict=True):
            compared.module.train(self._reference == "batch")
            compared.reset()
            _copy_buffers(model.module, compared.module)
            compared.vector.copy_(vector)
            compared.statistics.copy_(running)

    def variant(self) -> Hashable | None:
        return self._contrasts if type(self) is Contrastive else None

    def loss(self, module: "nn.Module", inputs: "Tensor", labels: "Tensor") -> "Tensor":
        if not self._contrasts:
            return super().loss(module, inputs, labels)
        from torch.nn.functional import cosine_similarity, softplus

        logits, features = _logits_and_features(module, self._layer, inputs)  # features: z
        # sim(z, z_glob) and sim(z, z_prev)
        positive, negative = (cosine_similarity(features, compared) for compared in self._compared_features(inputs))
        # l_con, with -log(e^a / (e^a + e^b)) = log(1 + e^(b - a)).
        contrastive = softplus((negative - positive) / self._temperature).mean()
        return self.criterion(logits, labels) + self._mu * contrastive

    def _compared_features(self, inputs: "Tensor") -> "list[Tensor]":
        """The features z_glob and z_prev of a minibatch, float32 [B, F] each."""
        from torch import no_grad

        features = []
        with no_grad():
            for compared in self._compared or ():
                features.append(_logits_and_features(compared.module, self._layer, inputs)[1])
        return features

    def finish(self, context: LocalContext, steps: int) -> None:
        if PREVIOUS in self.keeps:
            context.state[PREVIOUS] = context.model.vector.clone()
        if PREVIOUS_STATISTICS in self.keeps and context.model.layout.statistics_size:
            context.state[PREVIOUS_STATISTICS] = context.model.statistics.clone()


def _copy(model: "FlatModel") -> "FlatModel":
    """A copy of the network with flat vectors of its own."""
    from fedbench.models.flat import FlatModel
    from fedbench.models.probe import training_copy

    device = model.vector.device
    return FlatModel(training_copy(model.module, device), model.layout, device)


def _copy_buffers(source: "nn.Module", target: "nn.Module") -> None:
    """Copy the values of all buffers, so that passes in training mode leave no trace for the next client."""
    for value, place in zip(source.buffers(), target.buffers(), strict=True):
        place.copy_(value)


def _logits_and_features(module: "nn.Module", layer: str, inputs: "Tensor") -> "tuple[Tensor, Tensor]":
    """One forward pass: the network's output, and the input of its submodule `layer` as float32 [B, F].

    Raises:
        ModelError: the submodule is not called in the forward pass.
    """
    layer_inputs: list[Tensor] = []

    def record_input(_: "nn.Module", arguments: "tuple[Tensor, ...]") -> None:
        layer_inputs.append(arguments[0])

    handle = module.get_submodule(layer).register_forward_pre_hook(record_input)
    try:
        logits: Tensor = module(inputs)
    finally:
        handle.remove()
    if not layer_inputs:
        raise ModelError(
            f"{type(module).__name__}: {layer!r} is not called in a forward pass, so algorithm.name=moon finds no "
            "features; name the classifier in an attribute 'feature_layer'"
        )
    return logits, layer_inputs[-1].float()
