"""Tensors that a network holds more than once: under several names, or as two tensors over the same memory.

- One parameter or buffer may have several names, as the weight of an embedding that is the output layer's, too. It has
  one place in the flat vectors, is trained, sent and counted once, and is saved under every name.
- Two tensors over the same memory (`self.copy = self.weight.data`) cannot follow each other once the parameters have
  moved into the flat vectors: such a network is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedbench.errors import ModelError
from fedbench.models.frozen_base import base_parameters
from fedbench.models.initial_state import MODULE_INTERNALS
from fedbench.models.kept_state import persistent_buffers, travels

SEARCH_DEPTH = 4
"""How many lists, dictionaries and plain objects may lie within each other in an attribute that is searched."""

NOT_SEARCHED = (nn.Module, type, ModuleType, FunctionType, MethodType)
"""Kinds of attributes that are not looked into; submodules come by themselves."""

NAMED_TIES = 5
"""Tied parameters that are named one by one."""


def saved_names(module: nn.Module) -> dict[str, str]:
    """For each name in the network's `state_dict` the name under which fedbench keeps that tensor.

    They differ where a parameter or a buffer has several names: it is kept under the first one. A frozen base is left
    out.

    Raises:
        ModelError: an entry of the `state_dict` is neither a parameter nor a buffer.
    """
    kept = {id(tensor): name for name, tensor in (*persistent_buffers(module), *module.named_parameters())}
    base = {id(parameter) for parameter in base_parameters(module).values()}
    names: dict[str, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in base:
            continue
        if id(tensor) not in kept:
            raise ModelError(
                f"{type(module).__name__}: {name!r} of its state_dict is neither a parameter nor a buffer, and cannot "
                "be saved rightly; register it as a buffer"
            )
        names[name] = kept[id(tensor)]
    return names


def tied_parameters(module: nn.Module) -> dict[str, list[str]]:
    """{name: further names} of the parameters that have several."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {first: further for first, *further in names.values() if further}


def ties_in_words(module: nn.Module) -> Iterator[str]:
    """One line on the parameters that train and have several names, where there are any."""
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    ties = {name: further for name, further in tied_parameters(module).items() if name in trained}
    if not ties:
        return
    shown = [f"{' and '.join(further)} {'is' if len(further) == 1 else 'are'} {name}" for name, further in ties.items()]
    more = f", and {len(shown) - NAMED_TIES} more" if len(shown) > NAMED_TIES else ""
    yield (
        f"{', '.join(shown[:NAMED_TIES])}{more}: one parameter, which is trained, sent and counted once, in the layer "
        "group that uses it first, and saved under every name"
    )


@dataclass(frozen=True)
class Extent:
    """The memory that a tensor or an array lies in.

    Attributes:
        start, stop: addresses in bytes.
        name: path of the tensor within the network.
        moves: whether it moves into the flat vectors.
    """

    start: int
    stop: int
    name: str
    moves: bool


def check_memory_is_not_shared(owner: str, module: nn.Module) -> None:
    """Refuse a network in which something else lies over the memory of a trainable parameter or a buffer that travels.

    Its parameters and buffers are searched, and the attributes of its layers with the lists, dictionaries and plain
    objects in them.

    Args:
        owner: begins the message.
        module: the network, freshly built.

    Raises:
        ModelError: names both.
    """
    furthest: Extent | None = None
    furthest_moving: Extent | None = None
    for extent in sorted(_extents(module), key=lambda extent: (extent.start, extent.stop)):
        other = furthest if extent.moves else furthest_moving
        if other is not None and extent.start < other.stop:
            first, second = (other, extent) if other.moves else (extent, other)
            raise ModelError(
                f"{owner}: {second.name} shares memory with {first.name}, and would no longer follow it in training; "
                "assign the same nn.Parameter or buffer itself, or a copy (clone)"
            )
        if furthest is None or extent.stop > furthest.stop:
            furthest = extent
        if extent.moves and (furthest_moving is None or extent.stop > furthest_moving.stop):
            furthest_moving = extent


def _extents(module: nn.Module) -> Iterator[Extent]:
    moving = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    moving |= {id(buffer) for _, buffer in persistent_buffers(module) if travels(buffer)}
    seen: set[int] = set()
    for name, value in _values(module):
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            start, stop = np.lib.array_utils.byte_bounds(value)
        elif value.is_meta or value.layout != torch.strided or not value.numel():
            continue
        else:
            start = value.data_ptr()
            last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
            stop = start + (last + 1) * value.element_size()
        yield Extent(start, stop, name, id(value) in moving)


def _values(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """(path, value) of every tensor and array that a network holds; parameters and buffers come first."""
    yield from ((f"parameter {name!r}", parameter) for name, parameter in module.named_parameters())
    yield from ((f"buffer {name!r}", buffer) for name, buffer in module.named_buffers())
    visited: set[int] = set()
    for path, layer in module.named_modules():
        for leaf, value in vars(layer).items():
            # The hooks of pruning and of spectral normalisation compute such an attribute before each call.
            if leaf not in MODULE_INTERNALS and f"{leaf}_orig" not in layer._parameters:
                yield from _within(f"{path}.{leaf}" if path else leaf, value, visited, SEARCH_DEPTH)


def _within(path: str, value: Any, visited: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor | np.ndarray):
        yield f"attribute {path!r}", value
        return
    if depth == 0 or id(value) in visited or isinstance(value, NOT_SEARCHED):
        return
    visited.add(id(value))
    if isinstance(value, dict):
        items = [(f"{path}[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        items = [(f"{path}.{name}", item) for name, item in getattr(value, "__dict__", {}).items()]
    for name, item in items:
        yield from _within(name, item, visited, depth - 1)
