"""`fedbench report` on real runs: its files are read back, and what it says is what the runs recorded."""

import csv
import json
import re
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from command_line import Finished, in_this_process
from reading import Page, latex_tables, pipe_tables
from scipy.stats import ttest_rel
from small import asynchronous

from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.run import run
from fedbench.records.recorded_run import read_run
from fedbench.report.compare import compare, load
from fedbench.report.content import Report, make_report
from fedbench.report.files import write_report
from fedbench.report.html import page
from fedbench.report.svg_heatmap import MOST_CELLS, Heatmap

pytestmark = pytest.mark.slow

Call = Callable[..., Finished]


@pytest.fixture
def call(
    run_folder: Path, no_figures: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Call:
    """`call("report")` is `fedbench report` in the empty folder `run_folder`."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("FEDBENCH_RUNS", raising=False)

    return in_this_process(monkeypatch, capfd)


@pytest.fixture(scope="module")
def report(recorded: Path) -> Report:
    return make_report(compare(load(sorted(recorded.iterdir()))), target=0.5)


def best(recorded: Path, name: str, metric: str = "best_accuracy") -> list[float]:
    return [100 * json.loads((recorded / f"{name}-{seed}" / "summary.json").read_text())[metric] for seed in range(3)]


def test_the_command_writes_page_tables_and_charts_and_says_where(recorded: Path, call: Call, run_folder: Path) -> None:
    done = call("report", str(recorded))
    assert done.status == 0
    written = sorted(path.name for path in (run_folder / "report").iterdir())
    assert written == ["charts", "report.html", "report.md", "table.csv", "table.tex"]
    assert "report/report.html" in done.stdout
    assert "report/charts (7 as SVG and PDF)" in done.stdout
    values = best(recorded, "full")
    assert f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}" in done.stdout
    assert "left out: " in done.stderr
    assert "failed-3" in done.stderr


def test_the_mean_in_every_file_is_that_of_the_finished_runs(
    recorded: Path, report: Report, tmp_path: Path, no_figures: None
) -> None:
    html, markdown, table, latex, *_ = write_report(report, tmp_path / "out")
    values = best(recorded, "full")
    mean, deviation = f"{statistics.fmean(values):.2f}", f"{statistics.stdev(values):.2f}"
    results = Page(html.read_text()).root.all("table")[0]
    (row,) = [row for row in results.all("tr") if row.all("th")[0].text.endswith("fedavg, full")]
    assert row.all("td")[0].text == f"{mean} ± {deviation}"
    (cells,) = [cells for cells in pipe_tables(markdown.read_text())[0] if cells[0].endswith("fedavg, full")]
    assert cells[1] == f"{mean} ± {deviation}"
    lines = list(csv.DictReader(table.read_text().splitlines()))
    (line,) = [one for one in lines if one["row"].endswith("fedavg, full") and one["column"] == "best accuracy (%)"]
    assert float(line["mean"]) == pytest.approx(statistics.fmean(values))
    assert [float(value) for value in line["values"].split()] == pytest.approx(values)
    tabulars = latex.read_text().split("% needs")[1:]
    tables = [latex_tables(f"% needs{text}") for text in tabulars]
    assert len(tables) == 3
    assert len(tables[0]) == 1, "the main table is one table of the figures that matter most"
    assert any(rf"${mean} \pm {deviation}$" in cell for row in tables[0][0] for cell in row)
    assert all(len({len(row) for row in part}) == 1 for parts in tables for part in parts)


def test_the_page_needs_nothing_but_itself(report: Report) -> None:
    text = page(report)
    read = Page(text)
    assert not read.root.all("script")
    assert not read.root.all("link")
    assert not re.search(r"(?:href|src)=[\"'](?!#|data:image/png;base64,)", text)
    assert "url(" not in text
    assert "@import" not in text


def test_failed_and_interrupted_runs_are_pointed_out_on_the_page(report: Report) -> None:
    listed = [item.text for item in Page(page(report)).root.all("li") if item.attributes.get("class") == "left-out"]
    assert any("failed-3" in text and "not finite" in text for text in listed)
    assert any("interrupted-4" in text and "was interrupted" in text for text in listed)


def test_every_chart_is_described_and_has_a_letter_for_each_line(report: Report) -> None:
    charts = [svg for svg in Page(page(report)).root.all("svg") if svg.attributes.get("class") == "chart"]
    titles = [chart.all("title")[0].text for chart in charts]
    assert titles == [
        "Accuracy by round",
        "Accuracy by bytes sent",
        "Accuracy by client work",
        "Accuracy by virtual time",
        "Accuracy by wall time",
    ]
    for chart in charts:
        named = (chart.attributes["aria-labelledby"] or "").split()
        assert named == [chart.all("title")[0].attributes["id"], chart.all("desc")[0].attributes["id"]]
        lines = [path for path in chart.all("path") if "line" in (path.attributes["class"] or "").split()]
        letters = [text.text for text in chart.all("text") if "letter" in (text.attributes.get("class") or "")]
        assert len(lines) == len(letters) == (1 if "virtual" in chart.all("title")[0].text else 3)
        assert len({path.attributes["class"] for path in lines}) == len(lines)


def test_a_line_ends_where_the_mean_accuracy_does(recorded: Path, report: Report) -> None:
    chart = report.parts[0].charts[0]
    svg = Page(chart.to_svg()).root.all("svg")[0]
    (line,) = [line for line in chart.lines if line.label == "fedavg, full"]
    dots = [dot for dot in svg.all("circle") if dot.text.startswith(f"{line.letter}:")]
    assert len(dots) == 3
    place, height = (float(dots[-1].attributes[key] or "") for key in ("cx", "cy"))
    x, y = chart.scales()
    mean = statistics.fmean(
        100 * json.loads((recorded / f"full-{seed}" / "summary.json").read_text())["final_accuracy"]
        for seed in range(3)
    )
    assert y.low + (height - y.start) / (y.end - y.start) * (y.high - y.low) == pytest.approx(mean, abs=0.1)
    assert x.low + (place - x.start) / (x.end - x.start) * (x.high - x.low) == pytest.approx(3, abs=0.01)
    assert f"{mean:.2f} %" in dots[-1].text


def test_a_target_that_a_seed_misses_is_said_and_not_averaged(recorded: Path) -> None:
    values = sorted(value / 100 for value in best(recorded, "full"))
    between = (values[0] + values[1]) / 2
    assert values[0] < between < values[1]
    found = make_report(compare(load([recorded / f"full-{seed}" for seed in range(3)])), target=between)
    (_, cells) = found.parts[0].reached.rows[0]
    assert cells[0].text == "2 of 3"
    assert all(cell.measured is None for cell in cells)
    assert cells[2].text == "not reached by 1 of 3 seeds"
    assert re.fullmatch(r"Reached by seed \d after \d rounds, .*; seed \d after \d rounds, .*\.", cells[2].note)


def test_differences_are_seed_by_seed_against_the_baseline(recorded: Path, report: Report) -> None:
    assert report.parts[0].baseline.label == "fedavg, full"
    assert report.parts[0].differences is not None
    rows = dict(report.parts[0].differences.rows)
    (part,) = [cells for label, cells in rows.items() if label.endswith("FedPart")]
    expected = [b - a for a, b in zip(best(recorded, "full"), best(recorded, "part"), strict=True)]
    assert part[0].text == "3"
    assert part[1].spread is not None
    assert [100 * value for value in part[1].spread.values] == pytest.approx(expected)
    reach = 4.302653 * np.std(expected, ddof=1) / np.sqrt(3)
    low, high = np.mean(expected) - reach, np.mean(expected) + reach
    assert part[2].text == f"{low:+.2f} to {high:+.2f}"
    of_best, of_final = (
        float(ttest_rel(best(recorded, "part", metric), best(recorded, "full", metric)).pvalue)
        for metric in ("best_accuracy", "final_accuracy")
    )
    adjusted = min(1, 2 * of_best) if of_best <= of_final else max(of_best, min(1, 2 * of_final))  # Holm, two tests
    verdict = "told apart" if adjusted <= 0.05 else "not told apart"
    assert part[3].text == f"{verdict} (p {of_best:.3f}, adjusted {adjusted:.3f})"
    assert "for all 2 comparisons of this table" in report.parts[0].differences.notes[-1]
    (ormo,) = [cells for label, cells in rows.items() if "ormo" in label]
    assert ormo[0].text == "1"
    assert ormo[2].text == "none"
    assert ormo[3].text == "too few seeds"


def test_what_the_report_says_of_reproducing_reproduces(recorded: Path, report: Report, tmp_path: Path) -> None:
    (recipe,) = [one for one in report.recipes if one.method.label == "FedPart"]
    assert recipe.commands == tuple(f"fedbench run {recipe.file} seed={seed}" for seed in range(3))
    read = Page(page(report))
    shown = [pre.children[0] for details in read.root.all("details") for pre in details.all("pre")]
    (text,) = [one for one in shown if isinstance(one, str) and "sequential" in one]
    assert yaml.safe_load(text) == yaml.safe_load(recipe.yaml)
    (tmp_path / recipe.file).write_text(text)
    overrides = ["seed=1", "runtime.executor=inline", "tracking.enabled=false", f"output.directory={tmp_path / 'run'}"]
    again = run(ExperimentConfig.load(tmp_path / recipe.file, overrides))
    original = json.loads((recorded / "part-1" / "summary.json").read_text())
    assert again.summary["model_sha256"] == original["model_sha256"]
    assert original["model_sha256"] in page(report)


@pytest.mark.parametrize(("name", "section"), [("full-0", "participation"), ("async-0", "delays")])
def test_a_recipe_names_no_recorded_run_that_was_followed(recorded: Path, name: str, section: str) -> None:
    original = read_run(recorded / name)
    followed = original.config[section] | {"replay": "somewhere/old.parquet"}
    again = replace(original, config=original.config | {section: followed})
    (recipe,) = make_report(compare([again])).recipes
    assert "replay" not in yaml.safe_load(recipe.yaml)[section]
    assert "old.parquet" not in " ".join(recipe.commands)


def test_a_run_with_a_round_deadline_is_reproduced_with_the_clients_that_were_dropped(recorded: Path) -> None:
    original = read_run(recorded / "full-0")
    limited = original.config["participation"] | {"round_deadline": 60.0}
    run_with_deadline = replace(original, config=original.config | {"participation": limited})
    (recipe,) = make_report(compare([run_with_deadline])).recipes
    assert recipe.commands == (f"fedbench run method-a.yaml seed=0 --replay {recorded / 'full-0' / 'clients.parquet'}",)


def test_json_is_one_document_with_the_same_figures(recorded: Path, call: Call) -> None:
    done = call("report", str(recorded), "--json", "--target", "0.5")
    document = json.loads(done.stdout)
    (full,) = [method for method in document["methods"] if method["label"] == "fedavg, full"]
    assert [100 * value for value in full["best_accuracy"]["values"]] == pytest.approx(best(recorded, "full"))
    assert full["against_baseline"] is None
    (ormo,) = [method for method in document["methods"] if "ormo" in method["label"]]
    assert ormo["against_baseline"]["best_accuracy"]["told_apart"] is None
    assert full["virtual_seconds"] is None
    assert document["runs_found"] == 9
    assert document["runs_counted"] == 7
    assert {problem["severity"] for problem in document["problems"]} >= {"left out", "note"}
    assert all(Path(file).is_file() for file in document["files"])


def test_one_run_alone_is_a_report_without_claims(recorded: Path, call: Call, run_folder: Path) -> None:
    assert call("report", str(recorded / "full-0"), "--output", "one").status == 0
    text = (run_folder / "one" / "report.md").read_text()
    assert "±" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert "nothing can be said about what is chance" in text
    assert "Differences from" not in text


def test_runs_in_the_default_folder_are_found_by_themselves(recorded: Path, call: Call, run_folder: Path) -> None:
    shutil.copytree(recorded / "full-0", run_folder / "runs" / "full-0")
    assert call("report").status == 0
    assert "runs/full-0" in (run_folder / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--target", "70"], "--target 70: must be an accuracy above 0 and up to 1; did you mean 0.7?"),
        (["--baseline", "nonsense"], "--baseline nonsense: is no method here"),
        (["--columns", "best_accuracy,speed"], "--columns speed: no such figure; there are: best_accuracy, "),
        (["--columns", "rounds,rounds"], "--columns rounds: stands there twice; name each figure once"),
        (["--label", "FedProx"], "--label FedProx: write METHOD=TEXT"),
        (["--label", "moon=x"], "--label moon=x: is no method here; there are: fedavg, full; FedPart; ormo, full"),
        (["--label", "fed=x"], "--label fed=x: is the beginning of several methods; there are: "),
        (["--label", "A= "], "--label A= : the label is empty; write METHOD=TEXT"),
        (["--label", "A=x", "--label", "fedavg=y"], "--label fedavg=y: fedavg, full is to be called 'x' already"),
        (["--label", "A=FedPart"], "--label: A, B would all be called 'FedPart'"),
        (["--upload", "--label", "A=x"], "--label A=x: has no effect with --upload"),
        (["--mlflow-uri", "sqlite:///x.db"], "has no effect without --experiment or --upload"),
        (["--upload", "--target", "0.5"], "--target 0.5: has no effect with --upload"),
        (["--output", "/dev/null/x"], "--output /dev/null/x: cannot be written"),
    ],
)
def test_wrong_options_are_one_line_with_exit_code_2(
    recorded: Path, call: Call, arguments: list[str], complaint: str
) -> None:
    done = call("report", str(recorded), *arguments)
    assert done.status == 2
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_each_way_of_dividing_the_data_is_drawn_once_with_whose_it_is(recorded: Path, report: Report) -> None:
    clients = [len(picture.counts) for picture in report.partitions]
    assert clients == [3, 4]  # the three of both others; ormo's four clients
    (ormo,) = [method.letter for method in report.comparison.methods if "ormo" in method.label]
    others = [method.letter for method in report.comparison.methods if "ormo" not in method.label]
    assert [picture.title for picture in report.partitions] == [
        f"digits, iid partition, seed 0, {', '.join(others)}",
        f"digits, iid partition, seed 0, {ormo}",
    ]


def test_names_from_configurations_are_text_and_not_markup(recorded: Path, tmp_path: Path) -> None:
    place = shutil.copytree(recorded / "full-0", tmp_path / "<b>bold</b> & | run")
    text = page(make_report(compare(load([place]))))
    assert "<b>" not in text
    assert any("<b>bold</b> & | run" in cell.text for cell in Page(text).root.all("td"))


def test_a_picture_of_many_clients_stays_small_and_says_what_it_leaves_out() -> None:
    counts = tuple(tuple((client + label) % 7 for label in range(200)) for client in range(500))
    picture = Heatmap("p", "many", counts, tuple(f"class {label}" for label in range(200)))
    assert picture.clients == MOST_CELLS // 200
    text = picture.to_svg()
    assert len(text) < 1_500_000
    Page(text)


def test_the_shade_of_a_cell_is_the_clients_count_of_the_class() -> None:
    svg = Page(Heatmap("p", "t", ((8, 0), (1, 4)), ("cat", "dog")).to_svg()).root.all("svg")[0]
    (cells,) = svg.all("g")
    shades = {
        (path.attributes["class"] or "").split()[-1]: (path.attributes["d"] or "").count("M")
        for path in cells.all("path")
        if "shade" in (path.attributes["class"] or "")
    }
    assert shades == {"s1": 1, "s4": 1, "s8": 1}
    assert [text.text for text in cells.all("text")] == ["cat", "dog", "0", "1", "client", "8", "1", "4"]


def test_a_run_on_the_wall_clock_is_reproduced_by_its_order_of_arrivals(tmp_path: Path) -> None:
    first = run(
        asynchronous(
            "rounds=2", "delays.clock=wall", "runtime.executor=inline", f"output.directory={tmp_path / 'wall'}"
        )
    )
    (recipe,) = make_report(compare(load([tmp_path / "wall"]))).recipes
    assert recipe.commands == (f"fedbench run method-a.yaml seed=0 --replay {tmp_path / 'wall' / 'events.parquet'}",)
    (tmp_path / recipe.file).write_text(recipe.yaml)
    overrides = ["seed=0", f"delays.replay={tmp_path / 'wall' / 'events.parquet'}", "runtime.executor=inline",
                 "tracking.enabled=false", f"output.directory={tmp_path / 'again'}"]  # fmt: skip
    again = run(ExperimentConfig.load(tmp_path / recipe.file, overrides))
    assert again.summary["model_sha256"] == first.summary["model_sha256"]


def test_what_a_method_has_no_clock_for_is_none_and_not_unreached(recorded: Path) -> None:
    runs = [read_run(recorded / name) for name in ("full-0", "full-1", "async-0")]
    column = runs[1].rounds.schema.get_field_index("test_accuracy")
    none = pa.array([0.0] * runs[1].rounds.num_rows)
    runs[1] = replace(runs[1], rounds=runs[1].rounds.set_column(column, "test_accuracy", none))
    report = make_report(compare(runs), target=runs[2].summary["best_accuracy"])
    cells = dict(report.parts[0].reached.rows)["A: fedavg, full"]
    assert report.parts[0].reached.columns[-1].startswith("virtual time")
    assert [cell.text for cell in cells] == ["1 of 2", *["not reached by 1 of 2 seeds"] * 4, "none"]
