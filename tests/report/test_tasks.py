"""Reports over several tasks: each method is measured against the baseline on its own data, and methods are ranked."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from reading import Page

from fedbench.config.identity import flattened
from fedbench.records.recorded_run import RecordedRun, read_run
from fedbench.report.compare import compare
from fedbench.report.content import Report, make_report
from fedbench.report.files import write_report
from fedbench.report.html import page
from fedbench.report.markdown import document, markdown
from fedbench.report.tasks import baselines, by_task, names_across

pytestmark = pytest.mark.slow

ALPHAS = (0.1, 0.5, 1.0)
LEARNING_RATES = {0.1: 0.3, 0.5: 0.02, 1.0: 0.03}
"""By alpha: settings may differ from task to task without making another method."""

GAINS = {"fedavg": 0.0, "fedprox": 0.01, "fedmr": 0.02}
CEILING = {"centralised": 0.1}


@cache
def original(recorded: Path, seed: int) -> RecordedRun:
    return read_run(recorded / f"full-{seed}")


def made(recorded: Path, algorithm: str, alpha: float, seed: int) -> RecordedRun:
    """A recorded run as that of another method, on other data, with an accuracy that the two decide on."""
    run = original(recorded, seed)
    partition = {"name": "dirichlet", "alpha": alpha, "min_size": 1}
    optimizer = run.config["local"]["optimizer"] | {"lr": LEARNING_RATES[alpha]}
    config = run.config | {
        "algorithm": {"name": algorithm} | ({"mu": 0.1} if algorithm == "fedprox" else {}),
        "data": run.config["data"] | {"partition": partition},
        "local": run.config["local"] | {"optimizer": optimizer},
    }
    accuracy = 0.5 + 0.3 * alpha + (GAINS | CEILING)[algorithm] * (1 + 0.1 * seed)
    summary = run.summary | {
        "best_accuracy": accuracy,
        "final_accuracy": accuracy,
        "model_sha256": f"{algorithm}{alpha}",
    }
    return replace(run, source=f"{algorithm}-{alpha}-{seed}", config=config, summary=summary)


def report_of(
    recorded: Path, alphas: Sequence[float] = ALPHAS, algorithms: Sequence[str] = tuple(GAINS), seeds: int = 3
) -> Report:
    runs = [made(recorded, name, alpha, seed) for alpha in alphas for name in algorithms for seed in range(seeds)]
    return make_report(compare(runs))


def alpha_of(report: Report, letter: str) -> float:
    (method,) = [method for method in report.comparison.methods if method.letter == letter]
    return float(flattened(method.config)["data.partition.alpha"])


def test_what_differs_within_a_task_is_the_method_and_what_differs_between_them_is_not(recorded: Path) -> None:
    methods = report_of(recorded).comparison.methods
    assert set(by_task(methods)) == {"alpha=0.1", "alpha=0.5", "alpha=1"}
    assert set(names_across(methods).values()) == {"fedavg, full", "fedprox, full", "fedmr, full"}


def test_each_method_is_measured_against_the_baseline_on_its_own_data(recorded: Path) -> None:
    report = report_of(recorded)
    methods = {method.letter: method for method in report.comparison.methods}
    for letter, baseline in baselines(report.comparison.methods, report.parts[0].baseline).items():
        assert baseline is not None
        assert baseline.config["algorithm"]["name"] == "fedavg"
        assert alpha_of(report, baseline.letter) == alpha_of(report, letter)
    assert report.parts[0].differences is not None
    assert len(report.parts[0].differences.rows) == 6
    for title, cells in report.parts[0].differences.rows:
        gain = GAINS[methods[title.partition(":")[0]].config["algorithm"]["name"]]
        assert cells[1].spread is not None
        assert cells[1].spread.mean == pytest.approx(1.1 * gain)
    assert "for all 12 comparisons of this table" in report.parts[0].differences.notes[-1]


def test_a_method_on_data_without_the_baseline_has_no_difference(recorded: Path) -> None:
    runs = [made(recorded, name, 0.1, seed) for name in GAINS for seed in range(3)]
    runs += [made(recorded, "fedmr", 0.5, seed) for seed in range(3)]
    report = make_report(compare(runs))
    assert report.parts[0].differences is not None
    (alone,) = [cells for _, cells in report.parts[0].differences.rows if cells[0].text == "0"]
    assert alone[1].note == "The baseline was not run on this data and model."
    assert "for all 4 comparisons" in report.parts[0].differences.notes[-1]


def test_settings_of_one_method_on_different_data_are_still_compared_with_each_other(recorded: Path) -> None:
    report = report_of(recorded, algorithms=["fedavg"])
    assert set(by_task(report.comparison.methods)) == {""}
    assert report.parts[0].differences is not None
    assert len(report.parts[0].differences.rows) == 2
    assert report.parts[0].ranking is None


def test_references_are_shown_beside_and_neither_judged_nor_ranked(recorded: Path) -> None:
    report = report_of(recorded, algorithms=[*GAINS, "centralised"])
    assert report.parts[0].differences is not None
    verdicts = {title: cells[3].text for title, cells in report.parts[0].differences.rows}
    assert {title for title, verdict in verdicts.items() if verdict == "reference"} == {
        title for title in verdicts if "centralised" in title
    }
    family = "for all 12 comparisons of this table (best and final accuracy of 6 methods"
    assert family in report.parts[0].differences.notes[-1]
    assert report.parts[0].ranking is not None
    assert set(report.parts[0].ranking.average) == {"fedmr, full", "fedprox, full", "fedavg, full"}
    document(report)


def test_methods_are_ranked_in_every_file_of_the_report(recorded: Path, tmp_path: Path, no_pdf: None) -> None:
    pytest.importorskip("scikit_posthocs")
    report = report_of(recorded)
    assert report.parts[0].ranking is not None
    assert report.parts[0].ranking.average == {"fedmr, full": 1.0, "fedprox, full": 2.0, "fedavg, full": 3.0}
    write_report(report, tmp_path)
    for name in ("report.html", "report.md", "table.tex"):
        assert "Ranks by best accuracy over 3 tasks" in (tmp_path / name).read_text()
    assert "ranks-best-accuracy" in (tmp_path / "table.csv").read_text()
    assert "(charts/ranks-best-accuracy.svg)" in markdown(report)
    assert (tmp_path / "charts" / "ranks-best-accuracy.pdf").is_file()
    images = [image.attributes["src"] or "" for image in Page(page(report)).root.all("img")]
    assert [image.partition(",")[0] for image in images] == ["data:image/svg+xml;base64"]
    ranks = json.loads(json.dumps(document(report)))["ranks"]
    assert ranks["told_apart"] == [["fedmr, full", "fedavg, full"]]
    write_report(report_of(recorded, ALPHAS[:2]), tmp_path)
    assert not list((tmp_path / "charts").glob("ranks-*"))


def test_two_tasks_are_refused_in_a_word(recorded: Path) -> None:
    report = report_of(recorded, ALPHAS[:2])
    assert report.parts[0].ranking is None
    assert "2 tasks that every method was run on; ranks need 3 tasks and 3 methods at least." in report.intro[-1]


def test_two_seeds_conclude_nothing_anywhere(recorded: Path) -> None:
    report = report_of(recorded, seeds=2)
    assert report.parts[0].ranking is not None
    assert report.parts[0].ranking.methods_differ is None
    assert report.parts[0].differences is not None
    assert {cells[3].text for _, cells in report.parts[0].differences.rows} == {"too few seeds"}
    assert "every method has 2 seeds at most: nothing can be said about what is chance" in markdown(report)
    assert not any(" told apart (p" in text for text in (markdown(report), page(report)))
