"""MOON: Q. Li, B. He, D. Song, "Model-Contrastive Federated Learning", CVPR 2021 (arXiv 2103.16257), Section 3.3 and
Algorithm 1.

With z the features of a sample under the model that trains, z_glob under the global model that it started from and
z_prev under the client's own last model,

    l     = l_sup + mu l_con
    l_con = -log( exp(sim(z, z_glob) / T) / (exp(sim(z, z_glob) / T) + exp(sim(z, z_prev) / T)) ),

where sim is the cosine similarity and l_sup the cross-entropy, both averaged over the minibatch. The features are the
input of the final classifier, the layer that `fedbench.models.groups.feature_layer` names.

The paper leaves open how the two other models normalise. Here they run in eval mode, without gradient, with the
running statistics that the training model has at that moment, its pass over the same minibatch included. The models
then differ in their parameters alone, and a model without running statistics is compared exactly as the formula says.

The term is left out, and its two forward passes with it, where it cannot act: before the client has a last model, with
mu = 0, and where only the classifier trains, on which no feature depends (FedPart x MOON, arXiv 2410.11559). What
remains is FedAvg bit for bit. A client keeps its whole last model, frozen layer groups included. The training loss
that is recorded is l, the contrastive part included where there is one.

Bytes: FedAvg's. With n parameters in the active groups and s running statistics (s = 0 where clients keep theirs), a
participant sends 4 (n + s) and receives 4 bytes for every value that changed since it last downloaded.
"""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from fedbench.algorithms.base import Algorithm, LocalContext, Objective
from fedbench.errors import ModelError
from fedbench.protocol.layout import ParameterLayout

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedbench.models.flat import FlatModel

PREVIOUS = "previous"
"""Name of the client's last model in its state."""

COMPARED_MODELS = 2
"""Number of models that the training one is compared with: the global one and the client's last one."""


class Moon(Algorithm):
    """Features drawn to the global model's and away from the client's last ones (Li et al., CVPR 2021).

    Attributes:
        mu: mu, the weight of the contrastive term; 0 is FedAvg.
        temperature: T, the temperature of the contrastive term.
    """

    paper: ClassVar[str] = "Li et al., CVPR 2021, arXiv 2103.16257"
    keeps: ClassVar[str] = "its last model"
    refuses: ClassVar[str] = "models without a classifier layer whose input is the features"
    name: str = "moon"
    mu: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=0.5, gt=0)

    def objective(self) -> Objective:
        return Contrastive(self.mu, self.temperature)


class Contrastive(Objective):
    """The loss l = l_sup + mu l_con.

    Args:
        mu: weight of the contrastive term, at least 0.
        temperature: T, greater than 0.
    """

    def __init__(self, mu: float, temperature: float) -> None:
        self._mu = mu
        self._temperature = temperature
        self._compared: tuple[FlatModel, FlatModel] | None = None
        self._contrasts = False
        self.keeps = (PREVIOUS,) if mu else ()
        # Two models to compare with, each with the gradient vector that it does not use.
        self.working_vectors = 4 if mu else 0

    def idle_reason(self, groups: tuple[int, ...], layout: ParameterLayout, module: "nn.Module") -> str | None:
        """The reason, in one line, why the contrastive term cannot act while `groups` are active; None where it can."""
        from fedbench.models.groups import feature_layer

        if not self._mu:
            return "algorithm.mu=0: no contrastive term, as FedAvg"
        classifier = feature_layer(module)
        if any(slot.group in groups and not slot.name.startswith(f"{classifier}.") for slot in layout.slots):
            return None
        return f"only {classifier} trains, on which no feature depends: no contrastive term, as FedAvg"

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

        self._trained = model
        self._layer = feature_layer(model.module)
        self._compared = self._compared or (_copy(model), _copy(model))
        for compared, vector in zip(self._compared, (context.anchor, context.state[PREVIOUS]), strict=True):
            compared.vector.copy_(vector)

    def loss(self, module: "nn.Module", inputs: "Tensor", labels: "Tensor") -> "Tensor":
        if not self._contrasts:
            return super().loss(module, inputs, labels)
        from torch.nn.functional import cosine_similarity, cross_entropy, softplus

        logits, features = _logits_and_features(module, self._layer, inputs)  # features: z
        # sim(z, z_glob) and sim(z, z_prev)
        positive, negative = (cosine_similarity(features, compared) for compared in self._compared_features(inputs))
        # l_con, with -log(e^a / (e^a + e^b)) = log(1 + e^(b - a)).
        contrastive = softplus((negative - positive) / self._temperature).mean()
        return cross_entropy(logits, labels) + self._mu * contrastive

    def _compared_features(self, inputs: "Tensor") -> "list[Tensor]":
        """The features z_glob and z_prev of a minibatch, float32 [B, F] each."""
        from torch import no_grad

        features = []
        with no_grad():
            for compared in self._compared or ():
                compared.statistics.copy_(self._trained.statistics)
                features.append(_logits_and_features(compared.module, self._layer, inputs)[1])
        return features

    def finish(self, context: LocalContext, steps: int) -> None:
        if self._mu:
            context.state[PREVIOUS] = context.model.vector.clone()


def _copy(model: "FlatModel") -> "FlatModel":
    """A copy of the network with its own flat vectors, in eval mode."""
    from copy import deepcopy

    from fedbench.models.flat import FlatModel

    return FlatModel(deepcopy(model.module).eval(), model.layout, model.vector.device)


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
