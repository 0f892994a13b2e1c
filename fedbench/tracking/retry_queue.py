"""Ordered delivery to a store that may be away: one background thread, which tries again until it is taken."""

import threading
import time
from collections import deque
from collections.abc import Callable

from fedbench.config.passwords import without_passwords
from fedbench.system.priority import step_back

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class Delivery:
    """Runs operations one after the other in a daemon thread, each until it succeeds.

    An operation leaves the queue only when it has returned, or when its error says that it never will: then it
    is noted in `refused` and the next one is tried. Any other error means that the store is away; the
    operation is tried again, after pauses of 0.5 s, doubling up to 30 s. An operation may thus run twice though
    its first run had an effect (the answer was lost): whoever submits it sees to it that this does no harm.

    Attributes:
        refused: one line for each operation that was given up.
        last_error: one line on why the store was last found to be away, or None.
    """

    def __init__(self, name: str, is_final: Callable[[Exception], bool]) -> None:
        """Make a delivery that has not begun.

        Args:
            name: of the thread.
            is_final: whether an operation that raised this will never succeed. Called in the thread.
        """
        self.refused: list[str] = []
        self.last_error: str | None = None
        self._is_final = is_final
        self._queue: deque[tuple[Callable[[], None], bool]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._abandoned = False
        self._away_since: float | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin with what was submitted so far; once it has begun, nothing more."""
        if self._thread.ident is None:
            self._thread.start()

    def submit(self, operation: Callable[[], None], essential: bool = False) -> None:
        """Queue an operation; returns at once.

        Args:
            operation: is called in the thread.
            essential: without it nothing after it makes sense: if it is refused, so is all the rest.
        """
        with self._changed:
            if self._abandoned:
                return
            self._queue.append((operation, essential))
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """For operations: wait, but not once `finish` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def finish(self, timeout: float, away_timeout: float) -> bool:
        """Wait until all is delivered, then end the thread; what is left is dropped.

        Args:
            timeout: seconds to wait at most.
            away_timeout: seconds to wait at most for a store that is known to be away.

        Returns:
            Whether everything was delivered or refused.
        """
        begun = time.monotonic()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._queue:
                deadline = begun + timeout
                if self._away_since is not None:
                    deadline = min(deadline, max(begun, self._away_since) + away_timeout)
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._abandoned = True
            self._changed.notify_all()
            return not self._queue

    def _work(self) -> None:
        step_back()  # clients that train on this machine go first
        failures = 0
        while (entry := self._next()) is not None:
            operation, essential = entry
            try:
                operation()
            except Exception as error:
                line = without_passwords(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
                if not self._is_final(error):
                    self._store_is_away(line, failures)
                    failures += 1
                    continue
                self.refused.append(line)
                self._done(drop_all=essential)
            else:
                self._done(drop_all=False)
            failures = 0

    def _next(self) -> tuple[Callable[[], None], bool] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return self._queue[0] if self._queue and not self._abandoned else None

    def _done(self, drop_all: bool) -> None:
        with self._changed:
            self._away_since = None
            if drop_all:
                self._queue.clear()
                self._abandoned = True
            else:
                self._queue.popleft()
            self._changed.notify_all()

    def _store_is_away(self, line: str, failures: int) -> None:
        with self._changed:
            self.last_error = line
            if self._away_since is None:
                self._away_since = time.monotonic()
            self._changed.notify_all()
            if self._closing:  # `finish` waits: try often, it will not be for long
                self._changed.wait_for(lambda: self._abandoned, FIRST_PAUSE)
            else:
                self._changed.wait_for(lambda: self._closing, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)))
