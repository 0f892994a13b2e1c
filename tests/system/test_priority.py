"""A thread that steps back, or gives way, does so alone."""

import os
import sys
import threading

import pytest

from fedbench.system.priority import LEAST, NICENESS, give_way, step_back


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads have nice values of their own on Linux alone")
def test_a_thread_that_steps_back_leaves_the_others_as_they_are() -> None:
    values: list[int] = []

    def background() -> None:
        step_back()
        values.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=background)
    thread.start()
    thread.join()
    assert values == [max(NICENESS, before)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads have policies of their own on Linux alone")
def test_a_thread_that_gives_way_does_so_alone() -> None:
    found: list[tuple[int, int]] = []

    def background() -> None:
        give_way()
        found.append((os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), os.sched_getscheduler(0)))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), os.sched_getscheduler(0)
    thread = threading.Thread(target=background)
    thread.start()
    thread.join()
    assert found == [(LEAST, os.SCHED_IDLE)]
    assert (os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), os.sched_getscheduler(0)) == before
