"""Work in the background that leaves the cores to what is waited for."""

import os
import sys
import threading
from contextlib import suppress

NICENESS = 10
"""The nice value of a thread that has stepped back; on a core that somebody else wants, it gets a tenth."""


def step_back() -> None:
    """Lower the priority of the calling thread, and of the threads and processes that it will start, for good.

    On Linux alone: there a thread has a nice value of its own. A thread that has stepped back further stays there.
    """
    if not sys.platform.startswith("linux"):
        return
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
