"""Methods whose first minibatch ever fails as on a GPU. Importable by path: "broken_device:Name"."""

import weakref
from collections.abc import Callable, Hashable
from pathlib import Path

import torch
from torch import Tensor, nn

from fedbench.algorithms.base import Algorithm, Objective


class Short(Algorithm):
    """FedAvg that runs out of a GPU's memory once.

    Attributes:
        mark: file that says that it has.
        after: losses that an objective computes before.
    """

    name: str = "broken_device:Short"
    mark: Path
    after: int = 0

    def objective(self) -> Objective:
        return FailsOnce(self.mark, lambda: torch.OutOfMemoryError("CUDA out of memory"), self.after)


class Dead(Algorithm):
    """FedAvg in which a kernel's assertion fails once, after which a process can no longer use its GPU.

    Attributes:
        mark: file that says that it has.
    """

    name: str = "broken_device:Dead"
    mark: Path

    def objective(self) -> Objective:
        return FailsOnce(self.mark, lambda: torch.AcceleratorError("CUDA error: device-side assert triggered"))


class FailsOnce(Objective):
    """Raises an error where a file is not there yet, and writes it; later, nothing may hold what it had computed."""

    computed: "Callable[[], Tensor | None] | None" = None
    """A weak reference to what had been computed when a step of this process failed."""

    def __init__(self, mark: Path, error: Callable[[], Exception], after: int = 0) -> None:
        self._mark = mark
        self._error = error
        self._left = after

    def variant(self) -> Hashable:
        return ()

    def loss(self, module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        assert FailsOnce.computed is None or FailsOnce.computed() is None, "the first attempt still takes memory"
        loss = super().loss(module, inputs, labels)
        self._left -= 1
        if self._left < 0 and not self._mark.exists():
            self._mark.touch()
            FailsOnce.computed = weakref.ref(loss)
            raise self._error()
        return loss
