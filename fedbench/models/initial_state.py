"""What a network was built with beside its flat vectors, so that each client starts from it."""

from collections import deque
from collections.abc import Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MODULE_INTERNALS = frozenset(nn.Module().__dict__)
"""Attributes that PyTorch itself keeps in every module: its parameters, buffers, submodules, hooks and mode."""


class InitialState:
    """Remembers frozen parameters, buffers and plain attributes of every layer, and puts them back.

    Attributes are put back by reference. The contents of tensors, of NumPy arrays, and of lists, dictionaries, sets and
    deques (not of what these contain) are put back, too; those of other objects are not.
    """

    def __init__(self, module: nn.Module, elsewhere: Set[int]) -> None:
        """Args:
        module: the network, as it was built.
        elsewhere: ids of the tensors whose values are kept elsewhere; they are put back by reference alone.
        """
        self._layers = [(layer, dict(layer._buffers), _plain_attributes(layer)) for layer in module.modules()]
        held: list[Any] = [parameter for parameter in module.parameters() if id(parameter) not in elsewhere]
        for _, buffers, attributes in self._layers:
            held += [value for value in (*buffers.values(), *attributes.values()) if _has_contents(value, elsewhere)]
        distinct = {id(value): value for value in held}.values()
        self._contents = [(value, _copied(value)) for value in distinct]

    def restore(self) -> None:
        """Put everything back."""
        for layer, buffers, attributes in self._layers:
            layer._buffers.update(buffers)
            current = layer.__dict__
            if len(current) > len(MODULE_INTERNALS) + len(attributes):
                for name in current.keys() - attributes.keys() - MODULE_INTERNALS:
                    del current[name]
            current.update(attributes)
        for value, content in self._contents:
            _put_back(value, content)


def _plain_attributes(layer: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in layer.__dict__.items() if name not in MODULE_INTERNALS}


def _has_contents(value: object, elsewhere: Set[int]) -> bool:
    if isinstance(value, Tensor):
        # A tensor in the middle of a graph is computed from parameters, again in each forward pass.
        return id(value) not in elsewhere and value.is_leaf and not isinstance(value, nn.Parameter)
    return isinstance(value, list | dict | set | deque | np.ndarray)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value.copy()


def _put_back(value: Any, content: Any) -> None:
    if isinstance(value, Tensor):
        with torch.no_grad():
            value.data.copy_(content)
    elif isinstance(value, np.ndarray):
        if value.flags.writeable:
            value[...] = content
    elif isinstance(value, list):
        value[:] = content
    else:
        value.clear()
        value.extend(content) if isinstance(value, deque) else value.update(content)
