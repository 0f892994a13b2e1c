"""Ctrl-C and SIGTERM: the first ends a run at the end of its round, the second works as always."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_open_stop: threading.Event | None = None
"""The event of the `stop_signal` that is open in the main thread."""


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """While open, the first SIGINT or SIGTERM is remembered instead of raised; the second works as always.

    One that is opened within another is the same: a signal stops the run and what the run is part of. Outside the main
    thread, where signals cannot be caught, nothing changes.
    """
    global _open_stop
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    if _open_stop is not None:
        yield _open_stop.is_set
        return

    def remember(number: int, frame: object) -> None:
        stop.set()
        for known, handler in previous.items():
            signal.signal(known, handler)

    previous = {number: signal.signal(number, remember) for number in SIGNALS}
    _open_stop = stop
    try:
        yield stop.is_set
    finally:
        _open_stop = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """While open, SIGINT and SIGTERM do nothing: for the seconds in which it is recorded how something has ended.

    Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_over(number: int, frame: object) -> None:
        if _open_stop is not None:
            _open_stop.set()

    previous = {number: signal.signal(number, pass_over) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
