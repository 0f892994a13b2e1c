"""Suites run for real, on a few digits: what is recorded is not run again, and one failure stays one."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from command_line import write_cifar10
from rich.console import Console
from small_suites import BASE, TINY, RecordedSuite, directories, plan_of, run, values, write_suite

from fedbench.cli import suite_progress
from fedbench.cli.suite_progress import SuiteProgress
from fedbench.errors import ConfigError, DataError
from fedbench.records.reader import load_run
from fedbench.records.run_lock import RunLock
from fedbench.suites.run import run_suite, suite_folder
from fedbench.tables import render
from fedbench.tables.html import table_html
from fedbench.tables.latex import latex

pytestmark = pytest.mark.slow


def test_cells_of_one_run_are_read_at_the_end_of_each_cycle(whole_suite: RecordedSuite) -> None:
    outcomes, lines, folder = whole_suite.outcomes, whole_suite.lines, whole_suite.folder / "runs/suites/tiny"
    assert outcomes.status == "finished"
    assert len(directories(folder)) == 4  # FNU and FedPart, two seeds; the third column reads the second's runs
    assert lines[0] == "starting tiny: 4 of 4 runs, in this process"
    assert len(lines) == 1 + 4
    assert lines[1].startswith("1/4  FNU seed 0  accuracy ")
    for column in ("FNU", "FedPart"):
        for place, seed in enumerate((0, 1)):
            found = list(folder.glob(f"{column}-seed{seed}-*"))
            history = load_run(found[0])[1]
            scores = history.column("test_accuracy").to_pylist()
            assert history.num_rows == 10
            assert values(outcomes, "C=1", column)[place] == pytest.approx(100 * max(scores[:5]))
            assert values(outcomes, "C=2", column)[place] == pytest.approx(100 * max(scores))


def test_where_nobody_sees_a_status_line_long_runs_are_heard_of_now_and_then(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(run_folder)
    monkeypatch.setattr(suite_progress, "SILENT_SECONDS", 0.0)
    _, lines = run(plan_of(suite, seeds="0", only="FNU"))
    of_the_first = [line for line in lines if line.startswith("1/1  FNU seed 0  ")]
    assert of_the_first[0].endswith("starting")
    assert [line.split()[5] for line in of_the_first[1:-1]] == [f"{done}/10" for done in range(1, 11)]
    assert of_the_first[-1].split()[4] == "accuracy"


def test_a_suite_that_is_run_again_runs_nothing(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("*")
    before = directories()
    second, lines = run(plan_of(suite))
    assert directories() == before
    assert all(line.endswith("recorded before") for line in lines)
    assert second.table() == recorded_suite.outcomes.table()


def test_a_further_seed_runs_that_seed_alone(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("*-seed0")
    before = directories()
    outcomes, _ = run(plan_of(suite, seeds="0,1"))
    added = directories().keys() - before.keys()
    assert {name.rpartition("-")[0] for name in added} == {"FNU-seed1", "FedPart-seed1"}
    assert {name: time for name, time in directories().items() if name in before} == before
    assert len(values(outcomes, "C=1", "FNU")) == 2


def test_a_run_of_another_suite_with_the_same_hash_is_taken(recorded_suite: RecordedSuite, run_folder: Path) -> None:
    recorded_suite.take("*-seed0")
    other, lines = run(plan_of(write_suite(run_folder, name="other"), seeds="0"))
    assert directories(Path("runs/suites/other")) == {}
    assert other.status == "finished"
    assert all(line.endswith("recorded before") for line in lines)


def test_what_another_suite_has_broken_off_is_left_to_it(recorded_suite: RecordedSuite, run_folder: Path) -> None:
    recorded_suite.take("*-seed0")
    for path in Path("runs/suites/tiny").glob("*/summary.json"):
        path.write_text('{"status": "running"}')
    before = directories()
    other, _ = run(plan_of(write_suite(run_folder, name="other"), seeds="0"))
    assert other.status == "finished"
    assert len(directories(Path("runs/suites/other"))) == 2
    assert directories() == before


def test_a_changed_setting_is_another_run(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("*-seed0")
    run(plan_of(suite, "local.batch_size=20", seeds="0"))
    assert len(directories()) == 4


def test_a_failing_cell_fails_alone_and_says_why(recorded_suite: RecordedSuite, run_folder: Path) -> None:
    recorded_suite.take("FNU-seed0")
    columns = [
        *TINY["columns"],
        {"name": "Broken", "measure": "best_accuracy", "set": {"algorithm": "small:Exhausted"}},
    ]  # type: ignore[misc]
    published = {"source": "nobody", "values": {"C=1": {"Broken": 40}}}
    outcomes, lines = run(plan_of(write_suite(run_folder, columns=columns, published=published), seeds="0"))
    assert outcomes.status == "failed"
    assert [line for line in lines if "failed" in line] == [lines[3]]
    assert lines[3].startswith("3/3  Broken seed 0  failed: ")
    assert "nothing left to minimise" in lines[3]
    assert values(outcomes, "C=2", "FedPart")
    table = outcomes.table()
    broken = table.rows[0][1][3]
    assert broken.shown == "failed"
    assert "nothing left to minimise" in broken.note
    assert table.banner == "1 of 3 runs failed."
    for text in (render.markdown(table), table_html(table), render.csv(table), latex(table)):
        assert "nothing left to minimise" in text


def test_data_that_are_not_there_begin_nothing_and_damaged_ones_fail_once(run_folder: Path) -> None:
    suite = write_suite(run_folder, base={**BASE, "data": {**BASE["data"], "dataset": "cifar10"}})  # type: ignore[dict-item]
    with pytest.raises(DataError, match=r"data\.root=nowhere: no such folder"):
        run(plan_of(suite, "data.root=nowhere"))
    assert directories() == {}
    root = write_cifar10(run_folder / "root")
    for file in (root / "cifar10").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    outcomes, lines = run(plan_of(suite, f"data.root={root}"))
    assert outcomes.status == "failed"
    assert len(lines) == 1 + 4
    assert len({line.partition("failed: ")[2] for line in lines[1:]}) == 1
    assert directories() == {}


def test_torn_and_foreign_directories_are_passed_over(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("*-seed0")
    folder = Path("runs/suites/tiny")
    torn = next(folder.glob("FNU-*"))
    (torn / "rounds.parquet").write_bytes(b"torn")
    (folder / "notes").mkdir()
    (folder / "notes" / "config.yaml").write_text("[1, 2")
    kept = directories()[next(folder.glob("FedPart-*")).name]
    outcomes, _ = run(plan_of(suite, seeds="0"))
    assert outcomes.status == "finished"
    assert (folder / f"{torn.name}-2" / "summary.json").is_file()
    assert directories()[next(folder.glob("FedPart-*")).name] == kept


def test_runs_recorded_with_other_libraries_are_taken_and_pointed_out(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("*-seed0")
    path = next(Path("runs/suites/tiny").glob("FNU-*")) / "summary.json"
    summary = json.loads(path.read_text())
    summary["versions"]["torch"] = "1.0"
    del summary["checksum"]
    path.write_text(json.dumps(summary))
    outcomes, lines = run(plan_of(suite, seeds="0"))
    assert any(line.startswith("warning: ") and "torch 1.0, not " in line for line in lines)
    assert any("torch 1.0, not " in note for note in outcomes.table().notes)


def test_runs_recorded_on_other_data_are_pointed_out_and_run_again_by_force(run_folder: Path) -> None:
    root = write_cifar10(run_folder / "root")
    base = {**BASE, "rounds": 1, "schedule": "full", "data": {"dataset": "cifar10", "clients": 2}}
    suite = write_suite(run_folder, base=base, rows=[{"name": "all"}], published=None, seeds=[0],
                        columns=[{"name": "loss", "measure": "train_loss"}])  # fmt: skip
    plan = plan_of(suite, f"data.root={root}")
    run(plan)
    _, same = run(plan)
    assert [line.endswith("recorded before") for line in same] == [True]
    write_cifar10(root, rows=50)
    outcomes, lines = run(plan)
    assert any(line.startswith("warning: ") and "was recorded with data " in line for line in lines)
    assert any("other versions or data: data " in note for note in outcomes.table().notes)
    with SuiteProgress(Console(file=io.StringIO()), 1) as progress:
        run_suite(plan, progress, force=True)
    _, again = run(plan)
    assert [line.endswith("recorded before") for line in again] == [True]
    shutil.rmtree(root)
    _, without = run(plan)
    assert not [line for line in without if line.startswith("warning")]


def test_a_scaled_suite_says_so_in_every_output_and_keeps_its_runs_apart(run_folder: Path) -> None:
    suite = write_suite(run_folder)
    plan = plan_of(suite, seeds="0", scale=0.5)
    assert suite_folder(plan).name == "tiny-scaled-0.5"
    outcomes, _ = run(plan)
    table = suite_folder(plan) / "table"
    for path in ("table.md", "table.html", "table.tex", "table.csv", "suite.json"):
        text = (table / path).read_text().replace("\\", "")
        assert "caled to 0.5: not comparable with the published figures" in text, path
    assert all("scaled-to-0.5" in name for name in directories(suite_folder(plan)))
    assert all(len(values(outcomes, row, column)) == 1 for row in plan.rows for column in plan.columns)
    assert directories() == {}
    assert not {run.digest for run in plan_of(suite).runs.values()} & set(outcomes.by_digest)


def test_the_files_say_what_the_table_says(whole_suite: RecordedSuite) -> None:
    folder = whole_suite.folder / "runs/suites/tiny/table"
    document = json.loads((folder / "suite.json").read_text())
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert len(rows) == len(document["cells"]) == 6
    headings = {"FNU": "FNU (%)", "FedPart": "FedPart (%)", "Comm.": "Comm. (GB)"}
    for cell in document["cells"]:
        row = next(one for one in rows if (one["row"], one["column"]) == (cell["row"], headings[cell["column"]]))
        assert float(row["mean"]) == pytest.approx(cell["mean"])
        assert float(row["std"]) == pytest.approx(cell["std"])
        assert [float(value) for value in row["values"].split()] == pytest.approx(list(cell["values"].values()))
        for key in ("published", "published_std", "difference"):
            assert (float(row[key]) if row[key] else None) == pytest.approx(cell[key])
        verdict = {"true": True, "false": False, "": None}[row["told_apart"]]
        assert verdict is cell["told_apart"] is None  # two seeds are too few
        assert (float(row["low"]), float(row["high"])) == pytest.approx(tuple(cell["interval"]))
    first = document["cells"][0]
    assert (first["published"], first["published_std"]) == (50.0, 1.0)
    assert first["difference"] == pytest.approx(first["mean"] - 50)
    markdown = (folder / "table.md").read_text()
    assert r"For tests \| only" in markdown
    assert "published 51.00: " in markdown
    assert "published 50.00 ± 1.00: " in markdown
    assert (folder / "table.html").read_text().count("<tr>") == 3
    assert r"\begin{tabular}" in (folder / "table.tex").read_text()


def test_two_processes_do_not_work_on_one_suite(run_folder: Path) -> None:
    plan = plan_of(write_suite(run_folder))
    suite_folder(plan).mkdir(parents=True)
    with (
        RunLock(suite_folder(plan), "suite"),
        pytest.raises(ConfigError, match="another process is at work on this suite"),
    ):
        run(plan)


def test_a_removed_run_is_run_again(recorded_suite: RecordedSuite) -> None:
    suite = recorded_suite.take("*")
    gone = next(Path("runs/suites/tiny").glob("FNU-seed0-*"))
    shutil.rmtree(gone)
    again, _ = run(plan_of(suite))
    assert gone.is_dir()
    assert again.table() == recorded_suite.outcomes.table()
