"""Runs in MLflow: read back from an experiment, and sent there afterwards, with a real store."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from small import config

from fedbench.errors import ConfigError, DataError
from fedbench.experiment.run import run
from fedbench.records.recorded_run import RecordedRun
from fedbench.report.compare import compare
from fedbench.report.make import Wanted, _read
from fedbench.tracking.download import ArchivedRun, archived_runs
from fedbench.tracking.upload import upload

pytestmark = pytest.mark.slow


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return copied_store(empty_store, tmp_path / "store")


def copied_store(empty: Path, folder: Path) -> str:
    folder.mkdir()
    shutil.copy(empty, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


def sent(recorded: Path, name: str, directory: Path, store: str) -> str:
    """A copy of a recorded run in `directory`, sent to the store."""
    shutil.copytree(recorded / name, directory)
    return upload(directory, store, "digits").run_id


def stored(store: str) -> dict[str, object]:
    """All that the store has of the one run in it."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    histories = {
        name: sorted((point.step, point.value) for point in client.get_metric_history(found.info.run_id, name))
        for name in found.data.metrics
    }
    return {
        "status": found.info.status,
        "params": found.data.params,
        "metrics": histories,
        "artifacts": sorted(file.path for file in client.list_artifacts(found.info.run_id)),
        "inputs": len(found.inputs.dataset_inputs),
    }


def test_an_experiment_is_read_from_directories_and_from_artifacts(recorded: Path, store: str, tmp_path: Path) -> None:
    sent(recorded, "full-0", tmp_path / "a", store)
    sent(recorded, "full-1", tmp_path / "b", store)
    shutil.rmtree(tmp_path / "b")
    MlflowClient(store).create_run(MlflowClient(store).get_experiment_by_name("digits").experiment_id)  # a parent
    into = tmp_path / "fetched"
    found = sorted(archived_runs("digits", store, into), key=lambda one: one.source)
    assert found[0] == ArchivedRun(str(tmp_path / "a"), tmp_path / "a")
    assert len(found) == 2
    assert "MLflow run" in found[1].source
    assert found[1].directory is not None
    assert found[1].directory.is_relative_to(into)
    (method,) = compare(_read(Wanted((), experiment="digits", mlflow_uri=store), tmp_path / "again")).methods
    assert method.seeds == (0, 1)


def test_another_run_in_the_place_of_a_recorded_one_is_not_taken_for_it(
    recorded: Path, store: str, tmp_path: Path
) -> None:
    sent(recorded, "full-0", tmp_path / "a", store)
    shutil.rmtree(tmp_path / "a")
    shutil.copytree(recorded / "full-2", tmp_path / "a")
    (found,) = _read(Wanted((), experiment="digits", mlflow_uri=store), tmp_path / "fetched")
    assert isinstance(found, RecordedRun)
    assert found.seed == 0


def test_a_run_without_files_anywhere_is_reported(recorded: Path, store: str, tmp_path: Path) -> None:
    sent(recorded, "full-0", tmp_path / "a", store)
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "store" / "mlruns")
    with pytest.raises(DataError, match="MLflow has none of its files"):
        compare(_read(Wanted((), experiment="digits", mlflow_uri=store), tmp_path / "fetched"))


def test_an_unknown_experiment_or_store_is_refused_and_not_made(recorded: Path, store: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        archived_runs("digits", "sqlite:///other.db", tmp_path)
    with pytest.raises(ConfigError, match=r"has no mlflow\.db"):
        archived_runs("digits", None, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    sent(recorded, "full-0", tmp_path / "a", store)
    with pytest.raises(ConfigError, match=r"--experiment digitz: is not in .*did you mean 'digits'"):
        archived_runs("digitz", store, tmp_path)


def test_sending_a_recorded_run_twice_doubles_nothing(recorded: Path, store: str, tmp_path: Path) -> None:
    run_id = sent(recorded, "full-0", tmp_path / "a", store)
    first = stored(store)
    assert first["status"] == "FINISHED"
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    metrics = first["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["best/accuracy"] == [(0, summary["best_accuracy"])]
    assert [step for step, _ in metrics["test/accuracy"]] == [1, 2, 3]
    assert metrics["comm/uplink_mb"][-1][1] == pytest.approx(summary["uplink_bytes"] / 1e6)
    assert upload(tmp_path / "a", store, "digits").run_id == run_id
    assert stored(store) == first


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_run_that_mlflow_has_in_part_is_completed_to_the_unbroken_one(
    store: str, empty_store: Path, tmp_path: Path, rounds: int
) -> None:
    run(config("rounds=2", "data.clients=3", "model.width=4", "runtime.executor=inline", "schedule=full",
               f"output.directory={tmp_path / 'a'}", "tracking.enabled=true", f"tracking.mlflow_uri={store}",
               "tracking.experiment=digits"))  # fmt: skip
    whole = stored(store)
    key = json.loads((tmp_path / "a" / "checkpoints" / "recording.json").read_text())["mlflow"]
    other = copied_store(empty_store, tmp_path / "other")
    client = MlflowClient(other)
    experiment = client.create_experiment("digits", (tmp_path / "other" / "mlruns").as_uri())
    begun = client.create_run(experiment, tags={"fedbench.recording": key})
    for name, points in whole["metrics"].items():  # type: ignore[attr-defined]
        for step, value in points:
            if step <= rounds and name != "best/accuracy":
                client.log_metric(begun.info.run_id, name, value, step=step)
    assert upload(tmp_path / "a", other, "digits").run_id == begun.info.run_id
    assert stored(other) == whole


def test_a_copy_without_its_checkpoints_keeps_one_recording(recorded: Path, store: str, tmp_path: Path) -> None:
    shutil.copytree(recorded / "full-0", tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    assert upload(tmp_path / "a", store, "digits").run_id == upload(tmp_path / "a", store, "digits").run_id


def test_a_killed_run_is_sent_as_killed_and_a_running_one_not_at_all(
    recorded: Path, store: str, tmp_path: Path
) -> None:
    import fcntl

    shutil.copytree(recorded / "full-0", tmp_path / "a")
    (tmp_path / "a" / "summary.json").write_text('{"status": "running"}')
    with (tmp_path / "a" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="is still running"):
            upload(tmp_path / "a", store, "digits")
    upload(tmp_path / "a", store, "digits")
    assert stored(store)["status"] == "KILLED"
