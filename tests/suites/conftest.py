"""What makes many short runs quick, and a suite that was run once."""

from pathlib import Path

import pytest
from command_line import cache_in
from small_suites import RecordedSuite, plan_of, run, write_suite


@pytest.fixture(autouse=True)
def quick_runs(flops_counted_once: None, no_figures: None) -> None:
    """Nothing here looks at the figures of single runs."""


@pytest.fixture(scope="session")
def whole_suite(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> RecordedSuite:
    """The tiny suite, run as a whole; to be read only."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FEDBENCH_CACHE", cache_in(tmp_path_factory.mktemp("cache")))
        patch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
        patch.setattr("fedbench.report.files.chart_pdf", lambda picture: b"")
        return RecordedSuite(folder, *run(plan_of(write_suite(folder))))


@pytest.fixture
def recorded_suite(whole_suite: RecordedSuite, run_folder: Path) -> RecordedSuite:
    """The same in the working directory, without the runs' directories, of which a test takes those that it needs."""
    return RecordedSuite(run_folder, whole_suite.outcomes, whole_suite.lines, whole_suite.folder)
