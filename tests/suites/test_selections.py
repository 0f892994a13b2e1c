"""`--only`: what is run and returned is the selection; the files keep the whole table, as far as it is recorded."""

import csv
import json
from pathlib import Path

import pytest
from small_suites import BASE, TINY, RecordedSuite, plan_of, run, write_suite

pytestmark = pytest.mark.slow

FOLDER = Path("runs/suites/tiny")


def shown() -> dict[tuple[str, str], str]:
    """The cells of `table.csv`: what each says, without its published figure."""
    with (FOLDER / "table" / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return {(row["row"], row["column"].partition(" (")[0]): row["text"].partition(";")[0] for row in rows}


def files() -> dict[str, str]:
    return {path.name: path.read_text() for path in (FOLDER / "table").iterdir() if path.name != "suite.json"}


def document() -> dict[str, object]:
    found: dict[str, object] = json.loads((FOLDER / "table" / "suite.json").read_text())
    return found


def test_a_selection_after_the_whole_leaves_the_files_as_they_are(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("*")
    whole, _ = run(plan_of(suite))
    before = files()
    outcomes, _ = run(plan_of(suite, only="C=1/FNU"))
    assert outcomes.table().columns == ("FNU (%)",)
    assert files() == before
    assert document()["cells"] == whole.to_mapping()["cells"]
    assert "FedPart" in (FOLDER / "report" / "report.html").read_text()


def test_part_by_part_the_table_is_filled_and_what_lacks_is_said_to_be_missing(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("FNU-seed0")
    outcomes, _ = run(plan_of(suite, only="FNU", seeds="0"))
    assert outcomes.status == "finished"
    first = shown()
    assert set(first) == {(row, column) for row in ("C=1", "C=2") for column in ("FNU", "FedPart", "Comm.")}
    assert {place for place, text in first.items() if text == "missing"} == {
        (row, column) for row in ("C=1", "C=2") for column in ("FedPart", "Comm.")
    }
    assert document()["banner"] == "Incomplete: 1 of 2 runs."
    assert "missing" in (FOLDER / "table" / "table.md").read_text()
    recorded_suite.take("FedPart-seed0")
    run(plan_of(suite, only="C=2/FedPart", seeds="0"))
    by_parts = files()
    assert "missing" not in shown().values()
    assert document()["banner"] == ""
    run(plan_of(suite, seeds="0"))
    assert files() == by_parts


def test_a_selection_with_another_seed_keeps_the_seeds_that_are_recorded(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("*-seed1")
    run(plan_of(suite, seeds="1"))
    recorded_suite.take("FNU-seed0")
    outcomes, _ = run(plan_of(suite, only="FNU", seeds="0"))
    assert outcomes.plan.seeds == (0,)
    cells = {(cell["row"], cell["column"]): set(cell["values"]) for cell in document()["cells"]}  # type: ignore[attr-defined]
    assert cells == {
        (row, column): {"0", "1"} if column == "FNU" else {"1"}
        for row in ("C=1", "C=2")
        for column in ("FNU", "FedPart", "Comm.")
    }
    assert document()["banner"] == "Incomplete: 3 of 4 runs."


def test_seeds_of_runs_with_other_settings_make_no_empty_columns(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("FNU-seed0")
    run(plan_of(suite, "local.batch_size=20", only="FNU", seeds="7"))
    run(plan_of(suite, only="FNU", seeds="0"))
    assert document()["seeds"] == [0]


def test_cells_that_the_overrides_of_a_selection_do_not_fit_are_left_out(run_folder: Path) -> None:
    columns = [
        *TINY["columns"],  # type: ignore[misc]
        {"name": "FedProx", "measure": "best_accuracy", "set": {"algorithm": "fedprox"}},
    ]
    suite = write_suite(run_folder, columns=columns, published=None)
    outcomes, _ = run(plan_of(suite, "algorithm.mu=0.5", only="C=1/FedProx", seeds="0"))
    assert outcomes.status == "finished"
    assert set(shown()) == {("C=1", "FedProx"), ("C=2", "FedProx")}


def test_a_part_of_a_suite_with_a_mistake_elsewhere_can_be_run(run_folder: Path) -> None:
    rows = [{"name": "good", "base": BASE}, {"name": "bad", "base": "nowhere.yaml"}]
    suite = write_suite(run_folder, base=None, rows=rows, published=None)
    outcomes, _ = run(plan_of(suite, only="good/FNU", seeds="0"))
    assert outcomes.status == "finished"
    assert {row for row, _ in shown()} == {"good"}
