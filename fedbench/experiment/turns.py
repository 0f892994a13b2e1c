"""Runs of several threads of one process, which take turns."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_EVERY = 0.1
"""Seconds between two looks at whether the user has interrupted."""

_running = threading.RLock()
"""Held by the thread that runs an experiment."""


@contextmanager
def its_turn(interrupted: Callable[[], bool], announce: Callable[[str], None] | None = None) -> Iterator[None]:
    """The context of a run, of which a process has one at a time: those of other threads wait until it has ended.

    The global random generators, from which models and foreign parts draw, belong to the process, as do PyTorch's
    settings and the number of threads of linear algebra: runs beside each other would get other models.

    Args:
        interrupted: whether the user wants nothing of it any more.
        announce: told in one line if it has to wait.

    Raises:
        KeyboardInterrupt: the user has interrupted while it waited.
    """
    if not _running.acquire(blocking=False):
        if announce is not None:
            announce("waiting for the run of another thread: a process runs one experiment at a time")
        while not _running.acquire(timeout=LOOK_EVERY):
            if interrupted():
                raise KeyboardInterrupt("before a round began; nothing was recorded")
    try:
        yield
    finally:
        _running.release()
