"""Interrupting a command that is carried out in the test's own process."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def interrupted_after(happens: Callable[[], None]) -> Iterator[None]:
    """Interrupt the command that is called within, as Ctrl-C does, once `happens` has returned in a thread beside it.

    A command that has ended before takes no harm, and neither does the test.
    """

    def happen_and_interrupt() -> None:
        try:
            happens()
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        with ThreadPoolExecutor(1) as beside:
            happening = beside.submit(happen_and_interrupt)
            yield
        happening.result()
    finally:
        signal.signal(signal.SIGINT, before)
