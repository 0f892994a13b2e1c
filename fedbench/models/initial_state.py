"""What a network was built with beside its flat vectors, so that each client starts from it."""

from collections import deque
from collections.abc import Iterator, Set
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
        self._elsewhere = elsewhere
        self._frozen = [parameter for parameter in module.parameters() if id(parameter) not in elsewhere]
        self._layers = [(layer, dict(layer._buffers), _plain_attributes(layer)) for layer in module.modules()]
        held: list[Any] = list(self._frozen)
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

    def now(self) -> "PresentState":
        """What `restore` would put back as it is now, and which tensor each buffer is."""
        return PresentState([*self._entries()])

    def _entries(self) -> Iterator[tuple[object, object]]:
        for parameter in self._frozen:
            yield self._entry(parameter)
        for layer, _, _ in self._layers:
            for name, value in (*layer._buffers.items(), *_plain_attributes(layer).items()):
                yield None, name
                yield self._entry(value)
                if isinstance(value, list | tuple | set | deque):
                    yield from map(self._entry, value)
                elif isinstance(value, dict):
                    yield from map(self._entry, (*value.keys(), *value.values()))

    def _entry(self, value: object) -> tuple[object, object]:
        """(the object that stays the same where nothing changes, what is equal where nothing changes) of a value."""
        if isinstance(value, bool | int | float | complex | str | bytes | tuple | None):
            return None, None if isinstance(value, tuple) else value
        if isinstance(value, Tensor):
            if not value.is_leaf:  # computed from parameters, again in each forward pass
                return None, None
            return value, None if id(value) in self._elsewhere else value._version
        return value, value.tobytes() if isinstance(value, np.ndarray) else None


class PresentState:
    """What a network holds beside its flat vectors at one moment, equal to that of another if nothing has changed."""

    def __init__(self, entries: list[tuple[object, object]]) -> None:
        """Args:
        entries: for each value an object, which is compared by identity, and what is compared with ==.
        """
        self._entries = entries

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PresentState) or len(self._entries) != len(other._entries):
            return False
        pairs = zip(self._entries, other._entries, strict=True)
        return all(here[0] is there[0] and (here[1] is there[1] or here[1] == there[1]) for here, there in pairs)

    __hash__ = None  # type: ignore[assignment]


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
