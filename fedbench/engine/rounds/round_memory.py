"""The vectors that a server needs anew in each round, in memory that stays with it."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fedbench.protocol.exact_sum import FixedPoint
from fedbench.protocol.layout import Vector

Value = TypeVar("Value", bound=np.generic)


class RoundMemory:
    """Memory of a round's vectors, which the next round uses again.

    Vectors of more than 32 MiB come from the kernel afresh whenever they are made, and it clears each of their pages at
    the first use. That takes longer than to compute what goes into them (`tests/benchmarks/test_sum_cost.py`).
    """

    def __init__(self) -> None:
        self._total: FixedPoint = np.empty(0, np.int64)
        self._reference: Vector = np.empty(0, np.float32)
        self._result: Vector = np.empty(0, np.float32)

    def total(self, size: int) -> FixedPoint:
        """int64 [size], zeros: the round's exact sum."""
        self._total = _at_least(self._total, size)
        total = self._total[:size]
        total.fill(0)
        return total

    def reference(self, size: int) -> Vector:
        """float32 [size] of any values, for the global values of what is summed."""
        self._reference = _at_least(self._reference, size)
        return self._reference[:size]

    def result(self, size: int) -> Vector:
        """float32 [size] of any values, for the new global values; valid until the next call."""
        self._result = _at_least(self._result, size)
        return self._result[:size]


def _at_least(memory: npt.NDArray[Value], size: int) -> npt.NDArray[Value]:
    return memory if len(memory) >= size else np.empty(size, memory.dtype)
