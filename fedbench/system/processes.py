"""Tells whether a process that noted down who it is has ended."""

import os
import socket
from pathlib import Path


def this_process() -> str:
    """What identifies this process for ever: its machine, its space of process ids, its id, and when it began.

    A name of a machine and an id alone would not do: containers share names, and ids are given out again.
    """
    return f"{socket.gethostname()} {_space()} {os.getpid()} {start_of(os.getpid())}"


def has_ended(identity: str) -> bool:
    """Whether the process with this identity, as `this_process` gave it, is known to have ended.

    False where that cannot be told, as of another machine's processes.
    """
    host, _, rest = identity.partition(" ")
    space, _, rest = rest.partition(" ")
    number, _, start = rest.partition(" ")
    if (host, space) != (socket.gethostname(), _space()) or not (number.isascii() and number.isdecimal()):
        return False
    return start_of(int(number)) != start


def start_of(pid: int) -> str | None:
    """When a process of this machine began, in the system's own terms; None if there is none.

    A number alone does not do: the system gives it out again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        pass
    else:
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    if Path("/proc/self/stat").exists():
        return None
    try:  # no /proc on this system: that it is there must do
        os.kill(pid, 0)
    except OSError:
        return None
    return ""


def _space() -> str:
    """The space in which this machine's process ids are unique, of which each container has its own."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"
