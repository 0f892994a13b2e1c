"""Data and model made ready in a thread of their own, beside the start of Ray; an interrupt gives them up at once."""

import ctypes
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")

LOOK_EVERY = 0.1
"""Seconds between two looks at whether the user has interrupted."""

SHORT = 0.01
"""Seconds between two looks at whether an import has ended."""

CLEAN_UP = 10.0
"""Seconds that what was given up has to clean up, before it is told again."""


class Preparation(Generic[T]):
    """What is being made ready; as a context manager it has ended when the context ends, however that was."""

    def __init__(self, prepare: Callable[[], T], should_stop: Callable[[], bool]) -> None:
        """Begin.

        Args:
            prepare: makes it.
            should_stop: whether the user has interrupted.
        """
        self._prepared: Future[T] = Future()
        self._should_stop = should_stop
        self._thread = threading.Thread(target=self._run, args=(prepare,), name="preparation")
        self._thread.start()

    def _run(self, prepare: Callable[[], T]) -> None:
        try:
            self._prepared.set_result(prepare())
        except BaseException as error:
            self._prepared.set_exception(error)

    def is_done(self, timeout: float) -> bool:
        """Whether it has ended, well or not, within `timeout` seconds.

        Raises:
            KeyboardInterrupt: the user has interrupted.
        """
        while timeout > 0 and not self._prepared.done():
            self.check_wanted()
            self._thread.join(min(timeout, LOOK_EVERY))
            timeout -= LOOK_EVERY
        return self._prepared.done()

    def result(self) -> T:
        """Wait until it is ready; raises what its making has raised.

        Raises:
            KeyboardInterrupt: the user has interrupted.
        """
        while not self.is_done(timeout=60.0):
            pass
        self.check_wanted()
        return self._prepared.result()

    def check_wanted(self) -> None:
        """Check that the user has not interrupted.

        Raises:
            KeyboardInterrupt: the user has.
        """
        if self._should_stop():
            raise KeyboardInterrupt("before a round began; nothing was recorded")

    def __enter__(self) -> "Preparation[T]":
        return self

    def __exit__(self, *exception: object) -> None:
        """Have the thread raise KeyboardInterrupt at its next line of Python, if it is still at work, and wait for it.

        It cleans up as after any exception; what it is doing in a library comes to its end first, as does an import: a
        package that was imported by half cannot be imported again.
        """
        while self._thread.is_alive():
            if self._is_importing():
                self._thread.join(SHORT)
                continue
            thread = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(KeyboardInterrupt))
            self._thread.join(CLEAN_UP)

    def _is_importing(self) -> bool:
        """Whether the thread is importing a module."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                return True
            frame = frame.f_back
        return False
