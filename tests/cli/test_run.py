"""`fedbench run` as a user meets it: processes of their own, on a local Ray and inline."""

import json
import os
import pty
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from command_line import Finished, fedbench, start
from interrupted import interrupted_after
from safetensors.numpy import load_file
from waiting import wait_until

from fedbench.config.experiment import ExperimentConfig
from fedbench.records import plots
from fedbench.records.schema import CLIENT_SCHEMA, ROUND_SCHEMA

DOCUMENTED_ROUND_COLUMNS = [
    "round", "phase", "group", "clients", "train_loss", "test_loss", "test_accuracy", "uplink_bytes",
    "downlink_bytes", "transport_bytes", "client_flops", "paper_comm_gb", "paper_comp_tflop", "update_norm",
    "wall_seconds", "virtual_seconds", "rejected_clients",
]  # fmt: skip
FILES = {
    "config.yaml", "description.json", "rounds.parquet", "clients.parquet", "partition.parquet", "summary.json",
    "model.safetensors", "plots", "checkpoints",
}  # fmt: skip
TINY = ("runtime.executor=inline", "data.clients=4", "model.width=4", "local.epochs=1")
UNTRACKED = ("tracking.enabled=false",)
SAVE_FIGURES = plots.save_figures
"""As it is outside the fixture `call`, within which no figures are drawn."""


def only_run(folder: Path) -> Path:
    (directory,) = folder.glob("runs/*")
    return directory


def summary_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "summary.json").read_text())


def mlflow_run(folder: Path) -> tuple[Any, Any]:
    """A client of the store that `mlflow ui` opens in `folder`, and the one run in it."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("fedbench").experiment_id])
    return client, run


@dataclass(frozen=True)
class Quickstart:
    """A run of the quickstart on a local Ray, recorded in MLflow's default store."""

    finished: Finished
    folder: Path
    directory: Path


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    folder = tmp_path_factory.mktemp("quickstart")
    finished = fedbench(folder, "run", "tracking.tags={team: blue}", figures=True)
    assert finished.status == 0, finished.stderr
    return Quickstart(finished, folder, only_run(folder))


@pytest.mark.slow
def test_the_quickstart_ends_with_a_summary_on_stdout_and_lines_on_stderr(quickstart: Quickstart) -> None:
    summary, stdout = summary_of(quickstart.directory), quickstart.finished.stdout
    rows = {line[:17].strip(): line[17:].strip() for line in stdout.splitlines()}
    full = summary["full_updates"]
    best = f"{summary['best_accuracy']:.2%} best (round {summary['best_round']}, chosen on the test split)"
    assert rows["accuracy"] == f"{best}, {summary['final_accuracy']:.2%} final"
    assert rows["sent up / down"] == (
        f"{summary['uplink_bytes'] / 1e6:.2f} MB / {summary['downlink_bytes'] / 1e6:.2f} MB"
    )
    assert rows["client work"] == f"{summary['client_flops'] / 1e9:.2f} GFLOP"
    assert rows["as full updates"] == (
        f"{full['uplink_bytes'] / 1e6:.2f} MB / {full['downlink_bytes'] / 1e6:.2f} MB, "
        f"{full['client_flops'] / 1e9:.2f} GFLOP"
    )
    assert re.fullmatch(r"\d+% of the bytes, \d+% of the FLOPs", rows["saved"])
    assert re.fullmatch(r"(\d+ s|\d+:\d\d), 22 rounds \(finished\)", rows["time"])
    assert rows["files"] == str(quickstart.directory)
    assert rows["browse"] == "mlflow ui"

    lines = re.findall(r"^round (\d+)/22  .*accuracy \d\.\d{4}  loss .* MB", quickstart.finished.stderr, re.MULTILINE)
    assert lines == [str(number) for number in range(1, 23)]
    assert "\x1b" not in quickstart.finished.stderr + stdout


@pytest.mark.slow
def test_the_quickstart_learns(quickstart: Quickstart) -> None:
    assert summary_of(quickstart.directory)["final_accuracy"] > 0.9


@pytest.mark.slow
def test_the_run_directory_holds_every_file(quickstart: Quickstart) -> None:
    directory = quickstart.directory
    assert {path.name for path in directory.iterdir()} == FILES
    assert {path.suffix for path in (directory / "plots").iterdir()} == {".png"}
    assert directory.name.startswith("quickstart-0-")

    rounds, clients = (pq.read_table(directory / name) for name in ("rounds.parquet", "clients.parquet"))
    assert rounds.schema.equals(ROUND_SCHEMA)
    assert rounds.column_names[: len(DOCUMENTED_ROUND_COLUMNS)] == DOCUMENTED_ROUND_COLUMNS
    assert rounds["round"].to_pylist() == list(range(22))
    assert rounds["group"].to_pylist()[2:8] == [-1, -1, 0, 0, 1, 1]
    full, first, second = (rounds["group_clients"].to_pylist()[index] for index in (2, 4, 6))
    assert (full, first, second) == ([10] * 4, [10, 0, 0, 0], [0, 10, 0, 0])
    assert clients.schema.equals(CLIENT_SCHEMA)
    assert clients.num_rows == 220

    summary = summary_of(directory)
    assert (summary["status"], summary["rounds"], summary["seed"]) == ("finished", 22, 0)
    for column in ("uplink_bytes", "downlink_bytes", "transport_bytes", "client_flops"):
        assert summary[column] == sum(rounds[column].to_pylist())
    for column in ("uplink_bytes", "downlink_bytes"):
        assert summary[column] == sum(clients[column].to_pylist())
    assert summary["paper_comm_gb"] == rounds["paper_comm_gb"][-1].as_py()
    assert sum(pq.read_table(directory / "partition.parquet")["samples"].to_pylist()) == 1438
    assert sum(array.size for array in load_file(directory / "model.safetensors").values()) > summary["parameters"]


@pytest.mark.slow
def test_mlflow_has_the_whole_run_where_its_pages_look(quickstart: Quickstart) -> None:
    client, run = mlflow_run(quickstart.folder)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"fedavg sequential {quickstart.directory.name}"

    rows = pq.read_table(quickstart.directory / "rounds.parquet").to_pylist()
    recorded = {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in ("test/accuracy", "test/loss", "train/loss", "paper/comm_gb", "paper/comp_tflop", "schedule/group")
    }
    columns = ("test_accuracy", "test_loss", "train_loss", "paper_comm_gb", "paper_comp_tflop", "group")
    for name, column in zip(recorded, columns, strict=True):
        assert sorted(recorded[name]) == [(row["round"] + 1, row[column]) for row in rows], name
    for name in ("comm/uplink_mb", "comm/downlink_mb", "compute/tflop", "time/round_s"):
        assert len(client.get_metric_history(run.info.run_id, name)) == 22, name
    assert run.data.metrics["comm/uplink_mb"] == pytest.approx(summary_of(quickstart.directory)["uplink_bytes"] / 1e6)

    expected = {"algorithm": "fedavg", "schedule": "sequential", "dataset": "digits", "model": "cnn-bn", "team": "blue"}
    assert expected.items() <= run.data.tags.items()
    assert "10 clients" in run.data.tags["mlflow.note.content"]
    expected = {"rounds": "auto", "data.clients": "10", "schedule.cycles": "2", "local.optimizer.lr": "0.002"}
    assert expected.items() <= run.data.params.items()
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "digits"
    stored = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert stored == FILES - {"checkpoints"}
    assert len(client.list_artifacts(run.info.run_id, "plots")) == len(list((quickstart.directory / "plots").iterdir()))


@pytest.mark.slow
def test_the_recorded_configuration_gives_the_same_rounds_without_ray(
    quickstart: Quickstart, call: Callable[..., Finished], run_folder: Path
) -> None:
    """To the bit: the first eight rounds, in which two layer groups have been trained."""
    values = yaml.safe_load((quickstart.directory / "config.yaml").read_text())
    values["tracking"]["tags"] = {}
    rerun = run_folder / "rerun.yaml"
    rerun.write_text(yaml.safe_dump(values))
    inline = ("runtime.executor=inline", "tracking.enabled=false")
    assert ExperimentConfig.load(rerun, inline).digest() == summary_of(quickstart.directory)["config_hash"]
    finished = call("run", str(rerun), *inline, "rounds=8", "output.directory=again")
    assert finished.status == 0, finished.stderr
    again, first = (pq.read_table(path / "rounds.parquet") for path in (run_folder / "again", quickstart.directory))
    assert again.num_rows == 8
    for name in (*DOCUMENTED_ROUND_COLUMNS, "group_clients"):
        if name not in ("wall_seconds", "transport_bytes"):
            assert again[name].to_pylist() == first[name].to_pylist()[:8], name


def test_json_is_one_document_on_stdout(call: Callable[..., Finished], run_folder: Path) -> None:
    finished = call("run", "--json", *TINY, *UNTRACKED, "rounds=2")
    assert finished.status == 0
    document = json.loads(finished.stdout)
    assert document["directory"] == str(only_run(run_folder))
    recorded = summary_of(only_run(run_folder))
    files = recorded.pop("files"), recorded.pop("checksum")
    assert all(files), "the file alone says by which checksums it vouches for the others"
    assert document.pop("task") == "classification"
    assert {key: value for key, value in document.items() if key != "directory"} == recorded
    assert "round 2/2" in finished.stderr


def test_the_summary_leaves_the_names_of_folders_as_they_are(call: Callable[..., Finished], run_folder: Path) -> None:
    finished = call("run", *TINY, *UNTRACKED, "rounds=1", f"output.directory='runs/[bold]{'long' * 30}'")
    assert str(run_folder / "runs" / f"[bold]{'long' * 30}") in finished.stdout


def test_lines_are_whole_where_there_is_no_terminal(call: Callable[..., Finished], run_folder: Path) -> None:
    finished = call("run", *TINY, *UNTRACKED, "rounds=1", f"output.directory=runs/{'long' * 30}")
    opening, *_ = finished.stderr.splitlines()
    assert opening.endswith("long" * 30)
    assert opening.startswith("fedavg, sequential schedule, cnn-bn on digits: ")


@pytest.mark.slow
def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    """On stderr alone: stdout may go into a file at the same time."""
    terminal, far_end = pty.openpty()
    arguments = ("run", "--json", *TINY, *UNTRACKED, "rounds=3")
    with start(tmp_path, *arguments, stderr=far_end, TERM="xterm-256color", COLUMNS="120") as process:
        os.close(far_end)
        shown = read_terminal(terminal)
        stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 0, shown
    assert json.loads(stdout)["rounds"] == 3
    assert "━" in shown
    assert "3/3" in shown
    assert re.search(r"accuracy 0\.\d{4}  loss \d\.\d{4}  \d\.\d\d MB", shown)
    assert "round 1/3" not in shown


def read_terminal(terminal: int) -> str:
    """All that is written to a pseudo-terminal until the far end is closed."""
    parts = []
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux: the last far end was closed
            part = b""
        if not part:
            os.close(terminal)
            return b"".join(parts).decode()
        parts.append(part)


@pytest.fixture
def made_store(empty_store: Path, run_folder: Path) -> None:
    """MLflow's default store is there already."""
    shutil.copy(empty_store, run_folder / "mlflow.db")


@pytest.mark.slow
@pytest.mark.usefixtures("made_store")
def test_an_interrupt_ends_the_run_after_its_round(
    call: Callable[..., Finished], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C; SIGTERM does so to a process group in `test_streams.py`."""
    monkeypatch.setattr("fedbench.records.plots.save_figures", SAVE_FIGURES)

    def two_rounds() -> None:
        wait_until(lambda: any(run_folder.glob("runs/*/checkpoints/round-*2")), "no checkpoint of the second round")

    lasting = ("rounds=3000", "schedule=full", "evaluation.every=3000", "runtime.checkpoint_every=2")
    with interrupted_after(two_rounds):
        finished = call("run", *TINY, *lasting)
    assert finished.status == 130, finished.stderr
    assert "(interrupted)" in finished.stdout
    assert "Traceback" not in finished.stderr
    directory = only_run(run_folder)
    assert {path.name for path in directory.iterdir()} == FILES
    summary, rounds = summary_of(directory), pq.read_table(directory / "rounds.parquet")
    assert summary["status"] == "interrupted"
    assert 2 <= summary["rounds"] == rounds.num_rows < 3000
    assert pq.read_table(directory / "clients.parquet").num_rows == 4 * rounds.num_rows
    assert rounds["test_accuracy"].null_count == rounds.num_rows, "rows are those of the run that goes on"
    assert 0 < summary["final_accuracy"] < 1
    assert f"go on with: fedbench resume {directory}" in finished.stderr
    assert all(array.size for array in load_file(directory / "model.safetensors").values())
    _, run = mlflow_run(run_folder)
    assert run.info.status == "KILLED"


# Ten clients of one class each, two in a round; the one with nothing but label 0 first takes part in round 1.
BROKEN_LATER = (
    "algorithm=small:Faulty",
    "data.partition=shards",
    "data.partition.shards_per_client=1",
    "participation.clients_per_round=2",
    "local.epochs=1",
    "model.width=8",
    "rounds=6",
    "seed=5",
)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("made_store")
def test_a_client_that_fails_half_way_is_named_last_after_its_own_traceback(
    executor: str, call: Callable[..., Finished], run_folder: Path, request: pytest.FixtureRequest
) -> None:
    where = [f"runtime.executor={executor}"]
    if executor == "ray":
        request.getfixturevalue("local_ray")
        where.append("runtime.actors=1")
    finished = call("run", "--json", *where, *BROKEN_LATER)
    assert (finished.status, finished.stdout) == (1, "")
    last = finished.stderr.splitlines()[-1]
    named = re.fullmatch(r"error: (client \d failed in round 2: ValueError: this client is broken)", last)
    assert named, finished.stderr
    assert re.search(r"Traceback.*small\.py.*in loss.*ValueError: this client\nis broken\n", finished.stderr, re.DOTALL)
    directory = only_run(run_folder)
    summary = summary_of(directory)
    assert (summary["status"], summary["rounds"], summary["error"]) == ("failed", 1, named[1])
    assert pq.read_table(directory / "rounds.parquet").num_rows == 1
    assert pq.read_table(directory / "clients.parquet").num_rows == 2
    _, run = mlflow_run(run_folder)
    assert run.info.status == "FAILED"
