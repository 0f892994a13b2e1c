"""Runs from Python: silent unless asked, told of as asked, and the process is afterwards as it was before."""

import importlib
import logging
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedbench
from fedbench import ExperimentConfig, FedbenchError
from fedbench.records.observers import RunDescription
from fedbench.records.schema import ClientRecord, RoundRecord

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")

TINY = {
    "rounds": 3,
    "data": {"clients": 3, "samples_per_client": 40},
    "model.width": 2,
    "local.epochs": 1,
    "schedule": "full",
    "runtime.executor": "inline",
    "tracking.enabled": False,
}


def tiny(**changes: Any) -> ExperimentConfig:
    return ExperimentConfig.load("quickstart", TINY | changes)


def state_of_the_process() -> dict[str, Any]:
    """What a library that is called should leave alone."""
    root = logging.getLogger()
    return {
        "working directory": os.getcwd(),
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "search path": list(sys.path),
        "finders": [finder for finder in sys.meta_path if type(finder).__module__.startswith("fedbench")],
        "streams": (sys.stdout, sys.stderr),
        "hooks": (sys.excepthook, sys.displayhook, sys.unraisablehook),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "logging": (root.level, list(root.handlers), logging.root.manager.disable),
        "loggers": {name: logging.getLogger(name).level for name in ("mlflow", "optuna", "ray", "matplotlib")},
        "Python's generator": random.getstate(),
        "NumPy's generator": str(np.random.get_state()),
        "PyTorch's generator": torch.random.get_rng_state().tolist(),
        "PyTorch's threads": torch.get_num_threads(),
        "PyTorch's modes": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_float32_matmul_precision()),
        "deterministic kernels": torch.are_deterministic_algorithms_enabled(),
        "NumPy's errors": np.geterr(),
    }


@pytest.mark.slow
def test_a_run_leaves_the_process_as_it_was_and_prints_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        fedbench.run(tiny(**{"rounds": 1}))  # libraries that are loaded for the first time register themselves
        importlib.import_module("mlflow")
        before = state_of_the_process()
        capfd.readouterr()
        result = fedbench.run(tiny(**{"rounds": 1, "tracking.enabled": True}))
        assert capfd.readouterr() == ("", "")
        assert state_of_the_process() == before
        assert result.ui_command is not None
        with pytest.raises(FedbenchError):
            fedbench.run(tiny(**{"model": "cnn-bn", "local.optimizer.lr": 1e30}))
        assert capfd.readouterr() == ("", "")
        assert state_of_the_process() == before
    finally:
        torch.set_num_threads(threads)


def test_true_shows_the_lines_of_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    fedbench.run(tiny(), progress=True)
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert [line.split("  ")[0] for line in stderr.splitlines() if line.startswith("round")] == [
        "round 1/3",
        "round 2/3",
        "round 3/3",
    ]


def test_a_function_gets_each_round_as_the_table_has_it() -> None:
    rows: list[dict[str, Any]] = []
    result = fedbench.run(tiny(), progress=rows.append)
    assert rows == result.history.to_pylist()


class Recorder:
    def __init__(self) -> None:
        self.told: list[str] = []

    def run_started(self, run: RunDescription) -> None:
        self.told.append(f"{run.rounds} rounds")

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        self.told.append(f"round {record.round} of {len(clients)} clients")

    def run_finished(self, summary: dict[str, Any]) -> None:
        self.told.append(summary["status"])


def test_an_observer_is_told_of_beginning_rounds_and_end() -> None:
    recorder = Recorder()
    fedbench.run(tiny(rounds=2), progress=recorder)
    assert recorder.told == ["2 rounds", "round 0 of 3 clients", "round 1 of 3 clients", "finished"]


@pytest.mark.parametrize("progress", [3, "yes", Recorder, ()])
def test_what_is_no_progress_is_refused_before_anything_is_recorded(progress: Any, run_folder: Path) -> None:
    with pytest.raises(FedbenchError, match="must be True, False, None or a function"):
        fedbench.run(tiny(), progress=progress)
    assert not list(run_folder.iterdir())


def send(number: int, at_round: int) -> Any:
    """A progress function that sends this process a signal in one round."""

    def take(row: dict[str, Any]) -> None:
        if row["round"] == at_round:
            os.kill(os.getpid(), number)

    return take


@pytest.mark.usefixtures("ctrl_c_heeded")
def test_ctrl_c_ends_the_round_and_the_loop_around_the_run() -> None:
    begun, whole = [], fedbench.run(tiny())

    def loop() -> None:
        for seed in range(3):
            begun.append(seed)
            fedbench.run(tiny(), progress=send(signal.SIGINT, at_round=1))

    with pytest.raises(KeyboardInterrupt) as caught:
        loop()
    assert begun == [0]
    (note,) = caught.value.__notes__
    assert note.startswith("go on with: fedbench.resume('")
    directory = note.partition("'")[2].rstrip("')")
    resumed = fedbench.resume(directory)
    assert resumed.summary["model_sha256"] == whole.summary["model_sha256"]
    assert resumed.frame()["round"].tolist() == [0, 1, 2]


def test_sigterm_comes_through_after_the_round() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        result = fedbench.run(tiny(), progress=send(signal.SIGTERM, at_round=0))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (result.summary["status"], result.history.num_rows) == ("interrupted", 1)
    assert received == [signal.SIGTERM]


def test_a_run_stops_where_its_caller_says_and_goes_on() -> None:
    rows: list[dict[str, Any]] = []
    stopped = fedbench.run(tiny(), progress=rows.append, should_stop=lambda: len(rows) == 2)
    assert (stopped.summary["status"], stopped.history.num_rows) == ("interrupted", 2)
    resumed = fedbench.resume(stopped.directory, progress=rows.append)
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert resumed.summary["model_sha256"] == fedbench.run(tiny()).summary["model_sha256"]
