"""Interrupting a command that is carried out in the test's own process."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def interrupted_after(happens: Callable[[], None], number: int = signal.SIGINT) -> Iterator[None]:
    """Send a signal to the command that is called within once `happens` has returned in a thread beside it.

    A command that has ended before takes no harm, and neither does the test.

    Args:
        number: of the signal, by default that of Ctrl-C.
    """

    def happen_and_interrupt() -> None:
        try:
            happens()
        finally:
            os.kill(os.getpid(), number)

    before = signal.signal(number, lambda number, frame: None)
    try:
        with ThreadPoolExecutor(1) as beside:
            happening = beside.submit(happen_and_interrupt)
            yield
        happening.result()
    finally:
        signal.signal(number, before)
