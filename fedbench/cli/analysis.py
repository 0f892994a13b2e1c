"""Performs an analysis for the command line: its models read, what it found written, sent to MLflow and shown."""

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.cli.entry import interruptible
from fedbench.cli.json_output import print_json
from fedbench.config.passwords import without_passwords

if TYPE_CHECKING:
    from fedbench.analysis.recorded_model import RecordedModel
    from fedbench.analysis.results import Analysis, Progress
    from fedbench.records.recorded_analysis import RecordedAnalysis


def perform(
    runs: Sequence[str],
    prepared: "Callable[[], Callable[[Sequence[RecordedModel], Progress], Analysis]]",
    name: str | None,
    as_json: bool,
) -> None:
    """Perform an analysis on the models that a command line names, write it, send it to MLflow, and show it.

    Args:
        runs: paths, and "data.root=DIR".
        prepared: gives the analysis, which is called with the models and a progress; raises before anything is read
            where an option is wrong.
        name: of the folder; None: the kind of the analysis.
        as_json: whether one JSON document is printed.
    """
    from fedbench.analysis.recorded_model import open_models
    from fedbench.analysis.results import check_name
    from fedbench.cli.analysis_progress import AnalysisProgress
    from fedbench.cli.terminal import console

    if name is not None:
        check_name(name)
    with interruptible(), redirect_stdout(sys.stderr):
        function = prepared()
        models = open_models(runs)
        with AnalysisProgress(console) as progress:
            analysis = function(models, progress)
        directories = [model.experiment.directory for model in models]
        written, warnings = leave(analysis, directories, name)
    conclude(written, warnings, as_json)


def leave(analysis: "Analysis", directories: Sequence[Path], name: str | None) -> "tuple[RecordedAnalysis, list[str]]":
    """Write an analysis to each of its runs, and send it to their runs in MLflow.

    Returns:
        (the analysis in the directory of the first run, one line for each run whose MLflow run lacks it).
    """
    from fedbench.analysis.results import common_directories, default_name, write_analysis
    from fedbench.tracking.analysis_upload import send_analysis

    command = without_passwords(shlex.join(["fedbench", *sys.argv[1:]]))
    places = common_directories(directories)
    folder = name or default_name(analysis.kind, len(places))
    written = [write_analysis(analysis, place, folder, command=command) for place in places]
    sent = [send_analysis(place, recorded) for place, recorded in zip(places, written, strict=True)]
    return written[0], [warning for warning in sent if warning is not None]


def conclude(analysis: "RecordedAnalysis", warnings: Sequence[str], as_json: bool) -> None:
    """Show an analysis that was written: its tables and where its files are."""
    from fedbench.cli.table_terminal import print_line, print_table
    from fedbench.cli.terminal import print_warnings
    from fedbench.records.recorded_analysis import PAGE
    from fedbench.report.analyses import as_table

    print_warnings(warnings)
    page = analysis.folder.parent / PAGE
    if as_json:
        print_json(to_document(analysis) | {"page": str(page), "warnings": list(warnings)})
        return
    for table in analysis.tables:
        print_table(as_table(table))
    for picture in analysis.pictures:
        print_line(f"{'picture':<8}{picture.file}")
    print_line(f"{'page':<8}{page}")


def to_document(analysis: "RecordedAnalysis") -> dict[str, Any]:
    """An analysis as a JSON document."""
    return {
        "kind": analysis.kind,
        "title": analysis.title,
        "models": list(analysis.models),
        "metrics": analysis.metrics,
        "tables": [table.to_mapping() for table in analysis.tables],
        "directory": str(analysis.folder),
        "files": [str(analysis.folder / name) for name in analysis.files],
    }
