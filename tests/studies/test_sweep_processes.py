"""Studies as commands of their own: killed, interrupted, joined, and gone on with."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from command_line import Finished
from optuna.trial import FrozenTrial, TrialState
from small_studies import BASE, Commands, written
from waiting import wait_until

from fedbench.studies.shared_study import INTERRUPTED, counts
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


def wait_for_trials(folder: Path, done: int, running: int) -> None:
    def met() -> bool:
        found = trials(folder)
        begun = [trial for trial in found if trial.state == TrialState.RUNNING and trial.params]
        return sum(trial.state.is_finished() for trial in found) >= done and len(begun) >= running

    wait_until(met, f"no {done} finished and {running} running trials")


def counted(folder: Path) -> list[FrozenTrial]:
    return [trial for trial in trials(folder) if counts(trial)]


LONGER = [*BASE, "rounds=12", "data.samples_per_client=200"]


def test_a_study_that_was_killed_goes_on_and_ends_with_all_its_trials(commands: Commands, here: Path) -> None:
    path = written(here, overrides=LONGER, pruner={"name": "median", "n_startup_trials": 2}, budget={"trials": 8})
    killed = commands.start("sweep", path.name, "--concurrency", "2")
    wait_for_trials(here, done=3, running=2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = {trial.number: trial for trial in trials(here)}
    running = [trial for trial in before.values() if trial.state == TrialState.RUNNING]
    assert running

    ended = commands.run("sweep", path.name, "--json")
    assert ended.status == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["status"] == "finished"
    after = trials(here)
    assert all(trial.state.is_finished() for trial in after)
    assert len(counted(here)) == 8
    assert {trial.state for trial in counted(here)} <= {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in before.values():  # nothing that was done is done again
        if trial.state.is_finished():
            assert after[trial.number].values == trial.values
    for trial in running:  # what was begun is, with the same parameters
        assert after[trial.number].state == TrialState.FAIL
        assert after[trial.number].user_attrs[INTERRUPTED]
        if not trial.params:  # killed between asking and drawing: there is nothing to do again
            continue
        again = [one for one in counted(here) if one.params == trial.params]
        assert len(again) == 1
        assert again[0].number > trial.number
    assert Path(document["best_files"][0]).is_file()

    nothing_left = commands.run("sweep", path.name)
    assert nothing_left.status == 0, nothing_left.stderr
    assert len(trials(here)) == len(after)


def test_an_interrupt_ends_trials_at_their_round_and_names_the_command_that_goes_on(
    commands: Commands, here: Path
) -> None:
    path = written(here, overrides=[*LONGER, "rounds=500"], budget={"trials": 2})
    process = commands.start("sweep", path.name, "--concurrency", "2", "tracking.enabled=false")
    wait_for_trials(here, done=0, running=2)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    ended = commands.finish(process)
    assert ended.status == 130, ended.stderr
    assert f"go on with: fedbench sweep {path.name} --concurrency 2 tracking.enabled=false" in ended.stderr
    assert "Traceback" not in ended.stderr
    found = trials(here)
    assert [trial.state for trial in found] == [TrialState.FAIL] * 2 + [TrialState.WAITING] * 2
    assert not [trial for trial in found[:2] if counts(trial)]
    again = [trial.system_attrs["fixed_params"] for trial in found[2:]]
    assert sorted(map(str, again)) == sorted(str(trial.params) for trial in found[:2])


def test_two_processes_make_one_study_together_and_not_one_trial_more(commands: Commands, here: Path) -> None:
    path = written(here, overrides=LONGER, budget={"trials": 7})
    both = [commands.start("sweep", path.name, "--concurrency", "1", "--json") for _ in range(2)]
    ended = [commands.finish(process) for process in both]
    assert [one.status for one in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    done = counted(here)
    assert [trial.state for trial in done] == [TrialState.COMPLETE] * 7
    assert len({trial.params["local.optimizer.lr"] for trial in done}) == 7
    drivers = {trial.user_attrs["fedbench:driver"] for trial in done}
    assert len(drivers) == 2
    documents = [json.loads(one.stdout) for one in ended]
    for document in documents:
        assert [trial["number"] for trial in document["trials"] if trial["counts"]] == [one.number for one in done]
    assert documents[0]["best"] == documents[1]["best"]


@pytest.mark.usefixtures("made_store")
def test_mlflow_shows_the_study_as_a_run_with_its_trials_below(commands: Commands, here: Path) -> None:
    from mlflow import MlflowClient

    # Clients of a single class each, at which one of the two methods raises an exception.
    tracked = [text for text in BASE if not text.startswith(("tracking", "data"))]
    tracked += ["data.clients=10", "data.partition=shards", "data.partition.shards_per_client=1"]
    space = {"algorithm": {"type": "categorical", "choices": ["fedavg", "small:Faulty"]}}
    path = written(here, overrides=tracked, space=space, sampler="grid")
    ended = commands.run("sweep", path.name)
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
