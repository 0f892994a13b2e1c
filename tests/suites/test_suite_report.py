"""The report that a suite ends with."""

from pathlib import Path

from small_suites import BASE, RecordedSuite, plan_of, run, write_suite

from fedbench.records.reader import load_run
from fedbench.records.recorded_run import run_directories
from fedbench.report.compare import compare, load

REPORT = Path("runs/suites/tiny/report/report.html")
ONE_COLUMN = [{"name": "best", "measure": "best_accuracy"}]


def test_a_suite_ends_with_a_report_that_has_its_title_and_its_charts(recorded_suite: RecordedSuite) -> None:
    outcomes, lines = run(plan_of(recorded_suite.take("*-seed0"), seeds="0"))
    assert outcomes.status == "finished"
    assert not [line for line in lines if "report could not" in line]
    text = REPORT.read_text()
    assert "<h1>A tiny table</h1>" in text
    assert "<svg" in text
    assert "fedbench suite tiny" in text
    assert "--seeds 0" in text
    names = {"charts", "report.html", "report.md", "table.csv", "table.tex"}
    assert {path.name for path in REPORT.parent.iterdir()} == names


def test_reports_on_the_runs_of_a_suite_call_them_by_its_rows_and_columns(run_folder: Path) -> None:
    first = write_suite(run_folder, rows=[{"name": "slow & sure"}], published=None)
    run(plan_of(first, seeds="0"))
    reported = compare(load(run_directories([REPORT.parent.parent])))
    assert [method.label for method in reported.methods] == ["FedPart", "FNU"]
    assert "B: FNU" in REPORT.read_text()
    two_rows = [{"name": "few", "set": {"rounds": 1}}, {"name": "more", "set": {"rounds": 2}}]
    second = write_suite(
        run_folder, name="other", rows=two_rows, columns=ONE_COLUMN, base={**BASE, "schedule": {"name": "full"}},
        published=None,
    )  # fmt: skip
    run(plan_of(second, seeds="0"))
    compared = compare(load(run_directories([Path("runs/suites/other")])))
    assert [method.label for method in compared.methods] == ["few", "more"]


def test_a_report_on_a_smaller_suite_says_that_it_is_smaller(run_folder: Path) -> None:
    run(plan_of(write_suite(run_folder), seeds="0", scale=0.5))
    text = Path("runs/suites/tiny-scaled-0.5/report/report.html").read_text()
    assert "Scaled to 0.5: not comparable with the published figures." in text


def test_a_suite_of_which_nothing_finished_has_no_report_and_no_warning(run_folder: Path) -> None:
    # Clients of a single class each, at which this method raises an exception.
    data = {"dataset": "digits", "clients": 10, "partition": {"name": "shards", "shards_per_client": 1}}
    failing = {**BASE, "data": data, "algorithm": "small:Faulty"}
    path = write_suite(run_folder, base=failing, rows=[{"name": "a"}], columns=ONE_COLUMN, published=None)
    outcomes, lines = run(plan_of(path, seeds="0"))
    assert outcomes.status == "failed"
    assert not REPORT.exists()
    assert not [line for line in lines if "warning" in line]


def test_a_report_that_cannot_be_drawn_is_a_warning(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("*-seed0")
    REPORT.parent.write_text("in the way")
    outcomes, lines = run(plan_of(suite, seeds="0"))
    assert outcomes.status == "finished"
    assert [line for line in lines if "the report could not be written" in line]


def test_a_table_says_on_which_split_its_best_accuracies_were_chosen(run_folder: Path) -> None:
    suite = write_suite(run_folder, columns=ONE_COLUMN, seeds=[0], published=None)
    on_test, _ = run(plan_of(suite))
    on_validation, _ = run(plan_of(suite, "data.samples_per_client=30", "data.validation_fraction=0.1"))
    for outcomes, words in ((on_test, "the largest of all rounds on the test split"), (on_validation, "the test acc")):
        assert any(note.startswith(f"Best accuracy: {words}") for note in outcomes.table().notes)
    (cell,) = (cell for cell in on_validation.to_mapping()["cells"] if cell["row"] == "C=2")
    (directory,) = (run["directory"] for run in on_validation.to_mapping()["runs"])
    history = load_run(directory)[1]
    test, validation = (history.column(f"{name}_accuracy").to_pylist() for name in ("test", "validation"))
    assert cell["values"] == {"0": 100 * test[validation.index(max(validation))]}
