"""The one way in which objects are checkpointed: `state()` gives what an object keeps, `restore(state)` takes it back.

What runs on between two rounds (executors, loops, clocks, servers, server rules, ledgers) is `Stateful`. Its state is a
tree of plain values: numbers, texts, NumPy arrays, containers of these, and the frozen dataclasses that the run's
`Codec` knows (`fedbench.checkpoints.files`). An object with parts asks each part for its state and puts it under a
name. An object whose state is simply its attributes inherits both methods from `AttributeState`.

`state()` copies nothing: a tree is written or sent before its object goes on. `restore` takes the tree over, so its
arrays must be writable: a tree that came through an object store passes through `writable` first.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fedbench.components.base import Component

Tree = dict[str, Any]


class Stateful(Protocol):
    """An object that a checkpoint can hold and bring back."""

    def state(self) -> Tree:
        """All that the object keeps between two rounds."""

    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave; an object made with the same settings then behaves as that one would."""


class AttributeState:
    """A `Stateful` object whose state is its attributes, but for functions and components, which are settings.

    >>> class Momentum(AttributeState):
    ...     def __init__(self) -> None:
    ...         self.beta, self.velocity = 0.9, [0.0]
    >>> first, second = Momentum(), Momentum()
    >>> first.velocity = [3.0]
    >>> second.restore(first.state())
    >>> second.state()
    {'beta': 0.9, 'velocity': [3.0]}
    """

    def state(self) -> Tree:
        """All that the object keeps between two rounds, by attribute."""
        return {
            name: value
            for name, value in vars(self).items()
            if not callable(value) and not isinstance(value, Component)
        }

    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave."""
        vars(self).update(state)


def writable(value: Any) -> Any:
    """A copy of nested values whose arrays can be written to; arrays from an object store cannot."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: writable(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(writable(item) for item in value)
    return value


def check_alike(here: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check that a state's arrays can take the place of the arrays that an object has, by name.

    Raises:
        ValueError: one is missing, of another shape or of another kind.
    """
    for name, array in here.items():
        other = given.get(name)
        if not isinstance(other, np.ndarray) or (other.shape, other.dtype) != (array.shape, array.dtype):
            what = f"{other.dtype} {list(other.shape)}" if isinstance(other, np.ndarray) else type(other).__name__
            raise ValueError(f"{name} is {what}, not {array.dtype} {list(array.shape)}")
