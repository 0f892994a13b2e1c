"""`fedbench report`: from run directories or an experiment to the written report."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fedbench.records.recorded_run import RecordedRun, Unusable, run_directories
from fedbench.report.chosen_labels import Labels
from fedbench.report.compare import compare, load
from fedbench.report.content import Report, make_report
from fedbench.report.files import write_report
from fedbench.system.home import expanded


@dataclass(frozen=True)
class Wanted:
    """What a report is asked for.

    Attributes:
        paths: run directories, or folders that hold some.
        experiment: name of an MLflow experiment whose runs are read, too; None: none.
        mlflow_uri: the store of the experiment; None: the default one.
        target, baseline: as for `make_report`.
        labels: as for `compare`.
        columns: as for `make_report`.
        command: the command that is named as having made the report.
    """

    paths: tuple[Path, ...]
    _: KW_ONLY
    experiment: str | None = None
    mlflow_uri: str | None = None
    target: float | None = None
    baseline: str | None = None
    labels: Labels = ()
    columns: tuple[str, ...] = ()
    command: str = "fedbench report"


def report_on(wanted: Wanted, output: Path) -> tuple[Report, list[Path]]:
    """Read the runs, compare them, and write the report.

    Args:
        wanted: which runs, and what of them.
        output: the folder that is written to.

    Returns:
        The report, and the files.

    Raises:
        FedbenchError: nothing to compare, a wrong option, or a folder that cannot be written.
    """
    with TemporaryDirectory(prefix="fedbench-report-") as folder:
        runs = _read(wanted, Path(folder))
        comparison = compare(runs, wanted.labels)
        report = make_report(comparison, wanted.target, wanted.baseline, wanted.command, wanted.columns)
        return report, write_report(report, expanded(output))


def _read(wanted: Wanted, folder: Path) -> list[RecordedRun | Unusable]:
    directories = run_directories(wanted.paths)
    sources, lost = [str(directory) for directory in directories], []
    if wanted.experiment is not None:
        from fedbench.tracking.download import archived_runs

        known = {directory.resolve() for directory in directories}
        for run in archived_runs(wanted.experiment, wanted.mlflow_uri, folder):
            if run.directory is None:
                lost.append(Unusable(run.source, run.reason))
            elif run.directory.resolve() not in known:
                directories.append(run.directory)
                sources.append(run.source)
    return [*load(directories, sources), *lost]


def upload_all(paths: Sequence[Path], mlflow_uri: str | None, experiment: str | None) -> list[dict[str, str]]:
    """Send to MLflow what it lacks of all runs in `paths`; one {directory, run_id, experiment} each.

    Raises:
        FedbenchError: at the first run that cannot be sent.
    """
    from fedbench.tracking.upload import upload

    sent = [upload(directory, mlflow_uri, experiment) for directory in run_directories(paths)]
    return [{"directory": str(run.directory), "run_id": run.run_id, "experiment": run.experiment} for run in sent]
