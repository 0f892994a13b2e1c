"""Rows and columns of a suite measured against its baseline, corrected for all of them; nothing is run."""

import json
from pathlib import Path

import pytest
from scipy.stats import ttest_rel
from suites_as_run import METHODS, TASKS, outcomes_of, plan_of

from fedbench.errors import ConfigError
from fedbench.suites.differences import differences
from fedbench.suites.file import read_suite
from fedbench.suites.files import write_outputs
from fedbench.suites.results import Outcomes
from fedbench.tables.comparisons import holm

NOISE = {"FedAvg": (0.0, 0.004, -0.004), "FedProx": (0.003, -0.002, 0.001), "FedMR": (0.001, 0.003, 0.002)}


def noisy(baseline: str = "FedAvg", seeds: tuple[int, ...] = (0, 1, 2)) -> Outcomes:
    return outcomes_of(plan_of(METHODS, TASKS, seeds, baseline), noise=NOISE)


def values_of(outcomes: Outcomes, row: str, column: str) -> list[float]:
    (cell,) = [cell for cell in outcomes.to_mapping()["cells"] if (cell["row"], cell["column"]) == (row, column)]
    return list(cell["values"].values())


def test_each_row_is_measured_against_the_baseline_in_its_column() -> None:
    outcomes = noisy()
    recorded = outcomes.to_mapping()["differences"]
    assert [(one["row"], one["column"]) for one in recorded] == [
        (row["name"], task["name"]) for row in METHODS[1:] for task in TASKS
    ]
    expected = []
    for one in recorded:
        assert one["baseline"] == {"row": "FedAvg", "column": one["column"]}
        values, base = (values_of(outcomes, name, one["column"]) for name in (one["row"], "FedAvg"))
        assert one["mean"] == pytest.approx(sum(values) / 3 - sum(base) / 3)
        expected.append(ttest_rel(values, base).pvalue)
    assert [one["p_value"] for one in recorded] == pytest.approx(expected)
    assert [one["p_adjusted"] for one in recorded] == pytest.approx(holm(expected))
    assert [one["told_apart"] for one in recorded] == [p <= 0.05 for p in holm(expected)]


def test_the_table_says_it_in_words_in_every_file(tmp_path: Path) -> None:
    outcomes = noisy()
    write_outputs(outcomes, tmp_path)
    table = outcomes.differences()
    assert table is not None
    assert [row for row, _ in table.rows] == ["FedProx", "FedMR"]
    assert table.columns[:2] == ("alpha=0.1 (points)", "alpha=0.1: 95 % interval, verdict")
    assert "for all 6 comparisons of this table (each figure with that of FedAvg)" in table.notes[-1]
    for name in ("table.md", "table.html", "table.tex"):
        assert "Small: differences from FedAvg" in (tmp_path / "table" / name).read_text()
    assert len(json.loads((tmp_path / "table" / "suite.json").read_text())["differences"]) == 6


def test_a_baseline_within_groups_is_that_of_each_group_and_may_be_a_column() -> None:
    grouped: list[dict[str, object]] = [{**task, "rows": METHODS} for task in TASKS]
    plan = plan_of(grouped, [{"name": "best"}], baseline="FedAvg")
    found = differences(plan, lambda cell: {})
    assert {row: difference.baseline.row for (row, _), difference in found.items()} == {
        f"{task['name']} {method['name']}": f"{task['name']} FedAvg" for task in TASKS for method in METHODS[1:]
    }
    across = differences(plan_of(TASKS, METHODS, baseline="FedAvg"), lambda cell: {})
    assert {difference.baseline.column for difference in across.values()} == {"FedAvg"}
    assert len(across) == 6


def test_references_and_costs_are_not_measured_against_the_baseline() -> None:
    rows: list[dict[str, object]] = [*METHODS, {"name": "all data", "set": {"algorithm": "centralised"}}]
    columns: list[dict[str, object]] = [{"name": "best"}, {"name": "up", "measure": "uplink_mb"}]
    found = differences(plan_of(rows, columns, baseline="FedAvg"), lambda cell: {})
    assert set(found) == {("FedProx", "best"), ("FedMR", "best")}


def test_two_seeds_and_no_baseline_conclude_nothing() -> None:
    assert {one["told_apart"] for one in noisy(seeds=(0, 1)).to_mapping()["differences"]} == {None}
    table = noisy(seeds=(0, 1)).differences()
    assert table is not None
    assert all(cells[1].text.endswith(": too few seeds") for _, cells in table.rows)
    assert noisy(baseline="").differences() is None


def test_a_baseline_that_is_not_there_is_refused_when_the_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "title: t\nbaseline: FedAwg\nrows: [{name: FedAvg}]\ncolumns: [{name: c, measure: best_accuracy}]\n"
    )
    with pytest.raises(ConfigError, match=r"baseline=FedAwg: no such row or column; did you mean 'FedAvg'"):
        read_suite(file)
