"""Where MLflow keeps runs: passwords in addresses, folders with odd names, experiments that were deleted."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Finished
from mlflow import MlflowClient

from fedbench.config.stores import fault_of_store
from fedbench.errors import ConfigError
from fedbench.records.run_lock import LOCK, RunLock
from fedbench.tracking.recording_key import keep_key, key_file
from fedbench.tracking.store import environment_store, sqlite_uri

TINY = (
    "run", "rounds=1", "data.clients=2", "data.samples_per_client=60", "model=cnn-bn", "schedule=full",
    "runtime.executor=inline",
)  # fmt: skip
PASSWORD = "s3cret"


def texts_with(word: str, folder: Path) -> list[Path]:
    """The files below a folder that hold a word."""
    return [path for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


@pytest.mark.slow
def test_no_password_is_shown_or_written_and_a_recorded_address_asks_for_it(
    call: Callable[..., Finished], run_folder: Path
) -> None:
    away = f"http://me:{PASSWORD}@127.0.0.1:9"
    ended = call(*TINY, f"tracking.mlflow_uri={away}", "output.directory=run")
    assert ended.status == 0
    assert "warning: MLflow did not get anything of the run" in ended.stderr
    assert PASSWORD not in ended.stdout + ended.stderr
    assert "http://me:***@127.0.0.1:9" in (run_folder / "run" / "config.yaml").read_text()
    assert texts_with(PASSWORD, run_folder) == []

    again = call("report", "run", "--upload")
    assert again.status == 2
    assert "tracking.mlflow_uri=http://me:***@127.0.0.1:9: its password is not recorded" in again.stderr
    refused = call(*TINY, f"tracking.mlflow_uri=ftp://me:{PASSWORD}@host")
    assert refused.status == 2
    assert PASSWORD not in refused.stderr


def test_a_recorded_address_takes_its_password_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{PASSWORD}@host")
    assert environment_store("http://me:***@host") == f"http://me:{PASSWORD}@host"
    with pytest.raises(ConfigError, match="its password is not recorded"):
        environment_store("http://me:***@other")


@pytest.mark.parametrize("uri", ["file:///tmp/runs", "file:runs", "./mlruns", "mlruns", "/tmp/mlruns"])
def test_a_plain_folder_is_refused_as_mlflow_does(
    uri: str, call: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fault_of_store(uri) is not None
    ended = call("cost", f"tracking.mlflow_uri={uri}")
    assert (ended.status, ended.stderr.count("\n")) == (2, 1)
    assert "write sqlite:///PATH/mlflow.db" in ended.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI="):
        environment_store(None)


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "http://host:5000", "databricks", "postgresql+psycopg2://h/d"])
def test_what_mlflow_takes_is_accepted(uri: str) -> None:
    assert fault_of_store(uri) is None


@pytest.mark.parametrize("name", ["a b", "ü", "a+b", "a%20b"])
def test_the_default_store_is_in_the_working_directory_whatever_its_name(
    name: str, call: Callable[..., Finished], run_folder: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = run_folder / name
    here.mkdir()
    shutil.copy(empty_store, here / "mlflow.db")
    monkeypatch.chdir(here)
    ended = call(*TINY, "output.directory=run")
    assert (ended.status, "warning" in ended.stderr) == (0, False), ended.stderr
    assert [path.name for path in run_folder.iterdir()] == [name]
    client = MlflowClient(sqlite_uri(Path("mlflow.db")))
    experiment = client.get_experiment_by_name("fedbench")
    (run,) = client.search_runs([experiment.experiment_id])
    assert "test/accuracy" in run.data.metrics
    assert "config.yaml" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_a_deleted_experiment_is_named_with_the_remedy(
    call: Callable[..., Finished], run_folder: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, run_folder / "mlflow.db")
    client = MlflowClient(f"sqlite:///{run_folder / 'mlflow.db'}")
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    ended = call(*TINY, "tracking.experiment=gone")
    assert ended.status == 0
    assert "MLflow refused the whole run" in ended.stderr
    assert f"mlflow experiments restore --experiment-id {number}" in ended.stderr
    assert "browse" not in ended.stdout


@pytest.mark.parametrize(
    "override",
    [
        "tracking.experiment=' '",
        f"tracking.experiment={'e' * 501}",
        f"name={'n' * 201}",
        "tracking.mlflow_uri=http://me:***@host",
    ],
)
def test_what_is_wrong_with_a_place_shows_before_a_run_directory_is_made(
    override: str, call: Callable[..., Finished], run_folder: Path
) -> None:
    ended = call(*TINY, override)
    assert (ended.status, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert list(run_folder.iterdir()) == []


@pytest.mark.parametrize(
    "overrides",
    [
        ("participation.round_deadline=9", "participation.replay=none.parquet"),
        ("algorithm=asgd", "delays.replay=none.parquet"),
    ],
)
def test_a_missing_record_to_follow_shows_before_a_run_directory_is_made(
    overrides: tuple[str, ...], call: Callable[..., Finished], run_folder: Path
) -> None:
    ended = call(*TINY, *overrides)
    assert (ended.status, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "none.parquet" in ended.stderr
    assert list(run_folder.iterdir()) == []


def test_nothing_is_written_behind_a_link_in_a_run_directory(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    directory = tmp_path / "run"
    (directory / "checkpoints").mkdir(parents=True)
    (directory / LOCK).symlink_to(precious)
    key_file(directory).symlink_to(precious)
    with pytest.raises(ConfigError, match="no regular file"):
        RunLock(directory, "run")
    keep_key(key_file(directory), "key")
    assert precious.read_text() == "precious"
    assert not key_file(directory).is_symlink()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(directory / "checkpoints")
    (directory / "checkpoints").symlink_to(elsewhere)
    with pytest.raises(OSError, match="is a link"):
        keep_key(key_file(directory), "key")
    assert list(elsewhere.iterdir()) == []
