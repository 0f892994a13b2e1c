"""Analyses of runs in their report and on a page of their own, in a browser, too."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from fedbench.analysis.channel_grid import matrix_picture
from fedbench.analysis.results import Analysis, Picture, write_analysis
from fedbench.errors import RunError
from fedbench.records.recorded_analysis import ShownTable, read_analysis
from fedbench.report.analyses import analyses_of
from fedbench.report.compare import compare, load
from fedbench.report.content import Report, make_report
from fedbench.report.files import write_report
from fedbench.report.html import page

pytestmark = pytest.mark.slow


def analysis(title: str = "A <title> & more") -> Analysis:
    """An analysis of four models with a wide picture."""
    models = tuple(f"model {number} with a long name" for number in range(4))
    channels = [np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)] * 8
    picture = matrix_picture([[channels] * 4] * 3, ["conv1", "conv2", "fc"], models)
    rows = tuple((model, ("0.123", "45.6")) for model in models)
    return Analysis(
        kind="kernels",
        title=title,
        intro=("What was done.",),
        models=models,
        settings={},
        data={"kernels": pa.table({"a": [1.0]})},
        tables=(ShownTable("Figures", "model", ("first", "second"), rows, ("a note",)),),
        pictures=(Picture("kernels", "A picture", "A caption.", picture),),
        metrics={"a/b": 0.5},
    )


@pytest.fixture(scope="module")
def analysed(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two recorded runs that both have the same analysis."""
    folder = tmp_path_factory.mktemp("analysed")
    for name in ("full-0", "part-0"):
        write_analysis(analysis(), Path(shutil.copytree(recorded / name, folder / name)), "kernels")
    return folder


@pytest.fixture
def runs(analysed: Path, tmp_path: Path) -> list[Path]:
    """The same two runs, to be changed."""
    return [Path(shutil.copytree(directory, tmp_path / directory.name)) for directory in sorted(analysed.iterdir())]


def report_of(runs: list[Path]) -> Report:
    return make_report(compare(load(runs)))


def test_an_analysis_of_several_runs_stands_in_their_report_once(
    runs: list[Path], tmp_path: Path, no_pdf: None
) -> None:
    report = report_of(runs)
    assert [found.title for found in report.analyses.shown] == ["A <title> & more"]
    files = write_report(report, tmp_path / "out")
    html, text = files[0].read_text(), files[1].read_text()
    assert html.count("A &lt;title&gt; &amp; more") == 1
    assert html.count("data:image/png;base64,") == 1
    assert "![A picture](charts/analysis-1-kernels.png)" in text
    assert (tmp_path / "out" / "charts" / "analysis-1-kernels.png") in files
    for directory in runs:
        shutil.rmtree(directory / "analysis")
    write_report(report_of(runs), tmp_path / "out")
    assert not list((tmp_path / "out" / "charts").glob("analysis-*"))


def test_a_damaged_analysis_is_told_of_and_the_others_are_shown(runs: list[Path]) -> None:
    write_analysis(analysis("Whole"), runs[0], "whole")
    for directory in runs:
        picture = directory / "analysis" / "kernels" / "kernels.png"
        picture.write_bytes(picture.read_bytes()[:-1])
    found = report_of(runs).analyses
    assert [shown.title for shown in found.shown] == ["Whole"]
    assert len(found.faults) == 2
    assert "kernels.png: is not as it was written" in page(report_of(runs))


def test_what_is_written_is_read_again_and_replaces_what_was_there(runs: list[Path]) -> None:
    folder = runs[0] / "analysis" / "kernels"
    assert read_analysis(folder).metrics == {"a/b": 0.5}
    (folder / "stale.txt").write_text("")
    write_analysis(analysis("Another"), runs[0], "kernels")
    assert read_analysis(folder).title == "Another"
    assert not (folder / "stale.txt").exists()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["index.html", "kernels"]


def test_a_folder_that_cannot_be_written_leaves_nothing_half_made(runs: list[Path]) -> None:
    place = runs[0] / "analysis"
    shutil.rmtree(place)
    place.write_text("in the way")
    with pytest.raises(RunError, match=r"^[^\n]*cannot be written: [^\n]*$"):
        write_analysis(analysis(), runs[0], "kernels")
    assert place.read_text() == "in the way"


def test_neither_page_is_cut_at_1280_pixels(runs: list[Path], tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    known = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    browser = os.environ.get("FEDBENCH_CHROMIUM") or next(filter(None, known), None)
    if browser is None:
        pytest.skip("no Chromium: set FEDBENCH_CHROMIUM")
    report, own = tmp_path / "report.html", runs[0] / "analysis" / "index.html"
    report.write_text(page(report_of(runs)))
    with api.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for width in (1280, 400):
            opened = launched.new_page(viewport={"width": width, "height": 900})
            for file in (report, own):
                opened.goto(file.as_uri())
                assert not opened.evaluate("document.documentElement.scrollWidth > window.innerWidth")
                picture = opened.query_selector(".analysis img")
                assert picture is not None
                assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
                if width == 1280:  # nothing of the picture is scaled down
                    assert picture.evaluate("image => image.clientWidth === image.naturalWidth")
        launched.close()


def test_the_picture_is_as_wide_as_a_page(runs: list[Path]) -> None:
    with Image.open(analyses_of(runs).shown[0].pictures[0].file) as picture:
        assert 1100 < picture.width <= 1184
