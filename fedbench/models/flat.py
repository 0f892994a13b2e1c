"""A module whose parameters and running statistics are views into flat vectors.

Training then changes the vector in place, and what a client sends is a slice of it. Gradients are what the backward
pass makes, tensor by tensor; who needs them in one piece has them moved into a flat vector. The module's own Parameter
objects and buffers stay what they are, and only their storage is replaced, so that a module which keeps a list of them
(as `nn.LSTM` does) trains as any other. Recurrent layers are kept from moving their weights into a tensor of their own
on a GPU (`flatten_parameters`): there cuDNN copies those of a layer together in each pass, and computes the same.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fedbench.errors import ModelError
from fedbench.models.frozen_base import base_parameters
from fedbench.models.initial_state import InitialState, PresentState
from fedbench.models.kept_state import RUNNING_STATISTICS
from fedbench.models.lowered import LoweredCopy
from fedbench.protocol.layout import ParameterLayout, TensorSlot


class FlatModel:
    """A module bound to a `ParameterLayout`.

    Attributes:
        module: the network; its trainable parameters are views into `vector`.
        layout: the place of each parameter in the vectors.
        vector: float32 [layout.size], the parameters.
        statistics: float32 [layout.statistics_size], the running statistics and the other buffers that travel.
    """

    def __init__(
        self, module: nn.Module, layout: ParameterLayout, device: torch.device | None = None, lowered: bool = False
    ) -> None:
        """Give the parameters and statistics of a module their place in flat vectors, with the same values.

        Args:
            module: the network, which must not be used elsewhere.
            layout: its layout.
            device: the device of the vectors; None: the CPU.
            lowered: whether steps compute with a rounded copy of the parameters (`fedbench.models.lowered`).
        """
        self.layout = layout
        for layer in module.modules():
            if isinstance(layer, nn.RNNBase):
                layer.flatten_parameters = _stay_in_place  # type: ignore[method-assign]
        self.module = module.to(device)
        self.vector = torch.empty(layout.size, device=device)
        self.statistics = torch.empty(layout.statistics_size, device=device)
        self._parameters = self._bind_parameters()
        self._buffers = self._bind_statistics()
        self._owners = [self._owner(slot) for slot in layout.statistics]
        self._places = [
            ((self._owner(slot)._parameters, slot.name.rpartition(".")[2]), parameter, slot.offset)
            for slot, parameter in zip(layout.slots, self._parameters, strict=True)
        ]
        base = list(base_parameters(self.module).values())
        elsewhere = [*self._parameters, *self._buffers, *base]
        self._initial = InitialState(self.module, frozenset(id(tensor) for tensor in elsewhere))
        self._base = [(parameter, parameter._version) for parameter in base]

        self._lowered: LoweredCopy | None = None
        if lowered:
            copy = torch.empty_like(self.vector, dtype=torch.bfloat16)
            views = [tensor_view(slot, copy) for slot in layout.slots]
            places = list(zip(self._parameters, views, strict=True))
            self._lowered = LoweredCopy(self.module, places, self.vector, copy)
        self._active: list[tuple[int, nn.Parameter]] = []
        self._layers = list(self.module.modules())
        self._has_plain_modes = all(
            type(layer).train is nn.Module.train and "train" not in vars(layer) for layer in self._layers
        )

    def train(self) -> None:
        """Put the module in training mode, as its own `train` does.

        Where no layer redefines `train`, a list of the layers is gone through: PyTorch's walk through the module takes
        longer than a layer of a small network computes.
        """
        if not self._has_plain_modes:
            self.module.train()
            return
        for layer in self._layers:
            if not layer.training:
                layer.training = True

    def _owner(self, slot: TensorSlot) -> nn.Module:
        return self.module.get_submodule(slot.name.rpartition(".")[0])

    @cached_property
    def gradient(self) -> Tensor:
        """float32 [layout.size], the gradient as `collect_gradient` left it; meaningful in the active groups alone.

        A backward pass leaves the gradient of each tensor in `parameter.grad`. Training that needs no more than these
        never allocates this vector.
        """
        return torch.zeros_like(self.vector)

    @cached_property
    def _gradient_views(self) -> list[Tensor]:
        """For each slot of the layout, its place in `gradient`."""
        return [tensor_view(slot, self.gradient) for slot in self.layout.slots]

    def _bind_parameters(self) -> list[nn.Parameter]:
        parameters = dict(self.module.named_parameters())
        bound = [parameters[slot.name] for slot in self.layout.slots]
        for slot, parameter in zip(self.layout.slots, bound, strict=True):
            view = tensor_view(slot, self.vector)
            view.copy_(parameter.detach())
            parameter.data = view
        return bound

    def _bind_statistics(self) -> list[Tensor]:
        bound = [self.module.get_buffer(slot.name) for slot in self.layout.statistics]
        for slot, buffer in zip(self.layout.statistics, bound, strict=True):
            view = tensor_view(slot, self.statistics)
            view.copy_(buffer)
            buffer.data = view
        for layer in self.module.modules():
            # A layer with a fixed momentum never reads its counter of minibatches: without it, a step is shorter.
            if isinstance(layer, _NormBase) and layer.momentum is not None and "num_batches_tracked" in layer._buffers:
                layer._buffers["num_batches_tracked"] = None
        return bound

    def collect_statistics(self) -> None:
        """Take buffers that the module has replaced by new tensors (`self.centres = ...`) over into `statistics`.

        Raises:
            ModelError: such a tensor has another shape than at the start, or the module has given a parameter other
                memory, so that its training has not reached `vector`.
        """
        self._check_parameters_stay()
        for slot, owner, bound in zip(self.layout.statistics, self._owners, self._buffers, strict=True):
            leaf = slot.name.rpartition(".")[2]
            current = owner._buffers.get(leaf)
            if current is bound:
                continue
            if current is None or tuple(current.shape) != slot.shape:
                shape = None if current is None else list(current.shape)
                raise ModelError(
                    f"{type(self.module).__name__}: training gave buffer {slot.name!r} the shape {shape}, "
                    f"{list(slot.shape)} is needed, as at the start"
                )
            bound.data.copy_(current.detach())
            owner._buffers[leaf] = bound

    def _check_parameters_stay(self) -> None:
        """Refuse a module that replaces a parameter, or the memory of one (`self.weight.data = ...`), as it trains."""
        if self.vector.is_meta:
            return
        start, size = self.vector.data_ptr(), self.vector.element_size()
        for (owner, leaf), parameter, offset in self._places:
            moved = parameter.data_ptr() - start != offset * size and parameter.numel()
            if moved or owner.get(leaf) is not parameter:
                name = next(slot.name for slot in self.layout.slots if slot.offset == offset)
                raise ModelError(
                    f"{type(self.module).__name__}: its forward pass replaces parameter {name!r}, whose training would "
                    "be lost; change its values in place (copy_, clamp_)"
                )

    def reset(self) -> None:
        """Put everything that is not in the flat vectors back to what the network was built with.

        That are frozen parameters, buffers of whole numbers (such as counters), buffers that the module does not save,
        and the plain attributes of its layers. Nothing of one client then reaches the next one.

        Raises:
            ModelError: the network has written to its frozen base, of which there is no copy.
        """
        if any(parameter._version != version for parameter, version in self._base):
            raise ModelError(f"{type(self.module).__name__}: writes to the frozen parameters beside its adapters")
        self._initial.restore()

    def outside(self) -> PresentState:
        """What the network holds that is not in the flat vectors, to be compared with what it holds at another time."""
        return self._initial.now()

    def changed_parameter(self, source: Tensor) -> str | None:
        """The name of a parameter that differs from a vector of the same layout; None: all are equal to it."""
        here, there = self.vector.view(torch.int32), source.view(torch.int32)  # NaN is equal to itself
        if torch.equal(here, there):
            return None
        slots = ((slot.name, slice(slot.offset, slot.stop)) for slot in self.layout.slots)
        return next(name for name, piece in slots if not torch.equal(here[piece], there[piece]))

    def activate(self, groups: Iterable[int]) -> list[nn.Parameter]:
        """Let only `groups` train, and forget all gradients.

        Returns:
            The network's parameters that train, in the order of the layout.
        """
        active = frozenset(groups)
        self._active = []
        for index, (slot, parameter) in enumerate(zip(self.layout.slots, self._parameters, strict=True)):
            trains = slot.group in active
            parameter.requires_grad_(trains)
            parameter.grad = None
            if trains:
                self._active.append((index, parameter))
        return self.trained

    @property
    def trained(self) -> list[nn.Parameter]:
        """The network's parameters that train, in the order of the layout."""
        return [parameter for _, parameter in self._active]

    def slices(self, groups: Iterable[int]) -> list[nn.Parameter]:
        """One parameter for each contiguous slice of `vector` that `groups` take, with that slice of `gradient`."""
        slices: list[nn.Parameter] = []
        for piece in self.layout.ranges(groups):
            whole = nn.Parameter(self.vector[piece])
            whole.grad = self.gradient[piece]
            slices.append(whole)
        return slices

    def complete_gradients(self) -> None:
        """Give every parameter that trains a dense gradient: zeros where the backward pass did not reach it."""
        for _, parameter in self._active:
            gradient = parameter.grad
            if gradient is None:
                parameter.grad = torch.zeros_like(parameter)
            elif gradient.layout is not torch.strided:
                parameter.grad = torch.zeros_like(parameter).add_(gradient)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The context of a step's forward and backward pass, after which all gradients are dense and float32.

        Where the network computes with a rounded copy of its parameters, the gradients are afterwards in `gradient`.
        """
        if self._lowered is None:
            yield
            self.complete_gradients()
            return
        with self._lowered.in_use():
            yield
            self.complete_gradients()
        self.collect_gradient()

    def collect_gradient(self) -> None:
        """Move the gradients of the parameters that train, all of them dense, to their places in `gradient`.

        The `grad` of each parameter is afterwards its view into that vector.
        """
        views = [self._gradient_views[index] for index, _ in self._active]
        torch._foreach_copy_(views, [parameter.grad for _, parameter in self._active if parameter.grad is not None])
        for (_, parameter), view in zip(self._active, views, strict=True):
            parameter.grad = view

    def retention(self) -> Tensor:
        """The share of its value that each running statistic keeps in a training step.

        0 for a layer that averages over all minibatches of its local training, which starts anew with each client. 1
        for a buffer of any other layer, whose rule of change is not known: a client's change is then added as it is.

        Returns:
            float32 [layout.statistics_size].
        """
        kept = torch.ones_like(self.statistics)
        for slot in self.layout.statistics:
            path, _, leaf = slot.name.rpartition(".")
            layer = self.module.get_submodule(path)
            if isinstance(layer, _NormBase) and leaf in RUNNING_STATISTICS:
                kept[slot.offset : slot.stop] = 0.0 if layer.momentum is None else 1.0 - layer.momentum
        return kept

    @property
    def smallest_batch(self) -> int:
        """The size of the smallest minibatch that can train: 2 if a layer normalises over the minibatch, else 1."""
        modules = self.module.modules()
        return 2 if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules) else 1


def _stay_in_place() -> None:
    """What `flatten_parameters` of a recurrent layer does: nothing."""


def tensor_view(slot: TensorSlot, vector: Tensor) -> Tensor:
    """The slot's tensor in its logical shape, as a view into `vector`."""
    stored = vector[slot.offset : slot.stop].view(slot.stored_shape)
    return stored.permute(0, 3, 1, 2) if slot.channels_last else stored
