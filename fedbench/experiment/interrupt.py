"""Ctrl-C and SIGTERM: the first ends a run at the end of its round, the second at once."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

ECHO_SECONDS = 0.25
"""Seconds after a signal in which another one is taken for the same wish to end.

`timeout`, for one, sends SIGTERM to its child and then to the process group, of which the child is a part.
"""


class _Stop(threading.Event):
    """Set by the first signal.

    Attributes:
        number: the signal; None before it.
    """

    number: int | None = None


_open_stop: _Stop | None = None
"""The event of the `stop_signal` that is open in the main thread."""


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """While open, the first SIGINT or SIGTERM is remembered; a later one of either kind raises KeyboardInterrupt.

    So the process never ends before it is recorded how its run ended. A context that is opened within another is the
    same: a signal stops the run and what the run is part of. Outside the main thread, where signals cannot be caught,
    nothing changes.
    """
    global _open_stop
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    if _open_stop is not None:
        yield _open_stop.is_set
        return
    heeded = 0.0  # when a signal was heeded last, on `time.monotonic`'s clock

    def heed(number: int, frame: object) -> None:
        nonlocal heeded
        if stop.is_set() and time.monotonic() - heeded < ECHO_SECONDS:
            return
        heeded = time.monotonic()
        if stop.is_set():
            raise KeyboardInterrupt
        stop.number = number
        stop.set()

    previous = {number: signal.signal(number, heed) for number in SIGNALS}
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
            _open_stop.number = number
            _open_stop.set()

    previous = {number: signal.signal(number, pass_over) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class HeldSignal:
    """Called, says whether a signal has come that is yet to be delivered.

    Attributes:
        hint: a note to the KeyboardInterrupt that Ctrl-C then raises: how to go on.
    """

    hint = ""

    def __init__(self, has_come: Callable[[], bool]) -> None:
        self._has_come = has_come

    def __call__(self) -> bool:
        return self._has_come()


@contextmanager
def delivered_afterwards() -> Iterator[HeldSignal]:
    """Context in which the first SIGINT or SIGTERM is held back until what runs has ended at its round.

    It is delivered when the context ends, so that Ctrl-C raises KeyboardInterrupt in the calling code, which may be a
    loop over runs. Within another such context, or a `stop_signal`, that one delivers or heeds it.
    """
    is_inner = _open_stop is not None
    with ExitStack() as signals:
        has_come = signals.enter_context(stop_signal())
        stop, held = _open_stop, HeldSignal(has_come)
        try:
            yield held
        except KeyboardInterrupt:  # the second one
            raise
        except BaseException:
            signals.close()
            _deliver(stop, is_inner, held.hint)
            raise
        signals.close()
        _deliver(stop, is_inner, held.hint)


def _deliver(stop: _Stop | None, is_inner: bool, hint: str) -> None:
    if is_inner or stop is None or stop.number is None:
        return
    if threading.current_thread() is not threading.main_thread():
        return
    try:
        signal.raise_signal(stop.number)
    except KeyboardInterrupt as interrupt:
        if hint:
            interrupt.add_note(hint)
        raise
