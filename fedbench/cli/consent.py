"""Asks on a terminal before a run that needs more work than `runtime.max_tflop` allows; elsewhere it is refused."""

import sys
from collections.abc import Callable
from typing import TypeVar

from fedbench.errors import TooCostly

T = TypeVar("T")


def with_consent(start: Callable[[list[str]], T]) -> T:
    """Start a run; where it is too costly, ask, and start it again with a limit that allows it.

    Args:
        start: takes further dotted overrides, runs, and gives the result.

    Raises:
        TooCostly: there is nobody to ask, or the answer is not yes.
    """
    try:
        return start([])
    except TooCostly as error:
        question = f"This run needs about {error.tflop:.3g} TFLOP, more than runtime.max_tflop={error.most:g}: go on?"
        if not _asks(question):
            raise
        allowed = error.tflop
    return start([f"runtime.max_tflop={allowed!r}"])


def _asks(question: str) -> bool:
    """Whether there is a terminal, and somebody there answers yes."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
