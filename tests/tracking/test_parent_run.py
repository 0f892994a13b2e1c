"""The run that others are nested below, on real stores: made once, found again, done without when the store is away."""

import socket
import time
from pathlib import Path

import pytest
from samples import a_description, a_round

from fedbench.errors import ConfigError
from fedbench.tracking.parent_run import NOTE, ParentRun
from fedbench.tracking.run import MlflowTracker


@pytest.fixture(autouse=True)
def _in_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.mark.slow
def test_what_a_parent_is_told_is_in_the_store_and_a_run_lies_below_it(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    folder = tmp_path / "table"
    (folder / "more").mkdir(parents=True)
    (folder / "table.md").write_text("| a |")
    (folder / "more" / "x.csv").write_text("a,b")
    parent = ParentRun()
    run_id = parent.open("table 1", "suites", uri, {"suite": "table-1"}, "What **this** is.", "key-1")
    assert run_id is not None
    parent.log({"accuracy/fedavg C=1": 0.5, "accuracy/none": None}, step=1)
    parent.log({"accuracy/fedavg C=1": 0.75}, step=2)
    parent.artifacts(folder)
    child = MlflowTracker(uri, "suites", parent_run_id=run_id)
    child.run_started(a_description(tmp_path / "run"))
    child.round_finished(a_round(0, evaluated=True, group=-1), ())
    child.run_finished({"status": "finished"})
    parent.describe("Another note", {"state": "complete"})
    parent.close("finished")
    assert parent.warning is None

    client = MlflowClient(uri)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "table 1")
    assert run.data.tags["suite"] == "table-1"
    assert run.data.tags["state"] == "complete"
    said, link = run.data.tags[NOTE].split("\n\n")
    assert said == "Another note"
    assert f"(#/experiments/{parent.experiment_id}/runs?" in link
    assert run_id in link
    history = client.get_metric_history(run_id, "accuracy/fedavg C_1")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.75)]
    assert "accuracy/none" not in run.data.metrics
    assert sorted(item.path for item in client.list_artifacts(run_id)) == ["more", "table.md"]
    assert [item.path for item in client.list_artifacts(run_id, "more")] == ["more/x.csv"]
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == run_id
    assert "fedbench" in client.get_experiment(parent.experiment_id).tags[NOTE]


@pytest.mark.slow
def test_the_same_key_finds_the_run_again_and_another_key_does_not(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    ids = []
    for key, note, status in (("a", "first", "interrupted"), ("a", "second", "finished"), ("b", "other", "failed")):
        parent = ParentRun()
        ids.append(parent.open("study", "suites", uri, {}, note, key))
        parent.close(status)
    assert ids[0] == ids[1] != ids[2]
    client = MlflowClient(uri)
    assert client.get_run(ids[0]).data.tags[NOTE].startswith("second\n\n[")
    assert [client.get_run(run_id).info.status for run_id in (ids[0], ids[2])] == ["FINISHED", "FAILED"]


@pytest.mark.slow
def test_an_experiment_that_someone_described_keeps_the_description(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("mine", tags={NOTE: "my words"})
    parent = ParentRun()
    parent.open("study", "mine", uri, {}, "", "key")
    parent.close("finished")
    assert parent.experiment_id == experiment
    assert client.get_experiment(experiment).tags[NOTE] == "my words"


def test_a_store_that_is_away_costs_a_warning_and_a_bounded_time() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    parent = ParentRun(away_timeout=0.5, open_timeout=120)
    began = time.monotonic()
    assert parent.open("study", "suites", f"http://127.0.0.1:{port}", {}, "", "key") is None
    assert time.monotonic() - began < 60
    assert parent.warning is not None
    assert "MLflow is away" in parent.warning
    assert "\n" not in parent.warning
    parent.log({"a": 1.0}, 1)
    parent.artifacts(Path("."))
    parent.close("finished")


def test_without_tracking_nothing_is_opened_or_warned_of(tmp_path: Path) -> None:
    parent = ParentRun(enabled=False)
    assert parent.open("study", "suites", None, {}, "", "key") is None
    parent.log({"a": 1.0}, 1)
    parent.close("finished")
    assert parent.warning is None
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_name_that_mlflow_shows_wrongly_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tracking\.experiment=a/b"):
        ParentRun().open("study", "a/b", None, {}, "", "key")
