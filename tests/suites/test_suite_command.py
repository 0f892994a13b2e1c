"""`fedbench suite` as a command: interrupted, killed, gone on with, and what it leaves in MLflow."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Finished, start, write_cifar10
from interrupted import interrupted_after
from small_suites import BASE, TINY, WITHOUT, RecordedSuite, directories, write_suite
from waiting import wait_until

from fedbench.cli.suite import make_plan
from fedbench.errors import DataError
from fedbench.suites.data_places import require_data

Call = Callable[..., Finished]

LONG = {**BASE, "rounds": 50, "schedule": "full", "runtime": {"executor": "inline", "checkpoint_every": 5}}
"""Some seconds a run, with checkpoints."""

COLUMNS = [{"name": "best", "measure": "best_accuracy"}]


def wait_for(process: subprocess.Popen[str], there: Callable[[], bool]) -> None:
    """Until something is there; the process must not end before."""
    deadline = time.monotonic() + 240
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def checkpoints(run: str) -> list[Path]:
    """Of the runs whose directory begins with this."""
    return list(Path("runs/suites/long").glob(f"{run}*/checkpoints/round-*"))


@pytest.fixture
def long_suite(run_folder: Path) -> str:
    return write_suite(run_folder, None, "long", base=LONG, rows=[{"name": "a"}], columns=COLUMNS, published=None)


@pytest.mark.slow
def test_a_killed_suite_is_gone_on_with_by_the_same_command(
    long_suite: str, call: Call, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("suite", long_suite, "--json", "tracking.enabled=false")
    with start(run_folder, *command, stderr=subprocess.DEVNULL) as process:
        wait_for(process, lambda: bool(checkpoints("a-seed1")))
        process.send_signal(signal.SIGKILL)
    folder = run_folder / "runs/suites/long"
    first = directories(folder)
    seed0 = next(name for name in first if "seed0" in name)
    assert len(first) == 2
    assert json.loads((folder / "table" / "suite.json").read_text())["banner"] == "Incomplete: 1 of 2 runs."

    again = call(*command)
    assert again.status == 0, again.stderr
    second = directories(folder)
    assert second.keys() == first.keys()
    assert second[seed0] == first[seed0]
    document = json.loads(again.stdout)
    assert [run["reused"] for run in document["runs"]] == [True, False]

    unbroken = run_folder / "unbroken"
    unbroken.mkdir()
    monkeypatch.chdir(unbroken)
    alone = json.loads(call(*command, "--seeds", "1").stdout)
    assert alone["runs"][0]["model_sha256"] == document["runs"][1]["model_sha256"]
    assert alone["cells"][0]["values"]["1"] == document["cells"][0]["values"]["1"]


@pytest.mark.slow
def test_an_interrupt_ends_the_suite_with_a_checkpoint_and_the_table_so_far(
    long_suite: str, call: Call, run_folder: Path
) -> None:
    command = ("suite", long_suite, "--json", "tracking.enabled=false")
    with interrupted_after(lambda: wait_until(lambda: bool(checkpoints("a-seed1")), "no checkpoint of the second run")):
        stopped = call(*command)
    assert stopped.status == 130
    assert "go on with the same command" in stopped.stderr
    assert stopped.stderr.startswith("starting long: 2 of 2 runs, in this process\n")
    document = json.loads(stopped.stdout)
    assert document["status"] == "interrupted"
    assert document["banner"] == "Incomplete: 1 of 2 runs."
    assert [run["status"] for run in document["runs"]] == ["finished", "interrupted"]
    assert "Incomplete: 1 of 2 runs" in (run_folder / "runs/suites/long/table/table.md").read_text()
    again = call(*command)
    assert again.status == 0, again.stderr
    assert len(directories(run_folder / "runs/suites/long")) == 2


@pytest.mark.slow
def test_mlflow_has_one_run_for_the_suite_with_the_runs_below_it(call: Call, run_folder: Path) -> None:
    from mlflow import MlflowClient

    suite = write_suite(run_folder)
    uri = f"sqlite:///{run_folder}/store.db"
    command = ("suite", suite, "runtime.executor=inline", f"tracking.mlflow_uri={uri}", "tracking.experiment=tables")
    first = call(*command, "--seeds", "0")
    assert first.status == 0, first.stderr
    second = call(*command)
    assert second.status == 0, second.stderr
    assert "warning" not in second.stderr.replace("close to chance", "").replace("warning: F", "")

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tables")
    assert "fedbench" in experiment.tags["mlflow.note.content"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert (parent.info.run_name, parent.info.status) == ("tiny", "FINISHED")
    assert sorted(run.info.run_name for run in children) == [
        "FNU seed 0", "FNU seed 1", "FedPart seed 0", "FedPart seed 1",
    ]  # fmt: skip
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    for run in [parent, *children]:
        assert run.data.tags["suite"] == "tiny"
    assert {run.data.tags["schedule"] for run in children} == {"full", "sequential"}
    assert {run.data.tags["partition"] for run in children} == {"iid"}
    assert "A tiny table" in parent.data.tags["mlflow.note.content"]
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert files >= {"table.md", "table.html", "table.tex", "table.csv", "report.html"}
    assert "<svg" in (run_folder / "runs/suites/tiny/report/report.html").read_text()
    document = json.loads((run_folder / "runs/suites/tiny/table/suite.json").read_text())
    for cell in document["cells"]:
        name = f"{cell['column']}/{cell['row']}".replace("=", "_")
        assert parent.data.metrics[name] == pytest.approx(cell["mean"])


@pytest.mark.slow
def test_one_ray_serves_all_runs(run_folder: Path, local_ray: None) -> None:
    import ray
    from small_suites import plan_of, run

    plan = plan_of(write_suite(run_folder), "runtime.executor=ray", "runtime.actors=1", seeds="0")
    inline = plan_of(write_suite(run_folder), seeds="0")
    outcomes, _ = run(plan)
    assert outcomes.status == "finished"
    assert ray.is_initialized()
    assert plan.runs.keys() == inline.runs.keys()  # where it runs makes no other run of it


def test_a_dry_run_says_what_would_run_and_runs_nothing(call: Call, run_folder: Path) -> None:
    suite = write_suite(run_folder)
    text = call("suite", suite, "--dry-run", *WITHOUT)
    assert text.status == 0, text.stderr
    assert "4 runs to be run, 0 recorded: " in text.stdout
    assert not (run_folder / "runs").exists()
    call("suite", suite, "--seeds", "0", "--only", "FNU", *WITHOUT)
    found = call("suite", suite, "--dry-run", "--json", *WITHOUT)
    document = json.loads(found.stdout)
    assert document["to_run"] == 3
    full, partial = document["runs"]
    assert (full["label"], full["recorded"], full["rounds"]) == ("FNU", [0], 10)
    assert (partial["label"], partial["recorded"]) == ("FedPart", [])
    assert partial["uplink_bytes"] < full["uplink_bytes"]
    assert document["total"]["uplink_bytes"] == full["uplink_bytes"] + 2 * partial["uplink_bytes"]
    summary = json.loads(next((run_folder / "runs/suites/tiny").glob("FNU-*/summary.json")).read_text())
    assert summary["uplink_bytes"] == full["uplink_bytes"]


def test_a_failed_cell_is_exit_status_1_and_stdout_is_the_result(
    call: Call, run_folder: Path, recorded_suite: RecordedSuite
) -> None:
    columns = [
        *TINY["columns"],
        {"name": "Broken", "measure": "best_accuracy", "set": {"algorithm": "small:Exhausted"}},
    ]
    recorded_suite.take("*-seed0")
    suite = write_suite(run_folder, columns=columns, published=None)
    found = call("suite", suite, "--only", "C=1/[!C]*", "--seeds", "0", *WITHOUT)
    assert found.status == 1
    assert "A tiny table" in found.stdout
    assert "nothing left to minimise" in found.stdout
    assert "1 of 3 runs failed." in found.stdout
    assert "3/3  Broken seed 0  failed: " in found.stderr


def test_a_mistake_is_one_line_and_exit_status_2(call: Call, run_folder: Path) -> None:
    for arguments in (
        ("nosuch",),
        ("quickstart", "--only", "x/y"),
        ("quickstart", "--scale", "2"),
        ("quickstart", "rounds=x"),
    ):
        found = call("suite", *arguments)
        assert (found.status, found.stdout) == (2, "")
        assert found.stderr.startswith("error: ")
        assert found.stderr.count("\n") == 1
    assert not (run_folder / "runs").exists()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("suite", "fedpart-table1"), "data.root: must be set with data.dataset=cifar10: .*get it with: fedbench data"),
        (
            ("suite", "fedpart-table1", "data.root=ROOT"),
            "cifar10: not found, .*cifar100: not found, .*tiny-imagenet: not",
        ),
        (("suite", "fedpart-table7", "data.root=nowhere"), "data.root=nowhere: no such folder"),
        (("sweep", "STUDY"), "data.root: must be set with data.dataset=cifar10"),
        (("run", "fedpart-cifar10"), "data.root: must be set with data.dataset=cifar10"),
    ],
)
def test_without_data_nothing_is_started_and_one_line_says_so(
    call: Call, run_folder: Path, command: tuple[str, ...], expected: str
) -> None:
    root, study = run_folder / "root", run_folder / "study.yaml"
    root.mkdir()
    study.write_text(
        "base: fedpart-cifar10\nspace: {local.epochs: {type: int, low: 1, high: 2}}\n"
        "objectives: [{metric: final_accuracy, direction: maximize}]\nbudget: {trials: 2}\n"
    )
    finished = call(*(part.replace("ROOT", str(root)).replace("STUDY", str(study)) for part in command))
    assert (finished.status, finished.stdout) == (2, "")
    assert re.fullmatch(rf"error: .*{expected}.*\n", finished.stderr), finished.stderr
    assert sorted(path.name for path in run_folder.iterdir()) == ["root", "study.yaml"]


def test_runs_whose_data_alone_are_missing_do_not_keep_the_others_from_running(run_folder: Path) -> None:
    root = write_cifar10(run_folder / "root")
    plan = make_plan(["fedpart-table1", f"data.root={root}"])
    require_data(plan, lambda: ())
    only = make_plan(["fedpart-table1", f"data.root={root}"], only="tiny-imagenet*")
    with pytest.raises(DataError, match=r"^tiny-imagenet: not found, [^;]*; place [^;]*$"):
        require_data(only, lambda: ())
    # A table that is recorded as a whole is shown without the data.
    require_data(only, lambda: only.runs)
