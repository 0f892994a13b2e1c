"""Arithmetic in one thread, whose result does not depend on the number of cores."""

from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import ThreadpoolController


class OneThread:
    """Has NumPy's linear algebra, and what else computes in threads of its own, compute in one thread for a while.

    A BLAS splits large scalar products and matrix products over as many threads as there are cores, and adds the parts
    up: the last bit depends on their number.
    """

    def __init__(self) -> None:
        """Look for the libraries that this process has loaded by now."""
        self._controller = ThreadpoolController()

    def __call__(self) -> AbstractContextManager[Any]:
        """The context in which they use one thread; it takes some microseconds."""
        limit: AbstractContextManager[Any] = self._controller.limit(limits=1)
        return limit
