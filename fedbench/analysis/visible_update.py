"""What a server sees of a client, as a function of the client's images that can be differentiated twice.

`GradientView` is the gradient of the loss at the global model, with the network in evaluation mode. `MessageView` is
the change that local training makes to it: the steps of the run's own optimizer are computed as one differentiable
function of the images. The plain loss is minimised: a method's own term in it, augmentation and dropout are left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from fedbench.analysis.second_derivatives import differentiable_twice
from fedbench.errors import ConfigError
from fedbench.models.flat import FlatModel
from fedbench.protocol.layout import ParameterLayout
from fedbench.training.optimizers import SGD, Adam, Optimizer

Scaling = Callable[[Tensor], Tensor]
"""Images in [0, 1] as the network takes them."""

TINY = 1e-20
"""Added below the root of Adam, whose derivative at 0 is infinite; far below eps^2 = 1e-16."""


@dataclass(frozen=True)
class Visible:
    """The parameters of which something is seen.

    Attributes:
        name: what it is called in tables.
        key: what it is called among the figures of an analysis, the same for networks with other layer groups.
        groups: the layer groups.
        subset: int64, positions among the parameters of `groups`, one group after the other; None: all of them.
    """

    name: str
    groups: tuple[int, ...]
    subset: Tensor | None = None
    key: str = ""

    def names(self, layout: ParameterLayout) -> list[str]:
        """The names of the tensors in the groups, in the order of the layout."""
        return [slot.name for slot in layout.slots if slot.group in self.groups]

    def count(self, layout: ParameterLayout) -> int:
        """Number of values that are seen."""
        return layout.count(self.groups) if self.subset is None else len(self.subset)

    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        """float32 [count], what is seen of tensors in the order of `names`."""
        values = torch.cat([tensor.reshape(-1) for tensor in tensors])
        return values if self.subset is None else values[self.subset.to(values.device)]


class GradientView:
    """The visible part of the gradient of the mean cross-entropy, the network in evaluation mode."""

    def __init__(self, flat: FlatModel, visible: Visible, scaling: Scaling) -> None:
        """Args:
        flat: the network; only which of its parameters require gradients is changed.
        visible: what is seen.
        scaling: turns images in [0, 1] into inputs.
        """
        self._flat, self._visible, self._scaling = flat, visible, scaling

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """float32 [count].

        Args:
            images: float32 [n, C, H, W] in [0, 1].
            labels: int64 [n], or probabilities float32 [n, classes].
        """
        self._flat.module.eval()
        parameters = self._flat.activate(self._visible.groups)
        with differentiable_twice(self._flat.module):
            loss = cross_entropy(self._flat.module(self._scaling(images)), labels)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        return self._visible.of(gradients)


class MessageView:
    """The visible part of the change that a client's local training makes."""

    def __init__(
        self,
        flat: FlatModel,
        trained: tuple[int, ...],
        visible: Visible,
        scaling: Scaling,
        optimizer: Optimizer,
        rate: float,
        batches: Sequence[Tensor],
    ) -> None:
        """Args:
        flat: the network with the parameters that the client starts from; not changed.
        trained: the layer groups that the client trains.
        visible: what is seen; its groups are among those.
        scaling: turns images in [0, 1] into inputs.
        optimizer: the run's.
        rate: its learning rate in this round.
        batches: for each local step, int64, the images of its minibatch.
        """
        self._module, self._scaling = flat.module, scaling
        self._names = Visible("", trained).names(flat.layout)
        self._seen, self._visible = visible.names(flat.layout), visible
        self._start = {name: tensor.detach() for name, tensor in flat.module.named_parameters()}
        self._buffers = {name: tensor.detach() for name, tensor in flat.module.named_buffers()}
        self._optimizer, self._rate, self._batches = optimizer, rate, batches

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """float32 [count]; arguments as for `GradientView`."""
        _normalise_over_minibatches(self._module)
        inputs = self._scaling(images)
        weights = {name: self._start[name].clone().requires_grad_() for name in self._names}
        rule = DifferentiableRule(self._optimizer, self._rate)
        for batch in self._batches:
            buffers = {name: tensor.clone() for name, tensor in self._buffers.items()}
            with differentiable_twice(self._module):
                outputs = functional_call(self._module, {**self._start, **buffers, **weights}, (inputs[batch],))
                loss = cross_entropy(outputs, labels[batch])
                gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
            weights = rule.step(weights, dict(zip(self._names, gradients, strict=True)))
        return self._visible.of([weights[name] - self._start[name] for name in self._seen])


def _normalise_over_minibatches(module: nn.Module) -> None:
    """Put the layers that normalise over minibatches in training mode, and all others in evaluation mode."""
    module.eval()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()


class DifferentiableRule:
    """The steps of SGD, Adam or AdamW as functions of the gradients, with their state since the first step."""

    def __init__(self, optimizer: Optimizer, rate: float) -> None:
        """Args:
        optimizer: whose steps these are.
        rate: the learning rate.

        Raises:
            ConfigError: another optimizer.
        """
        if not isinstance(optimizer, SGD | Adam):
            raise ConfigError(
                f"local.optimizer.name={optimizer.name}: an attack on messages knows the steps of sgd, adam and adamw "
                "alone; leave message and cycle out of --sources"
            )
        self._optimizer, self._rate = optimizer, rate
        self._first: dict[str, Tensor] = {}
        self._second: dict[str, Tensor] = {}
        self._steps = 0

    def step(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights after one more step."""
        self._steps += 1
        step = self._sgd if isinstance(self._optimizer, SGD) else self._adam
        return {name: step(name, weights[name], gradients[name]) for name in weights}

    def _sgd(self, name: str, weight: Tensor, gradient: Tensor) -> Tensor:
        sgd = self._optimizer
        assert isinstance(sgd, SGD)
        gradient = gradient + sgd.weight_decay * weight
        if not sgd.momentum:
            return weight - self._rate * gradient
        # v <- mu v + g; w <- w - lr v, with Nesterov's momentum w - lr (g + mu v)
        velocity = sgd.momentum * self._first[name] + gradient if name in self._first else gradient
        self._first[name] = velocity
        return weight - self._rate * (gradient + sgd.momentum * velocity if sgd.nesterov else velocity)

    def _adam(self, name: str, weight: Tensor, gradient: Tensor) -> Tensor:
        adam = self._optimizer
        assert isinstance(adam, Adam)
        (beta1, beta2), t = adam.betas, self._steps
        if adam.decoupled:
            weight = weight - self._rate * adam.weight_decay * weight
        else:
            gradient = gradient + adam.weight_decay * weight
        zero = torch.zeros_like(gradient)
        # m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; w <- w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
        self._first[name] = beta1 * self._first.get(name, zero) + (1 - beta1) * gradient
        self._second[name] = beta2 * self._second.get(name, zero) + (1 - beta2) * gradient.square()
        scale = (self._second[name] / (1 - beta2**t) + TINY).sqrt() + adam.eps
        return weight - self._rate * (self._first[name] / (1 - beta1**t)) / scale
