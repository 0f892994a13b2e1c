"""What goes into a paper: charts as files of their own, chosen columns, and chosen labels in every output."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import Finished
from reading import Page, pipe_tables

from fedbench.records.recorded_run import run_directories
from fedbench.report import palette
from fedbench.report.compare import compare, load
from fedbench.report.content import Report, make_report
from fedbench.report.files import write_report
from fedbench.report.shown_metrics import COLUMNS
from fedbench.report.svg_heatmap import Heatmap
from fedbench.tables.html import environment

pytestmark = pytest.mark.slow

SVG = "{http://www.w3.org/2000/svg}"
OURS = "FedAvg <b> & {ours}"


@pytest.fixture(scope="module")
def report(recorded: Path) -> Report:
    return make_report(compare(load(run_directories([recorded])), {"fedavg": OURS}))


@pytest.fixture(scope="module")
def charts(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report's charts, in which charts of an earlier report lay."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "charts").mkdir()
    for name in ("partition-4.svg", "by-round.pdf", "mine.svg"):
        (folder / "charts" / name).write_text("earlier")
    write_report(report, folder)
    return folder / "charts"


def test_every_chart_of_the_page_is_an_svg_and_a_pdf_file_and_no_earlier_one_is_left(
    report: Report, charts: Path
) -> None:
    names = [*(chart.name for chart in report.parts[0].charts), *(picture.name for picture in report.partitions)]
    written = {f"{name}.{kind}" for name in names for kind in ("svg", "pdf")}
    written |= {f"{picture.name}.png" for picture in report.timelines.shown}
    assert {path.name for path in charts.iterdir()} == written | {"mine.svg"}
    assert len(names) == 7
    text = (charts.parent / "report.md").read_text()
    assert re.findall(r"\(charts/([\w-]+)\.svg\)", text) == [chart.name for chart in report.parts[0].charts]


def test_an_svg_file_needs_no_page(report: Report, charts: Path) -> None:
    for chart in report.parts[0].charts:
        text = (charts / f"{chart.name}.svg").read_text()
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg"
        assert "class=" not in text
        assert "var(" not in text
        legend = [element.text for element in root.iter(f"{SVG}text")][-len(chart.lines) :]
        assert legend == [f"{line.letter}: {line.label}" for line in chart.lines]
        strokes = [path.get("stroke") for path in root.iter(f"{SVG}path") if path.get("stroke-width") == "2"]
        assert set(strokes) == {palette.LINES[line.style] for line in chart.lines}
        assert float(root.attrib["height"]) == float(root.attrib["viewBox"].split()[3])


def test_a_pdf_file_has_its_fonts_in_it_as_truetype(charts: Path) -> None:
    for path in charts.glob("*.pdf"):
        content = path.read_bytes()
        assert content.startswith(b"%PDF-"), path.name
        assert b"/FontFile2" in content
        assert b"/Type3" not in content


def test_files_have_the_colours_of_the_pages_light_form() -> None:
    loader = environment("fedbench.report").loader
    assert loader is not None
    css = loader.get_source(environment("fedbench.report"), "page.css")[0]
    light = dict(re.findall(r"--([\w-]+): (#\w+);", css.partition("@media")[0]))
    assert tuple(light[f"c{place}"] for place in range(7)) == palette.LINES
    names = {"ground": palette.GROUND, "text": palette.INK, "rule": palette.RULE, "heat": palette.HEAT}
    assert {name: light[name] for name in names} == names
    opacities = dict(re.findall(r"\.s(\d) \{ fill-opacity: ([\d.]+);", css))
    assert tuple(float(opacities[str(shade)]) for shade in range(1, 9)) == palette.SHADES
    dashes = dict(re.findall(r"\.line\.d(\d) \{ stroke-dasharray: ([\d. ]+);", css))
    assert [tuple(map(float, dashes.get(str(place), "").split())) for place in range(5)] == list(palette.DASHES)


def test_a_chosen_label_stands_in_every_output_and_moves_no_letter(
    recorded: Path, call: Callable[..., Finished], run_folder: Path
) -> None:
    plain = json.loads(call("report", str(recorded), "--json").stdout)
    done = call("report", str(recorded), "--label", f"A={OURS}", "--label", "ormo=x=y", "--json")
    assert done.status == 0
    document = json.loads(done.stdout)
    letters = {method["letter"]: method["label"] for method in plain["methods"]}
    assert letters == {"A": "fedavg, full", "B": "FedPart", "C": "ormo, full"}
    assert {method["letter"]: method["label"] for method in document["methods"]} == {
        "A": OURS,
        "B": "FedPart",
        "C": "x=y",
    }
    assert document["baseline"] == OURS
    folder = run_folder / "report"
    page = Page((folder / "report.html").read_text())
    assert page.root.all("table")[0].all("tbody")[0].all("th")[0].text == f"A: {OURS}"
    assert pipe_tables((folder / "report.md").read_text())[0][1][0] == f"A: {OURS}"
    assert "A: FedAvg \\textless{}b\\textgreater{} \\& \\{ours\\}" in (folder / "table.tex").read_text()
    assert f"results,A: {OURS}," in (folder / "table.csv").read_text()
    assert OURS in [text.text.removeprefix("A: ") for text in page.root.all("span")]
    for name in ("report.html", "report.md", "table.tex", "table.csv", "charts/by-round.svg"):
        assert "fedavg, full" not in (folder / name).read_text(), name
    assert call("report", str(recorded), "--label", f"A={OURS}", "--baseline", "fedavg").status == 0


def test_chosen_columns_are_the_main_table_in_every_output(
    recorded: Path, call: Callable[..., Finished], run_folder: Path
) -> None:
    done = call("report", str(recorded), "--columns", "total_bytes, best_accuracy,staleness_max")
    assert done.status == 0
    headings = ["sent up and down (kB)", "best accuracy (%)", "largest staleness of the accepted updates"]
    folder = run_folder / "report"
    assert pipe_tables((folder / "report.md").read_text())[0][0] == ["method", *headings]
    page = Page((folder / "report.html").read_text())
    assert [cell.text for cell in page.root.all("thead")[0].all("th")] == ["method", *headings]
    rows = [line.split(",") for line in (folder / "table.csv").read_text().splitlines() if line.startswith("results,")]
    assert len(rows) == 9
    assert "staleness" in (folder / "table.tex").read_text()
    assert "staleness" in done.stdout


def test_every_column_that_can_be_chosen_is_a_name_of_the_json_document(
    recorded: Path, call: Callable[..., Finished]
) -> None:
    document = json.loads(call("report", str(recorded / "async-0"), "--json").stdout)
    (method,) = document["methods"]
    assert set(COLUMNS) <= set(method)
    assert method["arrivals"]["values"]
    assert method["total_bytes"]["mean"] == method["uplink_bytes"]["mean"] + method["downlink_bytes"]["mean"]


@pytest.mark.parametrize("clients", [3, 10, 25, 40, 100])
@pytest.mark.parametrize("most", [9, 512, 31_415, 1_234_567])
def test_numbers_in_a_picture_are_narrower_than_its_cells_or_left_out(clients: int, most: int) -> None:
    picture = Heatmap("p", "t", tuple((client % most, most) for client in range(clients)), ("cat", "dog"))
    digit = 0.64 * 11  # of DejaVu Sans, the widest of the usual fonts, at 11 px
    assert picture.grid.has_numbers == ('class="n' in picture.to_svg())
    if picture.grid.has_numbers:
        assert digit * len(str(most)) + 3 <= picture.grid.across
    else:
        assert digit * len(str(most)) + 10 > picture.grid.across
