"""Arithmetic in one thread, whose result does not depend on the number of cores."""

import sys
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController


class OneThread:
    """Has NumPy's linear algebra, and what else computes in threads of its own, compute in one thread for a while.

    A BLAS splits large scalar products and matrix products over as many threads as there are cores, and adds the parts
    up: the last bit depends on their number.
    """

    def __init__(self) -> None:
        """Look for the libraries that this process has loaded by now."""
        self._controller = _controller(len(sys.modules))

    def __call__(self) -> AbstractContextManager[Any]:
        """The context in which they use one thread; it takes some microseconds."""
        limit: AbstractContextManager[Any] = self._controller.limit(limits=1)
        return limit


@lru_cache(maxsize=1)
def _controller(modules: int) -> ThreadpoolController:
    """The libraries that this process has loaded, which takes milliseconds to find out.

    Args:
        modules: how many Python modules it has imported: libraries that compute in threads are loaded by imports.
    """
    return ThreadpoolController()
