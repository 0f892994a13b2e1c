"""The page of a report in a browser: nothing of its tables is cut off on a screen of 1,280 pixels."""

import os
import shutil
from pathlib import Path

import pytest

from fedbench.records.recorded_run import run_directories
from fedbench.report.compare import compare, load
from fedbench.report.content import make_report
from fedbench.report.html import page

pytestmark = pytest.mark.slow

CUT = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
PAGE_CUT = "document.documentElement.scrollWidth > window.innerWidth"


def test_no_table_is_cut_at_1280_pixels_and_the_page_never(recorded: Path, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    known = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    browser = os.environ.get("FEDBENCH_CHROMIUM") or next(filter(None, known), None)
    if browser is None:
        pytest.skip("no Chromium: set FEDBENCH_CHROMIUM")
    file = tmp_path / "report.html"
    file.write_text(page(make_report(compare(load(run_directories([recorded]))))))
    with api.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for width in (1280, 400):
            opened = launched.new_page(viewport={"width": width, "height": 900})
            opened.goto(file.as_uri())
            assert not opened.evaluate(PAGE_CUT)
            (box,) = opened.query_selector_all("#results .scroll")
            box.evaluate("box => box.scrollLeft = 200")
            left = box.evaluate("box => box.querySelector('tbody th').getBoundingClientRect().left - box.offsetLeft")
            assert left == pytest.approx(0, abs=2), "the names of the methods stay while a table scrolls"
            if width == 1280:
                assert opened.evaluate(CUT) == 0
        launched.close()
