"""A process that talks to MLflow for a run: it records what a thread would, loses nothing, and outlives no run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from samples import a_description, a_round, client_rows
from waiting import wait_until

from fedbench.records.run_directory import RunDirectory
from fedbench.system.processes import start_of, this_process
from fedbench.tracking import run as tracking_run
from fedbench.tracking.left_running import PROCESS_TAG
from fedbench.tracking.run import MlflowTracker
from fedbench.tracking.sending_process import SendingProcess
from fedbench.tracking.store import default_store

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="such processes are POSIX's")]

OF_ONE_RUN = {"fedbench.directory", "fedbench.recording", "mlflow.runName"}


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of the default store, which is there already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return MlflowClient(default_store())


@pytest.fixture
def process(store: MlflowClient) -> Iterator[SendingProcess]:
    started = SendingProcess(None)
    yield started
    started.close()


class Recorded:
    """A run that is recorded in a directory and by a tracker, round by round."""

    def __init__(self, directory: Path, process: SendingProcess | None, **settings: Any) -> None:
        self.directory = RunDirectory.create("demo", 3, directory, plots=False)
        self.tracker = MlflowTracker(tags={"team": "a"}, process=process, history=self.directory.history, **settings)
        self.observers = (self.directory, self.tracker)
        for observer in self.observers:
            observer.run_started(a_description(self.directory.path))

    def train(self, first: int, stop: int) -> None:
        for index in range(first, stop):
            for observer in self.observers:
                observer.round_finished(a_round(index), client_rows(index))

    def finish(self) -> None:
        for observer in self.observers:
            observer.run_finished({"status": "finished", "best_accuracy": 0.775})


def content(store: MlflowClient, recorded: Recorded) -> dict[str, Any]:
    """What the store has of a run, but for what two runs never have in common."""
    assert recorded.tracker.run_id is not None
    run = store.get_run(recorded.tracker.run_id)
    points = {
        name: [(point.step, point.value) for point in store.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    tags = {name: value for name, value in run.data.tags.items() if name not in OF_ONE_RUN}
    files = sorted(file.path for file in store.list_artifacts(run.info.run_id))
    inputs = [(given.dataset.name, given.dataset.profile) for given in run.inputs.dataset_inputs]
    return {"status": run.info.status, "points": points, "params": run.data.params, "tags": tags, "files": files,
            "inputs": inputs}  # fmt: skip


def test_a_process_records_what_a_thread_records(store: MlflowClient, process: SendingProcess, tmp_path: Path) -> None:
    began = time.time_ns() // 1_000_000
    recorded = Recorded(tmp_path / "process", process)
    recorded.train(0, 3)
    ended = time.time_ns() // 1_000_000
    assert process.is_loaded(240.0)
    for number in (signal.SIGINT, signal.SIGTERM):  # as a terminal and a batch system send them to all processes
        os.kill(process.pid, number)
    recorded.finish()
    assert recorded.tracker.warning is None
    assert recorded.tracker.ui_command() == "mlflow ui"

    by_thread = Recorded(tmp_path / "thread", None)
    by_thread.train(0, 3)
    by_thread.finish()
    found = content(store, recorded)
    assert found == content(store, by_thread)
    assert found["tags"][PROCESS_TAG] == this_process()
    assert [step for step, _ in found["points"]["train/loss"]] == [1, 2, 3]
    run = store.get_run(recorded.tracker.run_id)
    assert began <= run.info.start_time <= ended <= run.info.end_time
    points = store.get_metric_history(recorded.tracker.run_id, "train/loss")
    assert all(began <= point.timestamp <= ended for point in points), "when the round ended, not when it was sent"


def test_what_a_process_that_was_killed_has_not_sent_arrives_once(
    store: MlflowClient, process: SendingProcess, tmp_path: Path
) -> None:
    recorded = Recorded(tmp_path / "run", process)
    recorded.train(0, 3)

    def has_two_rounds() -> bool:
        runs = store.search_runs([experiment.experiment_id for experiment in store.search_experiments()])
        return any(run.data.metrics.get("compute/tflop", 0) >= 4 for run in runs)

    wait_until(has_two_rounds, "nothing was sent")
    os.kill(process.pid, signal.SIGKILL)
    recorded.train(3, 6)
    recorded.finish()
    assert recorded.tracker.warning is None
    found = content(store, recorded)
    assert found["status"] == "FINISHED"
    assert found["points"]["train/loss"] == [(index + 1, 2.0 / (index + 1)) for index in range(6)]
    assert found["points"]["comm/downlink_mb"] == [(index + 1, 3.0 * (index + 1)) for index in range(6)]
    assert len(store.search_runs([store.get_run(recorded.tracker.run_id).info.experiment_id])) == 1


def test_a_process_that_gets_no_time_is_not_waited_for_and_nothing_is_lost(
    store: MlflowClient, process: SendingProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    monkeypatch.setattr(tracking_run, "LOADING_TIMEOUT", 0.2)
    recorded = Recorded(tmp_path / "run", process)
    recorded.train(0, 3)
    recorded.finish()
    assert recorded.tracker.warning is None
    assert start_of(process.pid) is None
    assert [step for step, _ in content(store, recorded)["points"]["train/loss"]] == [1, 2, 3]


def test_a_store_that_is_away_is_told_of_in_a_bounded_time(process: SendingProcess, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "run", process, mlflow_uri="http://127.0.0.1:9", away_timeout=0.2)
    assert process.is_loaded(240.0)
    began = time.monotonic()
    recorded.train(0, 3)
    assert time.monotonic() - began < 20
    recorded.finish()
    assert time.monotonic() - began < 30
    warning = str(recorded.tracker.warning)
    assert warning.startswith("MLflow did not get anything of the run (")
    assert warning.endswith(f"everything is in {recorded.directory.path}")
    assert recorded.tracker.ui_command() is None


DRIVER = """
import os, time
from fedbench.tracking.sending_process import SendingProcess
process = SendingProcess("sqlite:///mlflow.db")
name, number = ("sender", process.pid) if os.fork() else ("forked", os.getpid())
os.write(1, f"{name} {number}\\n".encode())
time.sleep(300)
"""
"""A run that has forked, so that another process holds its end of the connection, too."""


def test_a_process_ends_when_the_run_is_killed(tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    numbers = dict(driver.stdout.readline().split() for _ in range(2))
    sender, forked = int(numbers["sender"]), int(numbers["forked"])
    try:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        wait_until(lambda: start_of(sender) is None, "it goes on")
        assert start_of(forked) is not None
    finally:
        os.kill(forked, signal.SIGKILL)
        driver.stdout.close()
    assert list(tmp_path.iterdir()) == [], "nothing is opened before the run has begun"


def test_a_process_of_many_runs_has_one_for_the_first_alone(tmp_path: Path) -> None:
    code = """
import sys
from fedbench.tracking.sending_process import sending_process
for _ in range(3):
    with sending_process(None) as process:
        print(process is not None)
sys.exit("mlflow" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (ended.stdout.split(), ended.stderr) == (["True", "False", "False"], "")
    assert list(tmp_path.iterdir()) == []
