"""Ending processes with everything that they started (Linux)."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def kill_all(roots: Sequence[subprocess.Popen[bytes]], marks: Iterable[str], timeout: float = 20.0) -> None:
    """SIGKILL for process trees, and for every process that was started with one of the marks, until none is left.

    Args:
        roots: children of this process; none: nothing is done.
        marks: NAME=VALUE in the environment, by which processes are known that left the tree.
        timeout: seconds.

    Raises:
        TimeoutError: some would not end.
    """
    known = {process.pid: None for process in roots if process.poll() is None}
    entries = {mark.encode() for mark in marks}
    deadline = time.monotonic() + timeout
    quiet = 0
    while roots and quiet < 2:  # a process that was born meanwhile shows at the second look
        marked = [pid for pid in all_processes() if entries & set(environment_of(pid))]
        known |= dict.fromkeys([*descendants(known), *marked])
        living = [pid for pid in known if is_alive(pid)]
        for pid in living:  # parents first: a raylet that sees its agents die would tell the others
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in roots:
            process.poll()
        quiet = 0 if living else quiet + 1
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {living} would not end")
        time.sleep(0.05)


def all_processes() -> Iterator[int]:
    """Ids of all processes."""
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def environment_of(pid: int) -> list[bytes]:
    """NAME=VALUE as the process was started with; Ray's workers overwrite theirs with their title."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def status_of(pid: int) -> tuple[str, int] | None:
    """(state, parent) of a process, None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    status = status_of(pid)
    return status is not None and status[0] not in "ZX"


def descendants(roots: Iterable[int]) -> list[int]:
    """Children, then their children and so on."""
    children: dict[int, list[int]] = {}
    for pid in all_processes():
        if status := status_of(pid):
            children.setdefault(status[1], []).append(pid)
    found: list[int] = []
    generation = list(roots)
    while generation:
        generation = [child for pid in generation for child in children.get(pid, ()) if child not in found]
        found += generation
    return found


def heeded_signals() -> list[signal.Signals]:
    """The signals that end a program in order: Ctrl-C, SIGTERM, and the end of its terminal unless `nohup` is used."""
    hears_of_its_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hears_of_its_terminal else [])]


@contextmanager
def signals_later() -> Iterator[list[int]]:
    """Context in which `heeded_signals` only note that they have come, so that no process starts or stays unnoticed.

    What it starts is to be known to somebody who ends it before these signals are raised again. Outside the main
    thread, where no signal interrupts anything, nothing changes.

    Yields:
        Those that have come.
    """
    come: list[int] = []
    numbers = heeded_signals() if threading.current_thread() is threading.main_thread() else []
    handlers = {number: signal.signal(number, lambda number, frame: come.append(number)) for number in numbers}
    try:
        yield come
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
