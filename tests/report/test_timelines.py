"""Pictures of clients' time in a report: of runs that have a clock, drawn from their tables."""

from pathlib import Path

import pytest

from fedbench.cli.report_terminal import print_report
from fedbench.cli.terminal import in_seconds
from fedbench.records.recorded_run import read_run
from fedbench.report import timelines
from fedbench.report.analyses import png_data
from fedbench.report.compare import compare, load
from fedbench.report.content import Report, make_report
from fedbench.report.files import write_report


def report_of(recorded: Path, *names: str) -> Report:
    return make_report(compare(load([recorded / name for name in names])))


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "DOTS_PER_INCH", 30)


def test_runs_with_a_clock_have_a_picture_in_every_file(recorded: Path, tmp_path: Path, no_pdf: None) -> None:
    report = report_of(recorded, "full-0", "async-0")
    (picture,) = report.timelines.shown
    assert picture.title.endswith("seed 0")
    assert picture.png.startswith(b"\x89PNG")
    files = write_report(report, tmp_path)
    assert (tmp_path / "charts/timeline-1.png").read_bytes() == picture.png
    assert tmp_path / "charts/timeline-1.png" in files
    assert png_data(picture.png) in (tmp_path / "report.html").read_text()
    assert f"![{picture.title}](charts/timeline-1.png)" in (tmp_path / "report.md").read_text()
    write_report(report_of(recorded, "full-0"), tmp_path)
    assert not (tmp_path / "charts/timeline-1.png").exists()
    assert timelines.HEADING not in (tmp_path / "report.html").read_text()


def test_what_is_left_out_is_said(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = report_of(recorded, "full-0", "async-0").comparison.methods
    monkeypatch.setattr(timelines, "MOST_TIMELINES", 0)
    assert "The first 0 of 1 methods." in timelines.timelines_of(methods).note


def test_the_terminal_tells_the_clock_beside_the_wall_time(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report_of(recorded, "full-0", "async-0"), ())
    table = capsys.readouterr().out
    (heading,) = (line for line in table.splitlines() if "seeds" in line)
    assert heading.split()[-2:] == ["clock", "wall"]
    seconds = in_seconds(read_run(recorded / "async-0").summary["virtual_seconds"])
    assert seconds in table
    print_report(report_of(recorded, "full-0"), ())
    assert "clock" not in capsys.readouterr().out
