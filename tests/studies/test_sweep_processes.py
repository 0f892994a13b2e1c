"""Studies as commands of their own: killed, interrupted, joined, and gone on with."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from command_line import Finished
from optuna.trial import FrozenTrial
from shared_studies import share_kill_interrupt_and_go_on
from small_studies import BASE, Commands, written

from fedbench.studies.storage import open_storage

pytestmark = pytest.mark.slow


def trials(folder: Path) -> list[FrozenTrial]:
    """As they stand in the journal."""
    journal = folder / "runs" / "studies" / "small" / "journal.log"
    if not journal.exists():
        return []
    try:
        return optuna.load_study(study_name="small", storage=open_storage(str(journal))).get_trials()
    except KeyError:
        return []


def test_a_study_that_two_processes_share_survives_a_kill_and_an_interrupt(
    commands: Commands, call: Callable[..., Finished], here: Path
) -> None:
    share_kill_interrupt_and_go_on(commands, call, here, lambda: trials(here))


@pytest.mark.usefixtures("made_store")
def test_mlflow_shows_the_study_as_a_run_with_its_trials_below(call: Callable[..., Finished], here: Path) -> None:
    from mlflow import MlflowClient

    # Clients of a single class each, at which one of the two methods raises an exception.
    tracked = [text for text in BASE if not text.startswith(("tracking", "data"))]
    tracked += ["data.clients=10", "data.partition=shards", "data.partition.shards_per_client=1"]
    space = {"algorithm": {"type": "categorical", "choices": ["fedavg", "small:Faulty"]}}
    path = written(here, overrides=tracked, space=space, sampler="grid")
    ended = call("sweep", path.name, "--concurrency", "1")
    assert ended.status == 0, ended.stderr
    assert "best_accuracy" in ended.stdout
    assert "fedbench run runs/studies/small/best.yaml" in ended.stdout
    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    experiment = client.get_experiment_by_name("fedbench")
    runs = client.search_runs([experiment.experiment_id])
    parents = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    assert [one.info.run_name for one in parents] == ["small"]
    (parent,) = parents
    assert parent.info.status == "FINISHED"
    below = {one.data.tags["trial"]: one for one in runs if one is not parent}
    assert set(below) == {"0", "1"}
    states = {one.data.params["algorithm.name"]: one.data.tags["state"] for one in below.values()}
    assert states == {"fedavg": "COMPLETE", "small:Faulty": "FAIL"}
    for number, one in below.items():
        assert one.info.run_name == f"trial {number}: algorithm={one.data.params['algorithm.name']}"
        assert one.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert one.data.tags["study"] == "small"
    complete = next(one for one in below.values() if one.data.tags["state"] == "COMPLETE")
    assert parent.data.metrics["best/best_accuracy"] == complete.data.metrics["objective/best_accuracy"]
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"best.yaml", "trials.csv", "figures"}


def test_a_mistake_is_one_line_and_exit_code_2(call: Callable[..., Finished], here: Path) -> None:
    path = written(here)
    for arguments, word in (
        (("sweep", "fedpart_schedule"), "'fedpart_schedules'"),
        (("sweep", path.name, "data.clents=3"), "'clients'"),
        (("sweep", path.name, "--storage", "nosuch://x"), "storage=nosuch://x"),
    ):
        ended = call(*arguments)
        assert (ended.status, ended.stdout) == (2, "")
        assert word in ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
    assert not (here / "runs").exists()
