"""Networks that compute in bfloat16 while their parameters stay in float32: `local.precision=bf16-parameters`.

P. Micikevicius et al., "Mixed Precision Training", ICLR 2018 (arXiv 1710.03740), Section 3.1, with bfloat16 in place of
half precision: the optimizer changes float32 parameters, the masters, and each step computes with a rounded copy. Its
gradients are in bfloat16, and become float32 before the optimizer, or a method, sees them.

Layers that keep running statistics compute with their float32 parameters, on inputs in bfloat16.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from fedbench.errors import ModelError
from fedbench.models.base import Task
from fedbench.models.kept_state import persistent_buffers, travels
from fedbench.models.probe import example_inputs, probe, training_copy

LOWERED = "bf16-parameters"
"""The value of `local.precision` for such networks."""


class LoweredCopy:
    """The bfloat16 tensors that a network computes with in the place of its float32 ones, made anew for each step."""

    def __init__(
        self, module: nn.Module, places: Sequence[tuple[nn.Parameter, Tensor]], masters: Tensor, copy: Tensor
    ) -> None:
        """Args:
        module: the network.
        places: its trainable parameters, each with its view into `copy`.
        masters: float32 [P], the parameters.
        copy: bfloat16 [P].
        """
        self._module, self._masters, self._copy = module, masters, copy
        kept = kept_in_float32(module)
        placed = {id(parameter) for parameter, _ in places}
        self._trainable = [(parameter, place) for parameter, place in places if id(parameter) not in kept]
        self._frozen_values: list[Tensor] = []
        self._frozen = [p for p in module.parameters() if id(p) not in placed | kept and p.dtype == torch.float32]
        self._buffers = [(layer, name) for layer, name, _ in lowered_buffers(module)]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Context in which the network computes in bfloat16, takes float32 inputs, and gives a float32 output.

        Raises:
            ModelError: the network has changed a buffer, which would be lost.
        """
        self._copy.copy_(self._masters)
        self._frozen_values = self._frozen_values or [parameter.data.bfloat16() for parameter in self._frozen]
        replaced = [*self._trainable, *zip(self._frozen, self._frozen_values, strict=True)]
        originals = [parameter.data for parameter, _ in replaced]
        buffers = [layer._buffers[name] for layer, name in self._buffers]
        hooks = lowering_hooks(self._module)
        try:
            for parameter, value in replaced:
                parameter.data = value
            lowered = [_lower_buffer(layer, name) for layer, name in self._buffers]
            versions = [buffer._version for buffer in lowered]
            yield
            for (layer, name), buffer, version in zip(self._buffers, lowered, versions, strict=True):
                if layer._buffers[name] is not buffer or buffer._version != version:
                    raise ModelError(
                        f"local.precision={LOWERED}: {type(self._module).__name__} changes its buffer {name!r} as it "
                        "trains, which must not be rounded; set float32 or bf16"
                    )
        finally:
            for hook in hooks:
                hook.remove()
            for (layer, name), original in zip(self._buffers, buffers, strict=True):
                layer._buffers[name] = original
            for (parameter, _), value in zip(replaced, originals, strict=True):
                parameter.data = value


def lower(module: nn.Module) -> nn.Module:
    """Let a network compute in bfloat16 for good, without masters; in place."""
    kept = kept_in_float32(module)
    for parameter in module.parameters():
        if id(parameter) not in kept and parameter.dtype == torch.float32:
            parameter.data = parameter.data.bfloat16()
    for layer, name, _ in list(lowered_buffers(module)):
        _lower_buffer(layer, name)
    lowering_hooks(module)
    return module


def check_lowered(module: nn.Module, task: Task) -> None:
    """Check that a network can compute in bfloat16.

    Raises:
        ModelError: it has buffers that travel and are no running statistics, or its pass fails in bfloat16.
    """
    owner = f"local.precision={LOWERED}: {type(module).__name__}"
    kept = kept_in_float32(module)
    for name, buffer in persistent_buffers(module):
        if travels(buffer) and id(buffer) not in kept:
            raise ModelError(f"{owner} sends its buffer {name!r}, which must not be rounded; set float32 or bf16")

    # Operators on the meta device take operands of different types, which those on a real one do not.
    device = next(module.parameters()).device
    try:
        with torch.random.fork_rng(devices=[]):
            lower(copy := training_copy(module, device))
            copy(example_inputs(task, 2, device)).sum().backward()
    except Exception as error:
        reason = (str(error).strip() or repr(error)).split("\n")[0]
        raise ModelError(f"{owner} cannot compute in bfloat16 ({reason}); set float32 or bf16") from error


def check_strides(module: nn.Module, task: Task, precision: str) -> None:
    """Refuse a network in which a convolution strides over maps that are smaller than its stride.

    PyTorch 2.14's kernel for the CPU (oneDNN) then gives a wrong gradient of the weights in bfloat16: of 20 gradients
    of a 3x3 convolution with stride 2 over maps of 1x1, 19 were wrong. Other shapes were right.

    Args:
        module: the network.
        task: the learning task, which has the shape of the data.
        precision: the value of `local.precision`, for the message.

    Raises:
        ModelError: names the convolution.
    """
    small: list[str] = []

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _ConvNd)
        sides = inputs[0].shape[-len(layer.stride) :]
        if any(side < stride for side, stride in zip(sides, layer.stride, strict=True)):
            small.append(f"{name} strides by {layer.stride[0]} over maps of {'x'.join(map(str, sides))}")

    def passes(copy: nn.Module, device: torch.device) -> None:
        for name, layer in copy.named_modules():
            if isinstance(layer, _ConvNd) and not isinstance(layer, _ConvTransposeNd):
                layer.register_forward_pre_hook(partial(note, name))
        copy(example_inputs(task, 2, device))

    probe(module, passes)
    if small:
        raise ModelError(
            f"local.precision={precision}: {small[0]}, where PyTorch's bfloat16 convolution on a CPU gives wrong "
            "gradients; set float32, or runtime.device=cuda"
        )


def kept_in_float32(module: nn.Module) -> frozenset[int]:
    """The ids of the parameters and buffers of the layers that keep running statistics."""
    layers = [layer for layer in module.modules() if isinstance(layer, _NormBase)]
    tensors = [tensor for layer in layers for tensor in (*layer._parameters.values(), *layer._buffers.values())]
    return frozenset(id(tensor) for tensor in tensors if tensor is not None)


def lowered_buffers(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """(layer, name, buffer) of the float32 buffers that are rounded."""
    kept = kept_in_float32(module)
    for layer in module.modules():
        for name, buffer in layer._buffers.items():
            if buffer is not None and buffer.dtype == torch.float32 and id(buffer) not in kept:
                yield layer, name, buffer


def rounded_tensors(module: nn.Module) -> list[Tensor]:
    """The float32 parameters and buffers of which a copy in bfloat16 is computed with."""
    kept = kept_in_float32(module)
    parameters = [p for p in module.parameters() if id(p) not in kept and p.dtype == torch.float32]
    return [*parameters, *(buffer for _, _, buffer in lowered_buffers(module))]


def lowering_hooks(module: nn.Module) -> list[Any]:
    """Hooks, to be removed, through which a network takes float32 inputs and gives a float32 output."""
    return [module.register_forward_pre_hook(_lower_inputs), module.register_forward_hook(_raise_output)]


def _lower_buffer(layer: nn.Module, name: str) -> Tensor:
    """Put a rounded copy in the place of a buffer."""
    buffer = layer._buffers[name]
    assert buffer is not None
    lowered = buffer.bfloat16()
    layer._buffers[name] = lowered
    return lowered


def _lower_inputs(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.bfloat16() if isinstance(value, Tensor) and value.dtype == torch.float32 else value for value in inputs
    )


def _raise_output(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.float()
