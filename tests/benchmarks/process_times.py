"""When a command's lines came, and how much processor time it and all that it started took, seen from outside."""

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOOK_EVERY = 0.05
"""Seconds between two looks at the processes; what a process does after the last look is not counted."""

TICKS = os.sysconf("SC_CLK_TCK")

DAEMONS = (
    *("gcs_server", "raylet/raylet", "monitor.py", "dashboard", "ray::DashboardAgent", "ray::RuntimeEnvAgent"),
    *("idle_agent.py", "runtime_env/agent"),
)
"""Parts of the command lines of Ray's own processes."""


@dataclass
class Observed:
    """What was seen of a command.

    Attributes:
        lines: (seconds after the start, line) for each line of stdout and stderr.
        seconds: from the start to the end of the command.
        processor: seconds of a core, by kind of process: "driver", "Ray's daemons" or the name of an actor.
        first_seen: seconds after the start at which the first process of each kind was there.
        left: command lines of what still ran when the command had ended.
    """

    lines: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    processor: dict[str, float] = field(default_factory=dict)
    first_seen: dict[str, float] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def when(self, text: str) -> float:
        """Seconds after the start at which a line with `text` came."""
        return next(moment for moment, line in self.lines if text in line)


def observe(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Observed:
    """Run a command to its end and look at it, and at its descendants, every `LOOK_EVERY` seconds."""
    seen = Observed()
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    stream = process.stdout

    def read() -> None:
        seen.lines.extend((time.perf_counter() - began, line.rstrip()) for line in stream)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    family, latest = {process.pid}, dict[int, tuple[str, float]]()
    while process.poll() is None:
        now, table = time.perf_counter() - began, processes()
        while added := {pid for pid, (parent, *_) in table.items() if parent in family and pid not in family}:
            family |= added
        for pid in family & table.keys():
            _, used, line, _ = table[pid]
            if not line:  # it is ending: what it was is known
                continue
            kind = "driver" if pid == process.pid else kind_of(line)
            latest[pid] = kind, used
            seen.first_seen.setdefault(kind, now)
        time.sleep(LOOK_EVERY)
    seen.seconds = time.perf_counter() - began
    reader.join(5.0)
    table = processes()
    seen.left = [table[pid][2] for pid in family & table.keys() if table[pid][3] != "Z"]
    for kind, used in latest.values():
        seen.processor[kind] = seen.processor.get(kind, 0.0) + used
    return seen


def processes() -> dict[int, tuple[int, float, str, str]]:
    """{id: (parent's id, seconds of a core so far, command line, state)} of all processes of this machine."""
    table = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            line = (entry / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
        except OSError:  # it has just ended
            continue
        table[int(entry.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS, line, fields[0]
    return table


def kind_of(line: str) -> str:
    """What a descendant of the command is, by its command line."""
    if any(name in line for name in DAEMONS):
        return "Ray's daemons"
    return line.removeprefix("ray::").split()[0] if line.startswith("ray::") else "others"
