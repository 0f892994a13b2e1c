"""Reports on runs of other tasks than classification: they go by the metric of the task, its unit and its direction."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reading import Page
from small_tasks import config

from fedbench.errors import ConfigError
from fedbench.experiment.run import run
from fedbench.records.recorded_run import RecordedRun, run_directories
from fedbench.report.compare import compare, load
from fedbench.report.content import Report, make_report
from fedbench.report.files import write_report
from fedbench.report.html import page
from fedbench.report.markdown import document, markdown
from fedbench.report.shown_headline import ShownHeadline, tenth_worse
from fedbench.tables.table import Cell, Table
from fedbench.tasks.kinds import TASKS, TaskName

pytestmark = pytest.mark.slow

METHODS = {"slow": "local.optimizer.lr=0.002", "quick": "local.optimizer.lr=0.05"}
PERPLEXITY = ShownHeadline(TASKS["next_token"].headline)


@pytest.fixture(scope="module")
def folder(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs regression-slow-0 .. -2, regression-quick-0 .. -2, and one of each with multilabel and with next_token."""
    root = tmp_path_factory.mktemp("tasks")
    patch = pytest.MonkeyPatch()
    patch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
    names: list[tuple[TaskName, int]] = [("regression", 3), ("next_token", 1), ("multilabel", 1)]
    for task, seeds in names:
        for method, override in METHODS.items():
            for seed in range(seeds):
                place = root / f"{task}-{method}-{seed}"
                run(
                    config(task, override, f"seed={seed}", f"output.directory={place}", "data.client_test_fraction=0.3")
                )
    patch.undo()
    return root


def report_on(folder: Path, *tasks: TaskName, target: float | None = None, columns: Sequence[str] = ()) -> Report:
    """The report on the runs of these tasks."""
    runs = [directory for directory in run_directories([folder]) if directory.name.startswith(tasks)]
    return make_report(compare(load(runs)), target=target, columns=columns)


def values(folder: Path, name: str, figure: str) -> list[float]:
    return [json.loads((folder / f"{name}-{seed}" / "summary.json").read_text())[figure] for seed in range(3)]


def cell(table: Table, row: str, column: str) -> Cell:
    (cells,) = [cells for label, cells in table.rows if row in label]
    return cells[table.columns.index(column)]


def test_the_tables_of_a_regression_are_in_mae_and_say_nothing_of_accuracy(folder: Path) -> None:
    (part,) = report_on(folder, "regression").parts
    assert part.results.title == "MAE and cost of each method"
    assert part.results.columns[:3] == ("best MAE", "final MAE", "R2 of the best round")
    shown = cell(part.results, "lr=0.05", "best MAE")
    assert shown.spread is not None
    assert shown.spread.mean == pytest.approx(statistics.fmean(values(folder, "regression-quick", "best_mae")))
    assert (shown.number.scale, shown.number.unit) == (1.0, "")
    text = page(report_on(folder, "regression")) + markdown(report_on(folder, "regression"))
    assert "ccurac" not in text.replace("test_accuracy", "")
    assert "MAE by bytes sent" in text
    assert "the smallest of all rounds on the test split itself, and by that somewhat too low" in text


def test_differences_from_the_baseline_say_which_direction_is_better(folder: Path) -> None:
    (part,) = report_on(folder, "regression").parts
    assert part.differences is not None
    assert part.differences.columns[1:3] == ("best MAE", "best: 95 % interval")
    difference = cell(part.differences, "", "best MAE")
    quick, slow = (values(folder, f"regression-{method}", "best_mae") for method in ("quick", "slow"))
    sign = 1 if "0.002" in part.baseline.label else -1
    assert difference.spread is not None
    expected = [sign * (a - b) for a, b in zip(quick, slow, strict=True)]
    assert list(difference.spread.values) == pytest.approx(expected)
    assert difference.number.is_change
    sentence = "Lower MAE is better: a difference below zero speaks for the method."
    assert any(sentence in note for note in part.differences.notes)


def test_a_target_is_reached_from_above_where_less_is_better(folder: Path) -> None:
    runs = [folder / f"regression-{method}-0" for method in METHODS]
    courses = [read.column("test_mae") for read in load(runs) if isinstance(read, RecordedRun)]
    target = float(np.nanmin(courses[1])) + 1e-6
    assert np.nanmin(courses[0]) > target, "the slow method never comes so far"
    (part,) = report_on(folder, "regression", target=target).parts
    assert part.reached is not None
    assert part.reached.title.endswith(" or less")
    assert cell(part.reached, "lr=0.002", "seeds that reached it").text == "0 of 3"
    table = make_report(compare(load(runs)), target=target).parts[0].reached
    assert table is not None
    first = int(np.flatnonzero(courses[1] <= target)[0]) + 1
    reached = cell(table, "lr=0.05", "round").spread
    assert reached is not None
    assert reached.values == (first,)
    assert "first scored at the target or below" in " ".join(table.notes)


def test_the_target_that_nobody_gave_is_a_tenth_worse_than_the_worst_method(folder: Path) -> None:
    (part,) = report_on(folder, "next_token").parts
    worst = max(method.spread("best_perplexity").mean for method in part.methods)
    assert part.target is not None
    assert 1.1 * worst <= part.target < 1.111 * worst
    assert tenth_worse(PERPLEXITY, 100.0) == 110.0
    assert tenth_worse(PERPLEXITY, 0.0123) == pytest.approx(0.0136)
    assert part.reached is not None
    assert part.reached.notes[0] == "The target is 1.1 times the worst method's best perplexity."


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        ("regression", -1.0, "--target -1: must be an MAE above 0"),
        ("next_token", math.inf, "--target inf: must be a perplexity above 0"),
        ("multilabel", 50.0, r"--target 50: must be a macro F1 above 0 and up to 1; did you mean 0.5\?"),
    ],
)
def test_a_target_that_the_metric_cannot_have_is_refused(
    folder: Path, task: TaskName, target: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        report_on(folder, task, target=target)


def test_charts_are_drawn_in_the_unit_of_the_metric(folder: Path) -> None:
    (part,) = report_on(folder, "next_token").parts
    chart = part.charts[0]
    assert chart.title == "Perplexity by round"
    svg = Page(chart.to_svg()).root.all("svg")[0]
    assert "test perplexity" in [text.text for text in svg.all("text")]
    _, y = chart.scales()
    (line,) = [line for line in chart.lines if "0.05" in line.label]
    dots = [dot for dot in svg.all("circle") if dot.text.startswith(f"{line.letter}:")]
    height = float(dots[-1].attributes["cy"] or "")
    shown = y.low + (height - y.start) / (y.end - y.start) * (y.high - y.low)
    final = json.loads((folder / "next_token-quick-0" / "summary.json").read_text())["final_perplexity"]
    assert shown == pytest.approx(final, rel=0.01)
    assert "%" not in dots[-1].text
    (share,) = report_on(folder, "multilabel").parts
    assert share.charts[0].shown.axis == "test macro F1 (%)"
    assert share.results.columns[0] == "best macro F1 (%)"


def test_the_clients_go_from_the_worst_to_the_best_by_the_metric(folder: Path) -> None:
    (part,) = report_on(folder, "regression").parts
    assert part.clients is not None
    assert part.clients.title == "MAE of single clients"
    assert part.clients.columns == ("mean", "std", "worst decile", "worst")
    mean, worst = (cell(part.clients, "lr=0.05", name).spread for name in ("mean", "worst"))
    assert mean is not None and worst is not None  # noqa: PT018
    assert worst.mean > mean.mean
    chart = part.client_charts[0]
    assert chart.title == "Clients' MAE, global model"
    assert all((np.diff(line.curve.mean) <= 0).all() for line in chart.lines)


def test_runs_of_several_tasks_are_parts_of_one_page_and_never_compared(
    folder: Path, tmp_path: Path, no_pdf: None
) -> None:
    report = report_on(folder, "regression", "next_token", "multilabel")
    tasks = dict.fromkeys(method.task for method in report.comparison.methods)
    assert [part.name for part in report.parts] == list(tasks)
    assert sum(len(part.methods) for part in report.parts) == len(report.comparison.methods) == 6
    for part in report.parts:
        assert {method.task for method in part.methods} == {part.name}
        assert part.baseline in part.methods
        assert part.ranking is None
        assert len(part.results.rows) == 2
    text = page(report)
    for heading in ("Results: regression", "Results: next token", "Perplexity against what was spent: next token"):
        assert heading in text
    ids = [element.attributes["id"] for kind in ("title", "desc", "figure") for element in Page(text).root.all(kind)
           if element.attributes.get("id")]  # fmt: skip
    assert len(ids) == len(set(ids))
    files = write_report(report, tmp_path / "out")
    assert len(files) == len(set(files))
    assert (tmp_path / "out" / "charts" / "by-round-next_token.svg").is_file()
    again = write_report(report_on(folder, "regression"), tmp_path / "out")
    left = {file.name for file in (tmp_path / "out" / "charts").iterdir()}
    assert left == {file.name for file in again if file.parent.name == "charts"}, "charts of other tasks are gone"
    assert any("shown apart" in caveat.text for caveat in report.comparison.caveats)
    assert not any("different data" in caveat.text for caveat in report.comparison.caveats)
    values_of_runs = [cells[2].text for _, cells in report.runs.rows]
    assert any(text.endswith(" perplexity") for text in values_of_runs)
    assert any(text.endswith(" % macro F1") for text in values_of_runs)
    written = document(report)
    assert written["target"] is None
    assert {task["metric"]: task["higher_is_better"] for task in written["tasks"]} == {
        "mae": False,
        "perplexity": False,
        "macro_f1": True,
    }
    with pytest.raises(ConfigError, match=r"--target 0.5: these runs are judged by several metrics \("):
        report_on(folder, "regression", "next_token", target=0.5)


def test_columns_that_only_another_task_has_are_left_out_of_a_part(folder: Path) -> None:
    report = report_on(folder, "regression", "next_token", columns=("best_mae", "best_perplexity", "total_bytes"))
    columns = {part.name: len(part.results.columns) for part in report.parts}
    assert columns == {"regression": 2, "next_token": 2}


def test_methods_on_several_data_sets_are_ranked_with_the_least_first(folder: Path) -> None:
    """The recorded runs as those of three data sets, and of a third method that lies between the two."""
    runs: list[RecordedRun] = []
    for recorded in load([folder / f"regression-{method}-{seed}" for method in METHODS for seed in range(3)]):
        assert isinstance(recorded, RecordedRun)
        for place in ("one", "two", "three"):
            data = {**recorded.config["data"], "dataset": {**recorded.config["data"]["dataset"], "name": place}}
            optimizer = recorded.config["local"]["optimizer"]
            runs.append(_copy(recorded, {**recorded.config, "data": data}, recorded.summary))
            if optimizer["lr"] == 0.05:
                local = {**recorded.config["local"], "optimizer": {**optimizer, "lr": 0.01}}
                summary = {**recorded.summary, "best_mae": recorded.summary["best_mae"] + 0.01}
                runs.append(_copy(recorded, {**recorded.config, "data": data, "local": local}, summary))
    (part,) = make_report(compare(runs)).parts
    assert part.ranking is not None
    assert [name.rpartition("lr=")[2] for name in part.ranking.average] == ["0.05", "0.01", "0.002"]
    assert "Rank 1 is the smallest best MAE" in part.ranking.table().notes[0]


def _copy(recorded: RecordedRun, config: dict[str, object], summary: dict[str, object]) -> RecordedRun:
    digest = f"{recorded.digest}-{config['data']}-{config['local']}"
    return replace(recorded, config=config, summary=summary, digest=digest)
