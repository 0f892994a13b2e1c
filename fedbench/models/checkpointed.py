"""Activation checkpointing: blocks of a network keep their inputs alone, and are computed again in the backward pass.

T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv 1604.06174); through
`torch.utils.checkpoint`. What a block computes the second time is what it computed the first time, bit for bit: it
draws the same random numbers, of PyTorch, NumPy and Python, and what it changes of itself (running statistics,
counters) is put back.
"""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fedbench.errors import ModelError
from fedbench.models.initial_state import InitialState

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Modules whose items are taken for the parts that a network repeats."""


def checkpoint_blocks(module: nn.Module) -> nn.Module:
    """Let each block of a network keep its inputs alone between forward and backward pass; in place.

    Raises:
        ModelError: the network has no blocks.
    """
    for _, block in blocks(module):
        block.forward = Recomputed(block)
    return module


def blocks(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, module) of the blocks of a network, in the order in which they are registered.

    A block is an item of an `nn.Sequential`, `nn.ModuleList` or `nn.ModuleDict` that has parameters, and consists of
    modules without being such a container itself: an encoder layer, a residual block.

    Raises:
        ModelError: there is none.
    """
    found = list(_blocks_within(module, ""))
    if not found:
        raise ModelError(
            f"local.checkpoint_activations=true: {type(module).__name__} has no blocks, which are modules that consist "
            "of others and are items of an nn.Sequential or nn.ModuleList; leave it out"
        )
    return found


def _blocks_within(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        consists_of_modules = next(child.children(), None) is not None and next(child.parameters(), None) is not None
        if isinstance(module, CONTAINERS) and consists_of_modules and not isinstance(child, CONTAINERS):
            yield f"{prefix}{name}", child
        else:
            yield from _blocks_within(child, f"{prefix}{name}.")


class Recomputed:
    """The forward pass of a block, of which nothing but the inputs is kept for the backward pass.

    Args:
        block: the block, whose class defines the pass.
    """

    def __init__(self, block: nn.Module) -> None:
        self._block = block
        self._forward = vars(block).get("forward")

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """What the block returns."""
        if not torch.is_grad_enabled():
            return self._computed(*arguments, **keywords)
        return checkpoint(self._computed, *arguments, use_reentrant=False, context_fn=self._contexts, **keywords)

    def _computed(self, *arguments: Any, **keywords: Any) -> Any:
        if self._forward is not None:
            return self._forward(*arguments, **keywords)
        return type(self._block).forward(self._block, *arguments, **keywords)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For the first pass and for the second one, which begins with the state and the draws of the first."""
        return nullcontext(), self._again(self._state(), _draws())

    def _state(self) -> InitialState:
        """The block's buffers and attributes as they are now."""
        return InitialState(self._block, frozenset(map(id, self._block.parameters())))

    @contextmanager
    def _again(self, state: InitialState, draws: tuple[Any, Any]) -> Iterator[None]:
        state_after, draws_after = self._state(), _draws()
        state.restore()
        _set_draws(draws)
        try:
            yield
        finally:
            state_after.restore()
            _set_draws(draws_after)


def _draws() -> tuple[Any, Any]:
    """The states of the generators that `torch.utils.checkpoint` does not keep: Python's and NumPy's."""
    return random.getstate(), np.random.get_state()


def _set_draws(states: tuple[Any, Any]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
