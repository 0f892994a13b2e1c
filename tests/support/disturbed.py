"""Runs on a cluster of real processes, to which something happens at a chosen round."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import WITHOUT_FIGURES
from local_cluster import MARK, LocalCluster
from process_trees import all_processes, descendants, environment_of, is_alive

from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.run import run

PRESET = "fedavg-digits"
SMALL = (
    "data.dataset=digits", "data.clients=6", "data.samples_per_client=20", "model.width=4", "local.batch_size=10",
    "name=small",
)  # fmt: skip

UNTRACKED = "tracking.enabled=false"
SGD = ("local.optimizer=sgd", "local.optimizer.lr=0.05")


def undisturbed(folder: Path, *overrides: str) -> dict[str, object]:
    """The summary of the undisturbed run."""
    config = ExperimentConfig.load(
        PRESET,
        [*SMALL, *overrides, UNTRACKED, "runtime.executor=inline", f"output.directory={folder / 'undisturbed'}"],
    )
    return run(config).summary


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        summary: as printed; {} when none was.
        lines: of stderr.
    """

    status: int
    summary: dict[str, Any]
    lines: list[str]

    @property
    def text(self) -> str:
        return "".join(self.lines)


def fedbench_run(
    folder: Path,
    environment: Mapping[str, str],
    *overrides: str,
    events: Mapping[int, Callable[[], object]] | None = None,
    standing_still: Collection[int] = (),
) -> Outcome:
    """`fedbench run` in a process of its own.

    Args:
        folder: working directory.
        events: {round, from 1: what happens once that round is seen to have ended}.
        standing_still: rounds at whose events the run waits until they are over, however long they take.
    """
    command = [*WITHOUT_FIGURES, "run", PRESET, *overrides, "--json"]
    to_come = dict(events or {})
    with (folder / "stdout").open("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdout=output, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        lines = []
        try:
            for line in process.stderr:
                lines.append(line)
                if not line.startswith("round "):
                    continue
                number = int(line.split()[1].split("/")[0])
                if (happens := to_come.pop(number, None)) is None:
                    continue
                if number in standing_still:
                    process.send_signal(signal.SIGSTOP)
                happens()
                process.send_signal(signal.SIGCONT)
            status = process.wait()
        finally:
            process.kill()
        output.seek(0)
        text = output.read()
    assert not to_come, f"rounds {sorted(to_come)} were not seen:\n{''.join(lines)}"
    return Outcome(status, json.loads(text) if text.strip() else {}, lines)


def actors(cluster: LocalCluster, title: str, node: int | None = None) -> list[int]:
    """Ids of the processes of actors whose title begins so, on one node or on all that live."""
    nodes = [found for found in cluster.nodes if not found.killed and node in (None, found.index)]
    return [pid for pid in descendants([found.process.pid for found in nodes]) if title_of(pid).startswith(title)]


def marked_by(mark: str) -> list[int]:
    """Ids of the processes that live and were started for the node with this mark."""
    entry = f"{MARK}={mark}".encode()
    return [pid for pid in all_processes() if entry in environment_of(pid) and is_alive(pid)]


def title_of(pid: int) -> str:
    """As Ray sets it: ray::CLASS, with .METHOD while it works."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def kill_at_work(cluster: LocalCluster, title: str, seconds: float = 60.0) -> None:
    """SIGKILL for one process of such a title, as soon as there is one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for pid in sorted(actors(cluster, title)):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
                return
    raise AssertionError(f"no process was seen to be {title}")
