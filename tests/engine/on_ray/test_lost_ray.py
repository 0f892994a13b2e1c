"""A local Ray whose own processes are killed: amid a run that is its failure, after its last round it is nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedbench.records.reader import load_run

PROGRAM = """
import sys

import ray

from fedbench.cli import terminal
from fedbench.cli.app import main
from fedbench.records import plots

plots.save_figures = lambda *arguments: None
kind, fatal = sys.argv.pop(1), int(sys.argv.pop(1))
show = terminal.Progress.round_finished

def round_finished(self, record, clients):
    show(self, record, clients)
    if record.round + 1 == fatal:
        process = ray._private.worker._global_node.all_processes[kind][0].process
        process.kill()
        process.wait()

terminal.Progress.round_finished = round_finished
main()
"""
"""`fedbench`, where one of Ray's processes, by its kind, is killed once a round, by its number from 1, is recorded."""

ROUNDS = 3
SMALL = (
    "run", "fedavg-digits", f"rounds={ROUNDS}", "runtime.actors=1", "data.clients=2", "model.width=8",
    "tracking.enabled=false", "output.directory=run",
)  # fmt: skip


def run_and_kill(kind: str, after: int, folder: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    """Run `SMALL` in a folder; one of Ray's processes is killed after so many rounds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(after), *SMALL, *overrides],
        cwd=folder,
        env=environment | {"RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_run_whose_ray_is_killed_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    ended = run_and_kill("raylet", 1, tmp_path, "rounds=3000")  # actors outlive it by a second or so
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    *before, error, go_on = ended.stderr.splitlines()
    assert error.startswith("error: Ray's daemon of this machine (raylet) has ended: nothing answers at ")
    assert go_on == f"go on with: fedbench resume {tmp_path / 'run'}"
    assert all(line.startswith(("starting ", "fedavg, ", "round ")) for line in before), "nothing of Ray's own"
    summary = load_run(tmp_path / "run")[3]
    assert (summary["status"], summary["error"]) == ("failed", error.removeprefix("error: "))


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["gcs_server", "raylet"])
def test_what_befalls_ray_after_the_last_round_changes_nothing(kind: str, tmp_path: Path) -> None:
    began = time.monotonic()
    ended = run_and_kill(kind, ROUNDS, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - began < 100
    assert ended.stderr.splitlines()[-1].startswith(f"round {ROUNDS}/{ROUNDS}"), "nothing of Ray's own"
    _, rounds, _, summary = load_run(tmp_path / "run")
    assert (rounds.num_rows, summary["status"]) == (ROUNDS, "finished")
    assert (tmp_path / "run" / "model.safetensors").is_file()
