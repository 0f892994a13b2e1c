"""Analyses as part of a suite: checked with the file, performed once, and statements beside what was measured."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import in_this_process
from small_suites import WITHOUT, RecordedSuite, plan_of, run, write_suite

from fedbench.cli.suite import dry_run, make_plan
from fedbench.errors import ConfigError
from fedbench.records.recorded_analysis import read_analysis
from fedbench.suites.analysis_part import Statement
from fedbench.suites.run import suite_folder
from fedbench.suites.statements import judged, statements_table

COMPARED = {
    "name": "first-layer",
    "kind": "kernels",
    "cells": ["C=1/FedPart", "C=1/FNU"],
    "set": {"channels": 3},
    "statements": [
        {
            "says": "norms differ",
            "source": "nobody",
            "ascending": ["norm_mean/FedPart", "norm_mean/FNU"],
        }
    ],
}


def test_an_analysis_is_performed_over_the_runs_and_not_again(recorded_suite: RecordedSuite, run_folder: Path) -> None:
    recorded_suite.take("*-seed0")
    suite = write_suite(run_folder, analyses=[COMPARED], seeds=[0])
    outcomes, lines = run(plan_of(suite))
    assert outcomes.status == "finished"
    assert "analysis first-layer: kernels of 2 runs" in lines
    folder = suite_folder(plan_of(suite))
    analysis = read_analysis(folder / "analysis" / "first-layer")
    assert analysis.models == ("FedPart", "FNU")
    assert (folder / "analysis" / "index.html").is_file()
    document = json.loads((folder / "table" / "suite.json").read_text())
    (recorded,) = document["analyses"]
    (statement,) = recorded["statements"]
    partial, full = statement["measured"]["0"]
    assert (partial, full) == (analysis.metrics["norm_mean/FedPart"], analysis.metrics["norm_mean/FNU"])
    assert statement["verdict"] == f"in this order with {int(partial < full)} of 1 seed; too few seeds"
    for name in ("table.md", "table.html", "table.csv", "table.tex"):
        text = re.sub(r"[^\w;]+", " ", (folder / "table" / name).read_text())  # LaTeX has it in several lines
        assert statement["verdict"] in text
    written = (analysis.folder / "analysis.json").stat().st_mtime_ns

    _, lines = run(plan_of(suite))
    assert not any(line.startswith("analysis") for line in lines)
    assert (analysis.folder / "analysis.json").stat().st_mtime_ns == written
    wider = write_suite(run_folder, analyses=[{**COMPARED, "set": {"channels": 2}}], seeds=[0])
    assert "analysis first-layer: kernels of 2 runs" in run(plan_of(wider))[1]


def test_each_seed_has_an_analysis_of_its_own_and_is_judged_by_itself(
    recorded_suite: RecordedSuite, run_folder: Path
) -> None:
    recorded_suite.take("*")
    suite = write_suite(run_folder, analyses=[COMPARED])
    outcomes, _ = run(plan_of(suite))
    folder = suite_folder(plan_of(suite)) / "analysis"
    assert sorted(path.name for path in folder.iterdir()) == ["first-layer-seed0", "first-layer-seed1", "index.html"]
    (analysis,) = outcomes.to_mapping()["analyses"]
    assert set(analysis["statements"][0]["agrees"]) == {"0", "1"}


def test_a_selection_without_its_runs_performs_no_analysis(recorded_suite: RecordedSuite, run_folder: Path) -> None:
    recorded_suite.take("FNU-seed0")
    suite = write_suite(run_folder, analyses=[COMPARED], seeds=[0])
    plan = plan_of(suite, only="FNU")
    assert plan.analyses == ()
    outcomes, lines = run(plan)
    assert outcomes.status == "finished"
    assert any("FedPart seed 0 is not finished" in line for line in lines)


def test_an_analysis_that_fails_is_told_of_and_leaves_the_table(
    recorded_suite: RecordedSuite, run_folder: Path
) -> None:
    recorded_suite.take("*-seed0")
    suite = write_suite(run_folder, analyses=[{**COMPARED, "set": {"layer": "nosuch"}}], seeds=[0])
    outcomes, lines = run(plan_of(suite))
    assert outcomes.status == "failed"
    assert any("nosuch: FedPart has no such layer" in line for line in lines)
    assert outcomes.table().banner == "Analysis first-layer failed."
    assert outcomes.table().rows[0][1][0].measured


def test_a_dry_run_names_the_analyses_and_their_runs(run_folder: Path) -> None:
    document, _ = dry_run(plan_of(write_suite(run_folder, analyses=[COMPARED])))
    assert document["analyses"] == [{"name": "first-layer", "kind": "kernels", "runs": ["FedPart", "FNU"]}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "kernls"}, r"analyses.0.kind=kernls: no such analysis; did you mean 'kernels'"),
        ({"set": {"chanels": 3}}, r"analyses.0: ?set.chanels: unknown key; did you mean 'channels'"),
        ({"set": {"channels": 0}}, r"set.channels=0: .*greater than or equal to 1"),
        ({"cells": ["C=9/*"]}, r"analyses first-layer: cells=C=9/\*: suite tiny has no such row"),
        ({"statements": [{"says": "x", "source": "y", "ascending": ["one"]}]}, r"statements.0.ascending=.*at least 2"),
        ({"nam": "x"}, r"analyses.0.nam: unknown key; did you mean 'name'"),
    ],
)
def test_a_mistake_is_found_when_the_file_is_read(run_folder: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(write_suite(run_folder, analyses=[{**COMPARED, **change}]))


A_BELOW_B = Statement(says="a below b", source="somewhere", ascending=("a", "b"))


def over_seeds(*figures: tuple[float, float]) -> dict[int, dict[str, float]]:
    return {seed: {"a": a, "b": b} for seed, (a, b) in enumerate(figures)}


def test_a_statement_agrees_only_where_three_seeds_tell_its_figures_apart() -> None:
    clear, unclear = over_seeds((1, 2), (1, 2.1), (1.1, 2)), over_seeds((1, 2), (3, 2), (1, 2))
    against = over_seeds((2, 1), (2.1, 1), (2, 1.1))
    verdicts = [judged([A_BELOW_B], figures)[0].verdict for figures in (clear, unclear, against)]
    assert verdicts[0] == "agrees (p 0.003, adjusted 0.003; in this order with 3 of 3 seeds)"
    assert verdicts[1].startswith("not told apart (p 0.667")  # differences 1, -1, 1: t = 0.5 with 2 degrees of freedom
    assert verdicts[2].startswith("does not agree (p 0.003")


@pytest.mark.parametrize(
    ("figures", "seeds"), [([(1.0, 2.0)], "1 of 1 seed"), ([(1.0, 2.0), (1.0, 2.0)], "2 of 2 seeds")]
)
def test_with_fewer_than_three_seeds_a_statement_has_no_verdict(figures: list[tuple[float, float]], seeds: str) -> None:
    (judgement,) = judged([A_BELOW_B], over_seeds(*figures))
    assert judgement.verdict == f"in this order with {seeds}; too few seeds"
    assert judged([A_BELOW_B], {0: {"a": 1.0}})[0].verdict == "not measured"
    ((label, texts),) = statements_table("t", [judgement]).rows
    assert (label, texts) == ("a below b (somewhere)", ("a 1, b 2", judgement.verdict))


def test_statements_are_corrected_for_all_their_comparisons() -> None:
    figures = over_seeds((1, 2), (1, 2.2), (1.1, 2))
    alone, together = judged([A_BELOW_B], figures)[0], judged([A_BELOW_B] * 10, figures)[0]
    assert alone.verdict.startswith("agrees")
    assert together.verdict.startswith("not told apart")
    assert together.steps[0].adjusted == pytest.approx(10 * (alone.steps[0].p_value or 0))


def test_the_command_says_whether_a_statement_agrees_in_one_line(
    recorded_suite: RecordedSuite,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recorded_suite.take("*-seed0")
    suite = write_suite(run_folder, analyses=[COMPARED], seeds=[0])
    finished = in_this_process(monkeypatch, capfd)("suite", suite, *WITHOUT)
    assert finished.status == 0, finished.stderr
    assert "too few seeds" in next(line for line in finished.stdout.splitlines() if "norms differ (nobody)" in line)
    assert "analyses: " in finished.stdout


def test_another_suites_run_counts_only_if_it_has_kept_what_this_suite_wants_kept(
    recorded_suite: RecordedSuite, run_folder: Path
) -> None:
    recorded_suite.take("*-seed0")
    tiny: dict[str, object] = {"seeds": [0], "published": None}
    kept = {**tiny, "set": {"runtime.keep_models": ["2-3"], "runtime.keep_messages": [1]}}
    less = {**tiny, "set": {"runtime.keep_models": [3]}}
    for name, changes, runs in (("plain", tiny, 0), ("kept", kept, 2), ("less", less, 0), ("again", tiny, 0)):
        plan = plan_of(write_suite(run_folder, name=name, **changes))
        outcomes, _ = run(plan)
        assert outcomes.status == "finished"
        assert sum(not outcome.reused for outcome in outcomes.by_digest.values()) == runs, name


@pytest.mark.slow
def test_mlflow_has_the_analyses_in_the_suites_run_also_where_all_runs_were_recorded_before(
    run_folder: Path, empty_store: Path
) -> None:
    from mlflow import MlflowClient

    shutil.copy(empty_store, run_folder / "store.db")
    tracked = ("runtime.executor=inline", f"tracking.mlflow_uri=sqlite:///{run_folder}/store.db")
    client = MlflowClient(tracked[1].partition("=")[2])
    for name, analyses in (("first", [COMPARED]), ("second", [COMPARED, {**COMPARED, "name": "second"}])):
        suite = write_suite(run_folder, analyses=analyses, seeds=[0])
        assert run(make_plan([suite, *tracked]))[0].status == "finished"
        experiment = client.get_experiment_by_name("fedbench")
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [found for found in runs if "mlflow.parentRunId" not in found.data.tags]
        folder = f"analysis/{analyses[-1]['name']}"
        files = {file.path for file in client.list_artifacts(parent.info.run_id, folder)}
        assert f"{folder}/kernels.png" in files, name
        assert f"{analyses[-1]['name']}/norm_mean/FNU" in parent.data.metrics
        assert parent.info.status == "FINISHED"


def test_another_seed_has_a_folder_of_its_own_and_what_is_there_stays(
    recorded_suite: RecordedSuite, run_folder: Path
) -> None:
    recorded_suite.take("*")
    suite = write_suite(run_folder, analyses=[COMPARED], seeds=[0])
    for seeds in ("0", "1", "0,1"):
        _, lines = run(plan_of(suite, seeds=seeds))
    assert not any(line.startswith("analysis") for line in lines)
    folder = suite_folder(plan_of(suite)) / "analysis"
    assert sorted(path.name for path in folder.iterdir()) == ["first-layer", "first-layer-seed1", "index.html"]
