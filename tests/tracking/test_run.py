import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import MlflowServer
from samples import a_description, a_round, an_asynchronous_round, arrival_rows, client_rows
from small import config
from waiting import wait_until

from fedbench.errors import ConfigError
from fedbench.experiment.run import run
from fedbench.records.observers import RunDescription
from fedbench.records.run_directory import RunDirectory
from fedbench.records.schema import ClientRecord, RoundRecord
from fedbench.tasks.kinds import TASKS, TaskName
from fedbench.tracking.pages import note_of_parent
from fedbench.tracking.run import MlflowTracker
from fedbench.tracking.run_content import flatten
from fedbench.tracking.store import environment_store, open_store

pytestmark = pytest.mark.slow

ROUND_METRICS = {
    "test/accuracy", "test/loss", "train/loss", "comm/uplink_mb", "comm/downlink_mb", "compute/tflop",
    "paper/comm_gb", "paper/comp_tflop", "schedule/group", "time/round_s",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def made_store(empty_store: Path, tmp_path: Path) -> None:
    """The default store is there already."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")


VALIDATION_METRICS = {"validation/accuracy", "validation/loss"}


def validated(record: RoundRecord) -> RoundRecord:
    """A round with half its accuracy, and twice its loss, on a validation split."""
    if record.test_accuracy is None or record.test_loss is None:
        return record
    scores = {"validation_accuracy": record.test_accuracy / 2, "validation_loss": 2 * record.test_loss}
    return replace(record, **scores)


def record(
    tracker: MlflowTracker, directory: Path, rounds: int = 4, status: str = "finished", plots: bool = True
) -> Path:
    recorder = RunDirectory.create("demo", 3, directory, plots=plots)
    observers = (recorder, tracker)
    for observer in observers:
        observer.run_started(replace(a_description(recorder.path), group_names=("stem", "body", "fc")))
    for index in range(rounds):
        for observer in observers:
            observer.round_finished(
                validated(a_round(index, evaluated=index != 1, group=index - 1)), client_rows(index)
            )
    (recorder.path / "checkpoints").mkdir()
    (recorder.path / "checkpoints" / "00003.safetensors").write_bytes(b"large")
    (recorder.path / ".model.safetensors.tmp").write_bytes(b"torn")
    for observer in observers:
        observer.run_finished({"status": status, "best_accuracy": 0.775, "best_validation_accuracy": 0.8})
    return recorder.path


def values(client, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def test_a_run_is_found_again_through_mlflow(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    tracker = MlflowTracker(uri, "partial updates", {"team": "a/b"}, parent_run_id="0" * 32)
    path = record(tracker, tmp_path / "run")
    assert tracker.warning is None
    client = MlflowClient(uri)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "fedavg sequential run"
    assert run.info.experiment_id == tracker.experiment_id
    assert client.get_experiment(tracker.experiment_id).name == "partial updates"
    assert run.info.end_time >= run.info.start_time

    assert set(run.data.metrics) == ROUND_METRICS | VALIDATION_METRICS | {"best/accuracy", "best/validation_accuracy"}
    assert values(client, tracker.run_id, "validation/accuracy") == [(i + 1, 0.5 - 0.45 / (i + 1)) for i in (0, 2, 3)]
    assert values(client, tracker.run_id, "best/validation_accuracy") == [(0, 0.8)]
    assert values(client, tracker.run_id, "test/accuracy") == [(i + 1, 1 - 0.9 / (i + 1)) for i in (0, 2, 3)]
    assert values(client, tracker.run_id, "test/loss") == [(i + 1, 2.5 / (i + 1)) for i in (0, 2, 3)]
    assert values(client, tracker.run_id, "train/loss") == [(i + 1, 2.0 / (i + 1)) for i in range(4)]
    assert values(client, tracker.run_id, "comm/uplink_mb") == [(1, 1.0), (2, 2.000001), (3, 3.000003), (4, 4.000006)]
    assert values(client, tracker.run_id, "comm/downlink_mb") == [(1, 3.0), (2, 6.0), (3, 9.0), (4, 12.0)]
    assert values(client, tracker.run_id, "compute/tflop") == [(1, 2.0), (2, 4.0), (3, 6.0), (4, 8.0)]
    assert values(client, tracker.run_id, "paper/comm_gb") == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    assert values(client, tracker.run_id, "paper/comp_tflop") == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert values(client, tracker.run_id, "schedule/group") == [(1, -1), (2, 0), (3, 1), (4, 2)]
    assert values(client, tracker.run_id, "time/round_s") == [(i + 1, 1.5) for i in range(4)]
    assert values(client, tracker.run_id, "best/accuracy") == [(0, 0.775)]  # a bar

    assert run.data.params == {
        "name": "demo", "seed": "3", "local.lr": "1e-05", "local.betas": "[0.9, 0.99]", "data.root": "null",
    }  # fmt: skip
    expected = a_description(path).tags | {
        "team": "a/b",
        "task": "classification",
        "mlflow.note.content": "Four clients, **two** cycles.",
        "mlflow.parentRunId": "0" * 32,
        "fedbench.directory": str(path),
        "layer_groups": "0: stem, 1: body, 2: fc",
    }
    assert expected.items() <= run.data.tags.items()
    (dataset_input,) = run.inputs.dataset_inputs
    assert dataset_input.dataset.name == "cifar10"
    assert a_description(path).dataset_digest.startswith(dataset_input.dataset.digest)
    assert json.loads(dataset_input.dataset.source) == {"url": "https://example.org/cifar10.tar.gz"}
    assert json.loads(dataset_input.dataset.profile)["train_samples"] == 38

    assert {file.path for file in client.list_artifacts(tracker.run_id)} == {
        "config.yaml", "description.json", "rounds.parquet", "clients.parquet", "partition.parquet", "summary.json",
        "plots",
    }  # fmt: skip
    assert len(client.list_artifacts(tracker.run_id, "plots")) == 4
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path / "store")


@pytest.mark.usefixtures("made_store")
def test_clock_and_staleness_of_asynchronous_rounds_are_metrics_where_a_round_has_them(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracker = MlflowTracker()
    recorder = RunDirectory.create("demo", 3, tmp_path / "run", plots=False)
    for observer in (recorder, tracker):
        observer.run_started(a_description(recorder.path))
    for index in range(3):
        recorder.arrivals_finished([] if index == 1 else arrival_rows(index // 2))
        for observer in (recorder, tracker):
            observer.round_finished(an_asynchronous_round(index, arrivals=0 if index == 1 else 4), client_rows(index))
    for observer in (recorder, tracker):
        observer.run_finished({"status": "finished"})
    assert tracker.warning is None
    client = MlflowClient()
    assert values(client, tracker.run_id, "async/staleness_mean") == [(1, 1.25), (3, 3.25)]
    assert values(client, tracker.run_id, "async/staleness_max") == [(1, 3), (3, 5)]
    assert values(client, tracker.run_id, "async/virtual_s") == [(1, 2.5), (2, 5.0), (3, 7.5)]
    assert values(client, tracker.run_id, "time/virtual_s") == [(1, 2.5), (2, 5.0), (3, 7.5)]
    assert values(client, tracker.run_id, "energy/joules") == []
    assert values(client, tracker.run_id, "async/epochs") == [(1, 0.75), (2, 1.5), (3, 2.25)]
    assert "events.parquet" in {file.path for file in client.list_artifacts(tracker.run_id)}


@pytest.mark.usefixtures("made_store")
@pytest.mark.parametrize(("status", "expected"), [("interrupted", "KILLED"), ("failed", "FAILED"), ("?", "FAILED")])
def test_how_a_run_ended_is_mlflows_status(tmp_path: Path, status: str, expected: str) -> None:
    from mlflow import MlflowClient

    tracker = MlflowTracker()
    record(tracker, tmp_path / "run", rounds=0, status=status, plots=False)
    assert MlflowClient().get_run(tracker.run_id).info.status == expected


@pytest.mark.usefixtures("made_store")
def test_numbers_that_are_none_or_not_finite_do_not_stop_the_rest(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracker = MlflowTracker()
    tracker.run_started(a_description(tmp_path / "run"))
    tracker.log(0, {"a": float("nan"), "b": float("inf"), "c": None, "d": 1.0})
    tracker.log(1, {"d": 2.0})
    tracker.run_finished({"status": "finished"})
    assert tracker.warning is None
    assert values(MlflowClient(), tracker.run_id, "d") == [(0, 1.0), (1, 2.0)]
    assert set(MlflowClient().get_run(tracker.run_id).data.metrics) == {"a", "b", "d"}


@pytest.mark.usefixtures("made_store")
def test_more_metrics_than_a_batch_takes_arrive_whole(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracker = MlflowTracker()
    described = vars(a_description(tmp_path / "run"))
    config = {"numbers": {f"n{i}": i for i in range(250)}, "long": "x" * 9000, "empty": "", "odd key!": {}}
    tracker.run_started(type(a_description(tmp_path / "run"))(**described | {"config": config}))
    for index in range(350):
        tracker.round_finished(a_round(index), [])
    tracker.run_finished({"status": "finished"})
    assert tracker.warning is None
    assert [step for step, _ in values(MlflowClient(), tracker.run_id, "train/loss")] == list(range(1, 351))
    parameters = MlflowClient().get_run(tracker.run_id).data.params
    assert len(parameters) == 253
    assert parameters["long"] == "x" * 6000
    assert parameters["odd key_"] == "{}"


@pytest.mark.usefixtures("made_store")
def test_nothing_is_doubled_when_answers_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    calls: Counter[str] = Counter()

    def lose_every_second_answer(name: str) -> None:
        real = getattr(MlflowClient, name)

        def act(self, *args, **kwargs):
            answer = real(self, *args, **kwargs)
            calls[name] += 1
            if calls[name] % 2:
                raise ConnectionError("answer lost")
            return answer

        monkeypatch.setattr(MlflowClient, name, act)

    for name in ("create_experiment", "create_run", "log_batch", "log_inputs", "log_artifact", "set_terminated"):
        lose_every_second_answer(name)
    tracker = MlflowTracker(away_timeout=60.0)
    tracker.run_started(a_description(tmp_path / "run"))
    tracker.round_finished(a_round(0), [])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 3")
    tracker.run_finished({"status": "finished"})
    assert tracker.warning is None
    assert calls["log_batch"] == 6  # tags, parameters and metrics, each twice
    assert calls["create_run"] == 1  # found again
    assert calls["log_artifact"] == calls["log_inputs"] == calls["set_terminated"] == 2
    client = MlflowClient()
    assert [run.info.run_id for run in client.search_runs([tracker.experiment_id])] == [tracker.run_id]
    assert values(client, tracker.run_id, "train/loss") == [(1, 2.0)]
    assert len(client.get_run(tracker.run_id).inputs.dataset_inputs) == 1


@pytest.mark.usefixtures("made_store")
def test_a_metric_that_is_refused_takes_no_other_with_it(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracker = MlflowTracker()
    tracker.run_started(a_description(tmp_path / "run"))
    assert tracker.recording.wait_open(60)
    tracker.log(0, {"bad name\n!": 1.0})
    wait_until(lambda: bool(tracker.recording.delivery.refused), "not refused")
    tracker.round_finished(a_round(1), [])
    tracker.run_finished({"status": "finished"})
    assert "refused part of the run" in str(tracker.warning)
    assert values(MlflowClient(), tracker.run_id, "train/loss") == [(2, 1.0)]


def test_a_server_that_is_down_from_the_start_costs_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        tracker = MlflowTracker(f"http://127.0.0.1:{taken.getsockname()[1]}", away_timeout=1.0)
        tracker.run_started(a_description(tmp_path / "run"))
        calls = []
        for index in range(50):
            begun = time.perf_counter()
            tracker.round_finished(a_round(index), [])
            calls.append(time.perf_counter() - begun)
        assert sorted(calls)[25] < 0.25
        assert not tracker.recording.wait_open(4)
        begun = time.monotonic()
        tracker.run_finished({"status": "finished"})
        assert time.monotonic() - begun < 60
    assert str(tmp_path) in str(tracker.warning)
    assert "did not get anything of the run" in str(tracker.warning)
    assert "\n" not in str(tracker.warning)
    assert tracker.ui_command() is None


def test_mlflow_prints_nothing_of_its_own(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from fedbench.tracking.run import MlflowTracker;"
        "from fedbench.records.observers import RunDescription;"
        "t = MlflowTracker(); assert 'mlflow' not in sys.modules;"
        "t.run_started(RunDescription({}, 't', 'n', {}, 1, 'run', 'd', 's', 'x', (), (), 0, False));"
        "t.run_finished({'status': 'finished'}); assert t.warning is None, t.warning"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    environment.pop("MLFLOW_LOGGING_LEVEL", None)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "mlflow.db").is_file()


def test_the_pages_are_opened_on_the_store_that_was_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MlflowTracker().ui_command() == "mlflow ui"
    assert MlflowTracker().ui_link_fragment() == "#/experiments"
    named = f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/x.db"
    assert MlflowTracker("sqlite:///x.db").ui_command() == named
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    assert MlflowTracker().ui_command() == named
    tracker = MlflowTracker()
    tracker.recording.experiment_id = "7"
    assert tracker.ui_link_fragment() == ("#/experiments/7/runs?workflowType=machine_learning&compareRunsMode=CHART")


@pytest.mark.parametrize("name", ["a/b", "", " "])
def test_experiment_names_that_mlflows_pages_cannot_show_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.experiment="):
        MlflowTracker(experiment=name)


def test_nested_configuration_becomes_dotted_parameters() -> None:
    nested = {"a": {"b": {"c": True}, "d": []}, "e": "text", "f": Path("x")}
    assert dict(flatten(nested)) == {"a.b.c": "true", "a.d": "[]", "e": "text", "f": '"x"'}


@pytest.mark.slow
def test_a_process_killed_while_it_makes_the_store_leaves_none_or_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "cache"))  # which has no database that it could copy
    store = tmp_path / "mlflow.db"
    code = f"""from pathlib import Path
from fedbench.tracking.store import make_database
make_database(Path({str(store)!r}))"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_until(lambda: bool(list(tmp_path.glob(".mlflow-*/mlflow.db"))), "the store was not begun")
    time.sleep(0.3)
    process.kill()
    process.wait()
    open_store(f"sqlite:///{store}", "later")
    client, _ = open_store(f"sqlite:///{store}", "later")
    assert client.get_experiment_by_name("later") is not None


def test_a_ray_job_without_a_store_of_its_own_gets_one_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "working_dir_files" / "copy"
    copy.mkdir(parents=True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment_store(None) is None
    monkeypatch.chdir(copy)
    assert environment_store(None) == f"sqlite:///{tmp_path}/fedbench/mlflow.db"
    assert environment_store("http://there:5000") == "http://there:5000"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(served: MlflowServer) -> MlflowServer:
    """A server that runs; a test may kill it."""
    if served.process is None:
        served.start()
    return served


class KilledAndBack:
    """Kills a server once it has a run and 15 rounds are over, and starts it again 15 rounds later (an observer)."""

    def __init__(self, server: MlflowServer) -> None:
        self._server = server

    def run_started(self, run: RunDescription) -> None:
        pass

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        from mlflow import MlflowClient

        client = MlflowClient(self._server.uri)
        time.sleep(0.1)
        if record.round == 14:
            wait_until(lambda: client.get_experiment_by_name("away") is not None, "no run")
            self._server.kill()
        elif record.round == 29:
            self._server.start()

    def run_finished(self, summary: dict[str, Any]) -> None:
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("flops_counted_once", "no_figures")
def test_what_a_server_missed_while_it_was_away_arrives_once(
    tmp_path: Path, server: MlflowServer, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    few = ("data.clients=3", "data.samples_per_client=40")
    settings = ("rounds=40", "schedule=full", "runtime.executor=inline", "evaluation.every=1", *few)
    tracked = (f"tracking.mlflow_uri={server.uri}", "tracking.experiment=away", f"output.directory={tmp_path / 'run'}")
    result = run(config(*settings, "tracking.enabled=true", *tracked), [KilledAndBack(server)])
    assert result.warnings == ()
    *others, _started_again = sorted(result.history.column("tracking_seconds").to_pylist())
    assert max(others) < 5, "but for the round in which the observer starts the server"
    assert result.summary["model_sha256"] == run(config(*settings)).summary["model_sha256"]
    client = MlflowClient(server.uri)
    (recorded,) = client.search_runs([client.get_experiment_by_name("away").experiment_id])
    assert recorded.info.status == "FINISHED"
    for key in ROUND_METRICS:
        assert [step for step, _ in values(client, recorded.info.run_id, key)] == list(range(1, 41))
    files = {artifact.path for artifact in client.list_artifacts(recorded.info.run_id)}
    assert files >= {"config.yaml", "rounds.parquet", "clients.parquet", "summary.json"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_server_that_dies_for_good_is_told_of_in_a_bounded_time(tmp_path: Path, server: MlflowServer) -> None:
    tracker = MlflowTracker(server.uri)
    tracker.run_started(a_description(tmp_path / "run"))
    assert tracker.recording.wait_open(60)
    tracker.log(0, {"d": float("nan"), "e": float("inf")})
    wait_until(lambda: not tracker.recording._points, "not sent")
    assert tracker.recording.delivery.refused == []
    server.kill()
    tracker.round_finished(a_round(1), [])
    begun = time.monotonic()
    tracker.run_finished({"status": "finished"})
    assert time.monotonic() - begun < 60
    assert str(tmp_path) in str(tracker.warning)


def test_a_run_of_another_task_has_its_metric_in_mlflow_and_no_accuracy_that_it_has_not(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracker = MlflowTracker(uri := f"sqlite:///{tmp_path}/mlflow.db")
    directory = RunDirectory.create("demo", 3, tmp_path / "run", plots=False)
    for observer in (observers := (directory, tracker)):
        observer.run_started(replace(a_description(directory.path), task="regression"))
    for index, error in enumerate((3.0, 2.0)):
        for observer in observers:
            scores = {"test_mae": error, "test_r2": 0.5, "client_score_worst": 7.0, "client_score_after_mean": 1.0}
            observer.round_finished(replace(a_round(index), test_accuracy=None, **scores), ())
    for observer in observers:
        observer.run_finished({"status": "finished", "task": "regression", "best_mae": 2.0})
    client = MlflowClient(uri)
    assert tracker.warning is None
    assert values(client, tracker.run_id, "test/mae") == [(1, 3.0), (2, 2.0)]
    assert values(client, tracker.run_id, "best/mae") == [(0, 2.0)]
    metrics = set(client.get_run(tracker.run_id).data.metrics)
    of_clients = {"clients/mae_worst", "clients/mae_after_mean"}
    assert metrics == (ROUND_METRICS - {"test/accuracy"}) | {"test/mae", "test/r2", "best/mae"} | of_clients


@pytest.mark.parametrize(("task", "ascending"), [("next_token", "true"), ("segmentation", "false")])
def test_charts_of_nested_runs_have_the_best_first_by_the_metric_of_their_task(task: TaskName, ascending: str) -> None:
    headline = TASKS[task].headline
    note = note_of_parent("A study.", "1", "abc", headline)
    assert f"orderByKey=metrics.%60best%2F{headline.name}%60&orderByAsc={ascending})" in note


@pytest.mark.usefixtures("made_store")
def test_virtual_time_and_the_energy_so_far_are_metrics_of_rounds_on_devices(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracker = MlflowTracker()
    recorder = RunDirectory.create("demo", 3, tmp_path / "run", plots=False)
    for observer in (recorder, tracker):
        observer.run_started(a_description(recorder.path))
    for index in range(3):
        record = replace(a_round(index), virtual_seconds=2.0 * (index + 1), joules=0.5)
        for observer in (recorder, tracker):
            observer.round_finished(record, client_rows(index))
    for observer in (recorder, tracker):
        observer.run_finished({"status": "finished"})
    client = MlflowClient()
    assert values(client, tracker.run_id, "time/virtual_s") == [(1, 2.0), (2, 4.0), (3, 6.0)]
    assert values(client, tracker.run_id, "energy/joules") == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert values(client, tracker.run_id, "async/virtual_s") == []
