"""The forward and the backward pass of a minibatch: what every kind of local training has in common."""

import torch
from torch import Tensor

from fedbench.algorithms.base import Objective
from fedbench.models.flat import FlatModel


class BackwardPass:
    """Computes gradients of an objective over minibatches.

    Attributes:
        parameters: the network's parameters that train, in the order of the layout.
    """

    def __init__(self, model: FlatModel, objective: Objective, groups: tuple[int, ...], bf16: bool) -> None:
        """Let the layer groups `groups` train, with the module in training mode.

        Args:
            model: the model.
            objective: gives the loss.
            groups: the active layer groups.
            bf16: whether the forward pass runs under bfloat16 autocast.
        """
        self.parameters = model.activate(groups)
        self._model = model
        self._objective = objective
        self._bf16 = bf16
        model.train()

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Compute the gradient of one minibatch, into `grad` of each of `parameters`.

        Args:
            inputs: the inputs as the module takes them.
            labels: int64 [B].

        Returns:
            The loss, a scalar without a graph.
        """
        for parameter in self.parameters:
            parameter.grad = None
        with self._model.computing():
            if self._bf16:
                with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
                    loss = self._objective.loss(self._model.module, inputs, labels)
            else:
                loss = self._objective.loss(self._model.module, inputs, labels)
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
