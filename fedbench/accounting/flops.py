"""The floating-point operations that a training step really runs, counted by PyTorch and not by hand."""

from collections.abc import Collection, Sequence
from functools import cached_property

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedbench.accounting.operators import FORMULAS, UncountedOperators, countable_kernels
from fedbench.models.base import LayerGroup, Task
from fedbench.models.probe import example_inputs, example_labels, probe
from fedbench.tasks.losses import criterion_of

# Two batch sizes determine an affine law, the third tells whether it holds. BatchNorm over 1x1 maps cannot train on a
# single sample.
SMALL_BATCH = 2
LARGE_BATCH = 4
CHECKED_BATCH = 6


class StepFlops:
    """Counts the FLOPs of one training step, by active layer groups and batch size.

    `torch.utils.flop_counter.FlopCounterMode`, with the formulas of `fedbench.accounting.operators`, counts the step's
    forward pass, loss and backward pass, in which only the active groups require gradients: two FLOPs per
    multiply-accumulate of convolutions and matrix products, elementwise operators nothing. It runs on the meta device,
    so that nothing is computed; a module that reads values is counted on the CPU, and counts the same.

    The count is affine in the batch size: a part for each sample, and a part that depends on the parameters alone. It
    is therefore measured at two batch sizes, once for each set of groups. A network that relates the samples of a batch
    to each other is not affine, and is counted at every batch size that is asked for.

    Args:
        module: the network; copied, never changed.
        groups: its layer groups.
        task: the data's shape.
    """

    def __init__(self, module: nn.Module, groups: Sequence[LayerGroup], task: Task) -> None:
        self._module = module
        self._groups = tuple(groups)
        self._task = task
        self._counts: dict[tuple[tuple[int, ...], int], int] = {}
        self._uncounted: set[str] = set()

    def flops(self, groups: Collection[int], batch_size: int) -> int:
        """FLOPs of a training step.

        Args:
            groups: the layer groups that it trains; empty for a forward pass alone.
            batch_size: samples of the minibatch.

        Raises:
            ModelError: the module fails on a batch of the task's shape.
        """
        key = tuple(sorted(set(groups)))
        return self._by_law(key, batch_size) if self._affine else self._at(key, batch_size)

    def forward_flops(self, batch_size: int) -> int:
        """FLOPs of a forward pass with its loss, as in evaluation."""
        return self.flops((), batch_size)

    @cached_property
    def uncounted(self) -> tuple[str, ...]:
        """Operators of a full training step that count nothing though they do matrix work, or may, as "aten._fft_r2c".

        Raises:
            ModelError: the module fails on a batch of the task's shape.
        """
        self._at(tuple(range(len(self._groups))), SMALL_BATCH)
        return tuple(sorted(self._uncounted))

    @cached_property
    def _affine(self) -> bool:
        """Whether a full training step counts a part for each sample and a part for all."""
        key = tuple(range(len(self._groups)))
        return self._by_law(key, CHECKED_BATCH) == self._at(key, CHECKED_BATCH)

    def _by_law(self, groups: tuple[int, ...], batch_size: int) -> int:
        small, large = self._at(groups, SMALL_BATCH), self._at(groups, LARGE_BATCH)
        return small + (large - small) * (batch_size - SMALL_BATCH) // (LARGE_BATCH - SMALL_BATCH)

    def _at(self, groups: tuple[int, ...], batch_size: int) -> int:
        key = (groups, batch_size)
        if key not in self._counts:
            self._counts[key] = self._count(groups, batch_size)
        return self._counts[key]

    def _count(self, groups: tuple[int, ...], batch_size: int) -> int:
        active = {name for group in groups for name in self._groups[group].parameters}

        def step(module: nn.Module, device: torch.device) -> tuple[int, set[str]]:
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(name in active)
            inputs, criterion = example_inputs(self._task, batch_size, device), criterion_of(self._task.target)
            counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
            with countable_kernels(), UncountedOperators(counter) as uncounted, counter:
                loss = criterion(module(inputs), example_labels(self._task, batch_size, device))
                if active:
                    loss.backward()  # type: ignore[no-untyped-call]
            return int(counter.get_total_flops()), uncounted.names

        flops, uncounted = probe(self._module, step)
        self._uncounted |= uncounted
        return flops
