"""Studies of trials that take a second, and how to run them within a test or beside it."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from command_line import Finished, start
from optuna.trial import FrozenTrial

from fedbench.studies.file import StudyFile, parse_study
from fedbench.studies.run import StudyResult, sweep

SUPPORT = Path(__file__).parent
PATIENCE = 300.0
"""Seconds that a command may take."""

ACCURACY = {"metric": "best_accuracy", "direction": "maximize"}
BYTES = {"metric": "total_bytes", "direction": "minimize"}
BASE = [
    "rounds=2",
    "schedule=full",
    "data.clients=3",
    "data.samples_per_client=60",
    "model.width=2",
    "local.epochs=1",
    "tracking.enabled=false",
    "runtime.executor=inline",
]
LEARNING_RATE = {"type": "float", "low": 0.001, "high": 0.05, "log": True}


def study(**changes: Any) -> dict[str, Any]:
    """A study as a file has it: learning rates of a small run, drawn at random."""
    values: dict[str, Any] = {
        "name": "small",
        "base": "quickstart",
        "overrides": BASE,
        "space": {"local.optimizer.lr": LEARNING_RATE},
        "objectives": [ACCURACY],
        "sampler": {"name": "random", "seed": 0},
        "budget": {"trials": 4},
    }
    return values | changes


def written(folder: Path, **changes: Any) -> Path:
    """The same as a file."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(study(**changes)))
    return path


class Silent:
    """Keeps what it is told (an `Audience`)."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.lines: list[str] = []

    def study_started(self, file: StudyFile, directory: Path, done: int, slots: int) -> None:
        self.slots = slots

    def trial_finished(self, trial: FrozenTrial, best: list[FrozenTrial]) -> None:
        self.numbers.append(trial.number)

    def note(self, line: str) -> None:
        self.lines.append(line)


def run_study(audience: Silent | None = None, **changes: Any) -> StudyResult:
    """Run it here."""
    return sweep(parse_study(study(**changes)), audience or Silent())


def environment() -> dict[str, str]:
    """Of a `fedbench` command that takes this checkout's code."""
    return {"PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])}


class Commands:
    """`fedbench` commands in a folder, none of which outlives a test."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """
        Args:
            settings: environment variables.
        """
        self.folder = folder
        self._settings = environment() | settings
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = start(self.folder, *arguments, **self._settings)
        self._processes.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> Finished:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return Finished(process.returncode, stdout, stderr)

    def run(self, *arguments: str) -> Finished:
        return self.finish(self.start(*arguments))

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
