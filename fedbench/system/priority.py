"""Work in the background that leaves the cores to what is waited for."""

import os
import sys
import threading
from contextlib import suppress

NICENESS = 10
"""The nice value of a thread that has stepped back; on a core that somebody else wants, it gets a tenth."""

LEAST = 19
"""The largest nice value that there is."""


def give_way() -> None:
    """Have what the calling thread does, and what it will start, wait for everybody else on this machine, for good.

    On Linux it then has what others leave of the cores; elsewhere a core that somebody else wants is shared.
    """
    with suppress(OSError):
        os.nice(LEAST)
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def step_back() -> None:
    """Lower the priority of the calling thread, and of the threads and processes that it will start, for good.

    On Linux alone: there a thread has a nice value of its own. A thread that has stepped back further stays there.
    """
    if not sys.platform.startswith("linux"):
        return
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
