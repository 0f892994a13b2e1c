"""`fedbench resume` and `--replay` as a user meets them: after a kill, with MLflow, from the command line."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Finished, start

TINY = ("runtime.executor=inline", "data.clients=4", "model.width=4", "local.epochs=1")
Call = Callable[..., Finished]


def summary_of(directory: Path) -> dict[str, object]:
    return json.loads((directory / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [
        ("quickstart", *TINY, "data.samples_per_client=40", "schedule=full", "rounds=40"),
        ("ormo-digits", "runtime.executor=inline", "model.width=4", "delays.arrivals_per_round=16", "rounds=40"),
    ],
    ids=["rounds", "arrivals"],
)
def test_a_killed_run_goes_on_and_mlflow_has_every_round_once(
    run: tuple[str, ...], call: Call, run_folder: Path, empty_store: Path
) -> None:
    folder = run_folder
    shutil.copy(empty_store, folder / "mlflow.db")
    with start(folder, "run", *run, "runtime.checkpoint_every=5", "output.directory=killed") as process:
        assert process.stderr is not None
        assert any(line.startswith("round 13/") for line in process.stderr)
        process.send_signal(signal.SIGKILL)
    assert summary_of(folder / "killed")["status"] == "running"
    resumed = call("resume", "killed")
    assert resumed.status == 0, resumed.stderr
    whole = call("run", *run, "output.directory=whole", "tracking.enabled=false")
    assert whole.status == 0, whole.stderr
    ours, theirs = summary_of(folder / "killed"), summary_of(folder / "whole")
    assert ours["model_sha256"] == theirs["model_sha256"]
    assert ours["uplink_bytes"] == theirs["uplink_bytes"]
    last_round = [line for line in resumed.stderr.splitlines() if line.startswith("round ")][-1]
    assert f"  {(ours['uplink_bytes'] + ours['downlink_bytes']) / 1e6:.2f} MB" in last_round

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (recorded,) = client.search_runs([client.get_experiment_by_name("fedbench").experiment_id])
    assert recorded.info.status == "FINISHED"
    rounds = pq.read_table(folder / "killed" / "rounds.parquet")
    for name, values in (
        ("test/accuracy", rounds["test_accuracy"].to_pylist()),
        ("train/loss", rounds["train_loss"].to_pylist()),
    ):
        points = sorted(client.get_metric_history(recorded.info.run_id, name), key=lambda point: point.step)
        assert [point.step for point in points] == list(range(1, rounds.num_rows + 1))
        assert [point.value for point in points] == values
    uplink = sorted(client.get_metric_history(recorded.info.run_id, "comm/uplink_mb"), key=lambda point: point.step)
    assert uplink[-1].value == pytest.approx(ours["uplink_bytes"] / 1e6)


def test_a_recorded_order_of_arrivals_is_followed_again(call: Call, run_folder: Path) -> None:
    run = ("ormo-digits", "runtime.executor=inline", "model.width=4", "rounds=2", "tracking.enabled=false", "--json")
    first = call("run", *run, "output.directory=first")
    assert first.status == 0, first.stderr
    again = call("run", "first/config.yaml", "output.directory=again", "--replay", "first/events.parquet", "--json")
    assert again.status == 0, again.stderr
    assert json.loads(again.stdout)["model_sha256"] == json.loads(first.stdout)["model_sha256"]


def test_what_cannot_be_resumed_is_one_line(call: Call, run_folder: Path) -> None:
    missing = call("resume", "nowhere")
    assert (missing.status, missing.stdout) == (2, "")
    assert "nowhere" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1
