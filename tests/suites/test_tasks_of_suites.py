"""Suites of other tasks than classification, and measures of one's own: their metric, unit and direction."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from small_suites import WITHOUT, run, write_suite
from small_tasks import config

from fedbench.api.progress import Row
from fedbench.api.reports import WrittenReport
from fedbench.api.suites import SuiteRows
from fedbench.cli.suite import dry_run, make_plan
from fedbench.cli.suite_progress import SuiteProgress
from fedbench.data.base import Dataset, FederatedData
from fedbench.errors import ConfigError
from fedbench.report.compare import compare, load
from fedbench.report.content import make_report
from fedbench.report.markdown import document
from fedbench.suites.cell_values import Measure
from fedbench.suites.results import Outcomes
from fedbench.suites.task_measures import require_measures
from fedbench.tables import render

pytestmark = pytest.mark.slow

RATES = {"slow": 0.002, "quick": 0.05}


def columns(**measures: object) -> list[dict[str, object]]:
    return [{"name": name, "measure": measure} for name, measure in measures.items()]


@pytest.fixture(scope="module")
def outcomes(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """A regression with two learning rates and three seeds, and with all rows in one place."""
    folder = tmp_path_factory.mktemp("suite")
    patch = pytest.MonkeyPatch()
    patch.setenv("FEDBENCH_RUNS", str(folder / "runs"))
    patch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
    name = write_suite(
        folder,
        title="A regression",
        base=config("regression").to_mapping(),
        seeds=[0, 1, 2],
        baseline="slow",
        rows=[
            {"name": "slow", "set": {"local.optimizer.lr": RATES["slow"]}},
            {"name": "quick", "set": {"local.optimizer.lr": RATES["quick"]}},
            {"name": "centralised", "set": {"local.optimizer.lr": RATES["quick"], "algorithm": "centralised"}},
        ],
        columns=columns(
            best="best_mae",
            R2="best_r2",
            sent={"value": "sent_mb", "target": 2.0},
            named={"value": "rounds", "target": 2.0, "metric": "mae"},
        ),
        published={"source": "nobody, Table 1", "values": {"quick": {"best": "0.9 +- 0.1", "R2": "-0.5 +- 0.1"}}},
        notes=[],
    )
    done = run(make_plan([name, *WITHOUT]))[0]
    patch.undo()
    return done


def test_a_suite_of_a_regression_runs_and_shows_the_metric_as_it_is(outcomes: Outcomes) -> None:
    assert outcomes.status == "finished"
    table = outcomes.table()
    assert table.columns[0] == "best"
    assert "sent to MAE 2 (MB)" in table.columns
    assert "named to MAE 2" in table.columns
    cells = dict(table.rows)
    digests = outcomes.plan.cells["quick", "best"].runs.values()
    expected = [outcomes.by_digest[digest].summary["best_mae"] for digest in digests]
    shown = cells["quick"][0]
    assert shown.spread is not None
    assert list(shown.spread.values) == pytest.approx(expected)
    assert shown.published == 0.9
    assert any("Best MAE: the smallest of all rounds on the test split itself" in note for note in table.notes)
    text = render.markdown(table)
    assert "ccuracy" not in text.replace("judged by", "")


def test_a_target_is_reached_by_falling_to_it(outcomes: Outcomes) -> None:
    cells = {row: dict(zip(outcomes.table().columns, cells, strict=True)) for row, cells in outcomes.table().rows}
    assert cells["slow"]["named to MAE 2"].text == "not reached"
    reached = cells["quick"]["named to MAE 2"].spread
    assert reached is not None
    for seed, digest in outcomes.plan.cells["quick", "named"].runs.items():
        course = outcomes._history(digest)["test_mae"].to_pylist()
        first = next(place for place, value in enumerate(course, 1) if value <= 2.0)
        assert reached.values[seed] == first


def test_differences_go_by_the_direction(outcomes: Outcomes) -> None:
    differences = outcomes.differences()
    assert differences is not None
    (row,) = differences.rows
    assert row[0] == "quick"
    assert row[1][0].spread is not None
    assert row[1][0].spread.mean < 0
    assert any(note.startswith("Lower is better: best MAE;") for note in differences.notes)


def test_progress_and_rows_for_programs_name_the_metric(outcomes: Outcomes) -> None:
    seen = io.StringIO()
    (digest, *_) = outcomes.plan.cells["quick", "best"].runs.values()
    done = outcomes.by_digest[digest]
    progress = SuiteProgress(Console(file=seen, width=200), 1)
    progress.begin(1, "quick")
    progress.end(done)
    assert f"MAE {done.summary['best_mae']:.4g} best" in seen.getvalue()
    rows: list[Row] = []
    SuiteRows(rows.append).end(done)
    assert rows[0]["best_mae"] == done.summary["best_mae"]


def test_the_json_document_has_the_best_of_the_task(outcomes: Outcomes) -> None:
    for shown in outcomes.to_mapping()["runs"]:
        assert shown["best_accuracy"] is None
        assert shown["best_mae"] > 0


def test_a_metric_of_ones_own_is_a_measure_with_a_declared_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBENCH_RUNS", str(tmp_path / "runs"))
    name = write_suite(
        tmp_path,
        base=config("classification", "evaluation.metrics=[own_metric:MeanSpecificity]").to_mapping(),
        seeds=[0],
        baseline="slow",
        rows=[{"name": name, "set": {"local.optimizer.lr": rate}} for name, rate in RATES.items()],
        columns=columns(
            own={"value": "own:MeanSpecificity", "better": "lower"}, plain="own:MeanSpecificity", lacking="own:Other"
        ),
        published=None,
        notes=[],
    )
    outcomes = run(make_plan([name, *WITHOUT]))[0]
    cells = dict(outcomes.table().rows)["quick"]
    (digest,) = outcomes.plan.cells["quick", "own"].runs.values()
    (expected,) = outcomes.by_digest[digest].summary["own_metrics"]["test/MeanSpecificity"]
    assert cells[0].spread is not None
    assert cells[0].spread.values == pytest.approx((expected,))
    assert cells[2].text == "-"
    assert "evaluation.metrics names no metric Other" in cells[2].note
    differences = outcomes.differences()
    assert differences is not None
    assert [heading for heading in differences.columns if "verdict" not in heading] == ["own"]
    assert any("Lower is better: MeanSpecificity;" in note for note in differences.notes)
    _check_report([outcome.directory for outcome in outcomes.by_digest.values() if outcome.directory], expected)


def _check_report(directories: Sequence[Path], expected: float) -> None:
    """A report on runs with a metric of one's own shows it with the direction that the metric itself states."""
    comparison = compare(load(directories))
    report = make_report(comparison)
    (part,) = report.parts
    assert part.results.columns[-1] == "final MeanSpecificity, higher is better"
    found = document(report)
    assert found["tasks"][0]["own_metrics_better"] == {"own:MeanSpecificity": "higher"}
    assert expected in [method["own:MeanSpecificity"]["mean"] for method in found["methods"]]
    chosen = make_report(comparison, columns=("own:MeanSpecificity", "rounds")).parts[0].results
    assert chosen.columns == ("final MeanSpecificity, higher is better", "rounds")
    assert WrittenReport(report, ()).frame()["own:MeanSpecificity"].notna().all()
    with pytest.raises(ConfigError, match=r"own:MeanSpecifity: no such figure; did you mean 'own:MeanSpecificity'"):
        make_report(comparison, columns=("own:MeanSpecifity",))


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ({"value": "own:"}, "no such quantity"),
        ({"value": "best_mae", "better": "lower"}, "better=lower: has no effect on value=best_mae, whose direction"),
        ({"value": "sent_mb", "metric": "mae"}, "metric=mae: has no effect without a target"),
        ({"value": "sent_mb", "target": 1, "metric": "perplexty"}, "did you mean 'perplexity'?"),
        ({"value": "sent_mb", "target": 150}, "target=150: must be at most 100 %; if the task is judged by another"),
        ({"value": "sent_mb", "target": 150, "metric": "mean_iou"}, "target=150: must be at most 100 %"),
    ],
)
def test_a_measure_that_makes_no_sense_is_refused_in_one_line(
    measure: dict[str, object], message: str, tmp_path: Path
) -> None:
    name = write_suite(tmp_path, columns=columns(x=measure), published=None)
    with pytest.raises(ConfigError) as refused:
        make_plan([name, *WITHOUT])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (
            "best_accuracy",
            "column x: measure best_accuracy: the task of the data is regression, which has no accuracy and",
        ),
        ("final_perplexity", "is judged by MAE; choose final_mae"),
        ({"value": "rounds", "target": 50, "metric": "accuracy"}, "metric=accuracy: the run is judged by mae; leave"),
    ],
)
def test_a_measure_that_no_run_has_is_refused_before_the_first(
    measure: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBENCH_RUNS", str(tmp_path / "runs"))
    rows = [{"name": "mae", "set": {"rounds": 1}}]
    base = config("regression").to_mapping()
    name = write_suite(tmp_path, base=base, rows=rows, columns=columns(y="best_mae", x=measure), published=None)
    with pytest.raises(ConfigError) as refused:
        run(make_plan([name, *WITHOUT]))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_a_measure_that_some_runs_have_is_kept(tmp_path: Path) -> None:
    of_task = {"data.dataset.of": "classification"}
    rows = [{"name": "a", "set": {"rounds": 1}}, {"name": "b", "set": of_task}]
    base = config("regression").to_mapping()
    name = write_suite(tmp_path, base=base, rows=rows, columns=columns(x="best_accuracy"), published=None)
    require_measures(make_plan([name, *WITHOUT]))


class Unreadable(Dataset):
    """Raises what a data set of one's own may raise."""

    name: str = f"{__name__}:Unreadable"

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        raise ValueError("an odd file")


def test_data_that_cannot_be_read_are_left_to_their_run(tmp_path: Path) -> None:
    base = config("regression").to_mapping() | {"data": {"dataset": f"{__name__}:Unreadable"}}
    rows = [{"name": "a", "set": {"rounds": 1}}]
    name = write_suite(tmp_path, base=base, rows=rows, columns=columns(x="best_mae"), published=None)
    require_measures(make_plan([name, *WITHOUT]))


def test_the_dry_run_refuses_a_measure_that_no_run_has(tmp_path: Path) -> None:
    base = config("regression").to_mapping()
    rows = [{"name": "a", "set": {"rounds": 1}}]
    name = write_suite(tmp_path, base=base, rows=rows, columns=columns(x="best_accuracy"), published=None)
    with pytest.raises(ConfigError, match="choose best_mae"):
        dry_run(make_plan([name, *WITHOUT]))


def test_headings_name_the_metric_of_a_target() -> None:
    assert Measure(value="sent_mb", target=90).heading("sent") == "sent to 90 % (MB)"
    assert Measure(value="sent_mb", target=150, metric="perplexity").heading("sent") == "sent to perplexity 150 (MB)"
    assert Measure(value="rounds", target=40, metric="mean_iou").heading("rounds") == "rounds to 40 % mean IoU"
