"""Waiting for what other processes and threads do, as long as a busy machine may need."""

import time
from collections.abc import Callable

PATIENCE = 240.0
"""Seconds; only a test that fails waits so long."""


def wait_until(met: Callable[[], bool], what: str) -> None:
    """Look again and again.

    Args:
        what: is wrong if it is never met.
    """
    end = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < end, what
        time.sleep(0.1)
