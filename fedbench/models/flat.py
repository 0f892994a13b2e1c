"""A module whose parameters, gradients and running statistics are views into flat vectors.

Training then changes the vector in place: what a client sends is a slice of it, and an optimizer sees one tensor per
contiguous run of active layer groups.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fedbench.protocol.layout import ParameterLayout, TensorSlot


class FlatModel:
    """A module bound to a `ParameterLayout`.

    Attributes:
        module: the network; its parameters are views into `vector`.
        layout: the place of each parameter in the vectors.
        vector: float32 [layout.size], the parameters.
        gradient: float32 [layout.size], the gradient; only the slices of the active groups are meaningful.
        statistics: float32 [layout.statistics_size], the running statistics.
    """

    def __init__(self, module: nn.Module, layout: ParameterLayout, device: torch.device | None = None) -> None:
        """Replace the parameters of a module by views into flat vectors, with the same values.

        Args:
            module: the network, which must not be used elsewhere.
            layout: its layout.
            device: the device of the vectors; None: the CPU.
        """
        self.layout = layout
        self.module = module.to(device)
        self.vector = torch.empty(layout.size, device=device)
        self.gradient = torch.zeros(layout.size, device=device)
        self.statistics = torch.empty(layout.statistics_size, device=device)
        self._parameters = self._bind_parameters()
        self._bind_statistics()

    def _bind_parameters(self) -> list[nn.Parameter]:
        originals = dict(self.module.named_parameters())
        bound: dict[int, nn.Parameter] = {}
        for slot in self.layout.slots:
            original = originals[slot.name]
            view = tensor_view(slot, self.vector)
            view.copy_(original.detach())
            bound[id(original)] = nn.Parameter(view)
        for owner in self.module.modules():
            for name, parameter in owner._parameters.items():
                if parameter is not None:
                    owner._parameters[name] = bound[id(parameter)]
        return list(bound.values())

    def _bind_statistics(self) -> None:
        for slot in self.layout.statistics:
            path, _, name = slot.name.rpartition(".")
            owner = self.module.get_submodule(path)
            view = tensor_view(slot, self.statistics)
            view.copy_(owner.get_buffer(name))
            owner._buffers[name] = view
            # A layer with a fixed momentum never reads its counter of minibatches: without it, a step is shorter.
            if getattr(owner, "momentum", None) is not None and "num_batches_tracked" in owner._buffers:
                owner._buffers["num_batches_tracked"] = None

    def activate(self, groups: Iterable[int]) -> list[nn.Parameter]:
        """Let only `groups` train.

        Returns:
            The parameters for an optimizer: one for each contiguous slice of `vector` that is active, with the slice of
            `gradient` as its gradient.
        """
        active = frozenset(groups)
        for slot, parameter in zip(self.layout.slots, self._parameters, strict=True):
            trains = slot.group in active
            parameter.requires_grad_(trains)
            parameter.grad = tensor_view(slot, self.gradient) if trains else None
        slices: list[nn.Parameter] = []
        for piece in self.layout.ranges(active):
            whole = nn.Parameter(self.vector[piece])
            whole.grad = self.gradient[piece]
            slices.append(whole)
        return slices

    def gather(self, groups: Iterable[int]) -> Tensor:
        """A copy of the current values of `groups`, one group after the other: float32 [layout.count(groups)]."""
        return torch.cat([self.vector[piece] for piece in self.layout.ranges(groups)])

    def restore(self, source: Tensor, groups: Iterable[int]) -> None:
        """Copy `groups` back from a vector of the same layout."""
        for piece in self.layout.ranges(groups):
            self.vector[piece].copy_(source[piece])

    def retention(self) -> Tensor:
        """The share of its value that each running statistic keeps in a training step.

        0 for a layer that averages over all minibatches so far, whose share changes with every step.

        Returns:
            float32 [layout.statistics_size].
        """
        kept = torch.zeros_like(self.statistics)
        for slot in self.layout.statistics:
            momentum = getattr(self.module.get_submodule(slot.name.rpartition(".")[0]), "momentum", None)
            kept[slot.offset : slot.stop] = 0.0 if momentum is None else 1.0 - momentum
        return kept

    @property
    def smallest_batch(self) -> int:
        """The size of the smallest minibatch that can train: 2 if a layer normalises over the minibatch, else 1."""
        modules = self.module.modules()
        return 2 if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules) else 1


def tensor_view(slot: TensorSlot, vector: Tensor) -> Tensor:
    """The slot's tensor in its logical shape, as a view into `vector`."""
    stored = vector[slot.offset : slot.stop].view(slot.stored_shape)
    return stored.permute(0, 3, 1, 2) if slot.channels_last else stored
