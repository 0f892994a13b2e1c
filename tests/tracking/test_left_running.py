"""Runs whose process was killed: MLflow shows them as running until the experiment is opened again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from samples import a_description

from fedbench.records.run_directory import RunDirectory
from fedbench.system.processes import has_ended, this_process
from fedbench.tracking.left_running import PROCESS_TAG
from fedbench.tracking.mlflow_run import MlflowRun
from fedbench.tracking.recording_key import keep_key, key_file
from fedbench.tracking.store import DIRECTORY_TAG, default_store, open_store


@pytest.fixture(scope="module")
def ended_process() -> str:
    """The identity of a process that has ended."""
    program = "from fedbench.system.processes import this_process; print(this_process(), end='')"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of a store that `MlflowRun` opens by default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return MlflowClient(default_store())


def left_by(store: MlflowClient, key: str, process: str | None, directory: Path | None = None) -> str:
    """Id of a run in MLflow that says that it is running, recorded by a process, with one metric of 1970."""
    _, experiment = open_store(default_store(), "fedbench")
    tags = {"fedbench.recording": key, PROCESS_TAG: process, DIRECTORY_TAG: directory}
    run = store.create_run(experiment, 1000, {name: str(value) for name, value in tags.items() if value is not None})
    store.log_metric(run.info.run_id, "train/loss", 1.0, timestamp=5000, step=1)
    return str(run.info.run_id)


def open_another(store: MlflowClient, key: str = "another") -> Any:
    """Record a further run in the experiment, to its end; returns it."""
    recording = MlflowRun(None, "fedbench", key)
    recording.open("another", {})
    assert recording.close("finished", 9000, 60.0, 5.0) is None
    return store.get_run(recording.run_id)


def recorded(directory: Path, key: str, status: str) -> Path:
    """A run directory with that status, and with the key of its recording."""
    run = RunDirectory.create("demo", 3, directory, plots=False)
    run.run_started(a_description(run.path))
    if status != "running":
        run.run_finished({"status": status})
    keep_key(key_file(run.path), key)
    return run.path


def test_a_run_whose_process_was_killed_is_marked_when_the_experiment_is_opened_again(
    store: MlflowClient, ended_process: str
) -> None:
    killed, alive = left_by(store, "killed", ended_process), left_by(store, "alive", this_process())
    elsewhere, unknown = left_by(store, "elsewhere", f"not-{ended_process}"), left_by(store, "unknown", None)
    assert open_another(store).info.status == "FINISHED"
    info = store.get_run(killed).info
    assert (info.status, info.end_time) == ("KILLED", 5000), "when it was heard of last"
    assert {store.get_run(run).info.status for run in (alive, elsewhere, unknown)} == {"RUNNING"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "shown"), [("running", "KILLED"), ("finished", "FINISHED"), ("failed", "FAILED"), ("other's", "KILLED")]
)
def test_what_the_run_directory_says_of_the_end_is_taken_from_there(
    status: str, shown: str, store: MlflowClient, ended_process: str, tmp_path: Path
) -> None:
    known, key = ("finished", "of another run") if status == "other's" else (status, "key")
    directory = recorded(tmp_path / "run", key, known)
    run = left_by(store, "key", ended_process, directory)
    open_another(store)
    assert store.get_run(run).info.status == shown


def test_a_run_that_goes_on_elsewhere_is_running_again_and_its_process_the_new_one(
    store: MlflowClient, ended_process: str, tmp_path: Path
) -> None:
    run = left_by(store, "key", ended_process, tmp_path / "old place")
    recording = MlflowRun(None, "fedbench", "key")
    recording.open("demo", {DIRECTORY_TAG: str(tmp_path / "new place"), "team": "blue"})
    assert recording.wait_open(60.0)
    open_another(store)
    again = store.get_run(run)
    assert (again.info.status, recording.run_id) == ("RUNNING", run)
    assert again.data.tags[PROCESS_TAG] == this_process()
    assert again.data.tags[DIRECTORY_TAG] == str(tmp_path / "new place")
    recording.close("finished", 9000, 60.0, 5.0)


def test_a_process_is_known_by_more_than_its_number(ended_process: str) -> None:
    host, space, number, start = this_process().split(" ")
    assert not has_ended(this_process())
    assert has_ended(ended_process)
    assert has_ended(f"{host} {space} {number} {int(start) - 1}"), "the number was given out again"
    for foreign in (f"other {space} 1 1", f"{host} 0 1 1", "", "a", json.dumps({"pid": 1})):
        assert not has_ended(foreign), "nothing is known of it"
