"""The floating-point operations that a training step really runs, counted by PyTorch and not by formula."""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedbench.models.base import LayerGroup, Task
from fedbench.models.probe import example_inputs, example_labels, probe

# Two batch sizes determine an affine law; BatchNorm over 1x1 maps cannot train on a single sample.
SMALL_BATCH = 2
LARGE_BATCH = 4


class StepFlops:
    """Counts the FLOPs of one training step, by active layer groups and batch size.

    `torch.utils.flop_counter.FlopCounterMode` counts the step's forward pass, cross-entropy and backward pass, in
    which only the active groups require gradients: two FLOPs per multiply-accumulate of convolutions and matrix
    products, everything else nothing. It runs on the meta device, so that nothing is computed; a module that
    reads values is counted on the CPU, where a fused attention kernel's backward pass counts its recomputation.

    The count is affine in the batch size: a part for each sample, and a part that depends on the parameters alone. It
    is therefore measured at two batch sizes, once for each set of groups.

    Args:
        module: the network; copied, never changed.
        groups: its layer groups.
        task: the data's shape.
    """

    def __init__(self, module: nn.Module, groups: Sequence[LayerGroup], task: Task) -> None:
        self._module = module
        self._groups = tuple(groups)
        self._task = task
        self._counts: dict[tuple[int, ...], tuple[int, int]] = {}

    def flops(self, groups: Collection[int], batch_size: int) -> int:
        """FLOPs of a training step.

        Args:
            groups: the layer groups that it trains; empty for a forward pass alone.
            batch_size: samples of the minibatch.

        Raises:
            ModelError: the module fails on a batch of the task's shape.
        """
        key = tuple(sorted(set(groups)))
        if key not in self._counts:
            self._counts[key] = (self._count(key, SMALL_BATCH), self._count(key, LARGE_BATCH))
        small, large = self._counts[key]
        return small + (large - small) * (batch_size - SMALL_BATCH) // (LARGE_BATCH - SMALL_BATCH)

    def forward_flops(self, batch_size: int) -> int:
        """FLOPs of a forward pass with its loss, as in evaluation."""
        return self.flops((), batch_size)

    def _count(self, groups: tuple[int, ...], batch_size: int) -> int:
        active = {name for group in groups for name in self._groups[group].parameters}

        def step(module: nn.Module, device: torch.device) -> int:
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(name in active)
            inputs = example_inputs(self._task, batch_size, device)
            with FlopCounterMode(display=False) as counter:
                loss = F.cross_entropy(module(inputs), example_labels(batch_size, device))
                if active:
                    loss.backward()  # type: ignore[no-untyped-call]
            return int(counter.get_total_flops())

        return probe(self._module, step)
