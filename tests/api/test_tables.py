"""Suites, studies and reports from Python: what they return is what the command line writes."""

import json
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
from matplotlib import pyplot as plt
from small_studies import study
from small_suites import WITHOUT, write_suite

import fedbench
from fedbench import ConfigError, ExperimentConfig, FedbenchError

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")

INLINE = {"runtime.executor": "inline", "tracking.enabled": False}


@pytest.mark.slow
def test_a_suite_returns_its_cells_and_runs_and_prints_nothing(
    run_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, rows = write_suite(run_folder), []
    result = fedbench.run_suite(path, INLINE, seeds=[0], progress=rows.append)
    assert capfd.readouterr() == ("", "")
    assert result.status == "finished"
    assert result.directory == run_folder / "runs" / "suites" / "tiny"
    cells = result.frame().set_index(["row", "column"])
    assert cells.loc[("C=1", "FNU"), "published"] == 50.0
    assert cells["mean"].notna().all()
    assert cells["std"].isna().all()
    runs = result.runs()
    assert list(runs["status"]) == ["finished", "finished"]
    assert [row["directory"] for row in rows] == [Path(directory) for directory in runs["directory"]]
    assert json.loads((result.files / "suite.json").read_text()) == result.summary
    assert result.to_markdown() in (result.files / "table.md").read_text()

    again = fedbench.run_suite(path, [*WITHOUT], seeds=[0], progress=True)
    assert list(again.runs()["reused"]) == [True, True]
    assert len(repr(again)) < 600
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.count("recorded before") == 2


def test_a_run_of_a_suite_that_fails_is_told_of_in_its_row_alone(
    run_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_suite(run_folder)
    broken = {
        "algorithm": "small:Faulty",
        "data": {"clients": 10, "samples_per_client": None, "partition": {"name": "shards", "shards_per_client": 1}},
    }
    result = fedbench.run_suite(path, INLINE | broken, seeds=[0], only="C=1/FNU")
    assert capfd.readouterr() == ("", "")
    assert result.status == "failed"
    (reason,) = result.runs()["reason"]
    assert "this client is broken" in reason
    assert "this client is broken" in result.frame()["absence"][0]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"suite": "fedpart-table8"}, "no such suite; did you mean"),
        ({"scale": 2}, r"^scale=2: must be greater than 0"),
        ({"seeds": [0, 0]}, r"seeds=\[0, 0\]: must be different whole numbers"),
        ({"seeds": "01"}, "seeds='01': must be"),
        ({"seeds": []}, r"seeds=\[\]: must be"),
        ({"only": "nowhere"}, r"^only"),
        ({"overrides": {"seed": 3}}, "seed=3: a suite sets this"),
        ({"progress": 3}, "progress=3: must be"),
    ],
)
def test_a_wrong_argument_of_a_suite_is_named_as_python_has_it(arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(FedbenchError, match=part) as caught:
        fedbench.run_suite(**{"suite": "quickstart"} | arguments)
    assert "--" not in str(caught.value)


@pytest.mark.slow
def test_a_study_returns_its_trials_and_leaves_optuna_and_open_figures_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        mine = plt.figure()
        trials: list[dict[str, Any]] = []
        result = fedbench.run_study(study(), trials=2, concurrency=1, progress=trials.append)
        assert optuna.logging.get_verbosity() == optuna.logging.ERROR
        assert plt.get_fignums() == [mine.number]
    finally:
        plt.close("all")
        optuna.logging.set_verbosity(optuna.logging.INFO)
    assert capfd.readouterr() == ("", "")
    frame = result.frame()
    assert result.status == "finished"
    assert list(frame["number"]) == [trial["number"] for trial in trials] == [0, 1]
    assert list(frame["value:best_accuracy"]) == [trial["values"][0] for trial in trials]
    assert list(frame["local.optimizer.lr"]) == [trial["parameters"]["local.optimizer.lr"] for trial in trials]
    best = ExperimentConfig.load(result.best_files[0])
    assert best.local.optimizer.lr == result.best[0].params["local.optimizer.lr"]

    assert len(repr(result)) < 600

    more = fedbench.run_study(study(), {"name": "small"}, trials=3, concurrency=1)
    assert len(more.frame()) == 3


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such study"):
        fedbench.run_study("nowhere")


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c_heeded")
def test_ctrl_c_ends_a_study_after_the_round(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        fedbench.run_study(study(), trials=4, concurrency=1, progress=lambda trial: signal.raise_signal(signal.SIGINT))
    assert caught.value.__notes__ == ["go on with the same call"]
    result = fedbench.run_study(study(), trials=4, concurrency=1)
    assert result.status == "finished"


def test_a_report_returns_the_runs_that_it_compares(run_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = ExperimentConfig.load(
        "quickstart",
        INLINE | {"rounds": 1, "data.clients": 2, "data.samples_per_client": 40, "model.width": 2, "schedule": "full"},
    )
    results = [
        fedbench.run(ExperimentConfig.load(base, {"algorithm": name, "seed": seed}))
        for name in ("fedavg", "feddyn")
        for seed in (0, 1)
    ]
    report = fedbench.write_report(
        results, baseline="fedavg", target=0.5, columns=["best_accuracy"], labels={"feddyn": "Dyn"}, output="compared"
    )
    assert capfd.readouterr() == ("", "")
    assert [file.name for file in report.files][:4] == ["report.html", "report.md", "table.csv", "table.tex"]
    assert report.content.command.startswith("fedbench report ")
    frame = report.frame()
    assert list(frame["seed"]) == [0, 1, 0, 1]
    assert len(set(frame["method"])) == 2
    assert frame["method"][2] == "Dyn"
    assert list(frame["final_accuracy"]) == [result.summary["final_accuracy"] for result in results]
    assert list(frame["total_bytes"]) == [
        result.summary["uplink_bytes"] + result.summary["downlink_bytes"] for result in results
    ]
    assert len(fedbench.write_report().frame()) == 4  # of the folder runs
    assert len(fedbench.write_report(results[0]).frame()) == 1
    assert len(repr(report)) < 600
    assert repr(results[0]).startswith("<Result: finished, 1 rounds, best accuracy 0.")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"runs": []}, "name at least one run"),
        ({"runs": "nowhere"}, "nowhere"),
        ({"mlflow_uri": "sqlite:///x.db"}, "has no effect without experiment"),
    ],
)
def test_a_wrong_argument_of_a_report_is_refused(arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(FedbenchError, match=part) as caught:
        fedbench.write_report(**arguments)
    assert "--" not in str(caught.value)
