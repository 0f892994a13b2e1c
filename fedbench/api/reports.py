"""A report from Python: recorded runs compared, written, and returned as pandas has them."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedbench.api.surroundings import restored
from fedbench.api.wording import arguments_named
from fedbench.config.passwords import without_passwords
from fedbench.errors import ConfigError
from fedbench.experiment.result import Result
from fedbench.records.metrics import METRICS
from fedbench.records.run_directory import runs_root

if TYPE_CHECKING:
    import pandas

    from fedbench.report.content import Report


@dataclass(frozen=True)
class WrittenReport:
    """A comparison of recorded runs, and the files that say it.

    Attributes:
        content: the report itself: tables, charts, what cannot be compared.
        files: `report.html`, `report.md`, `table.csv`, `table.tex`, the charts as SVG and PDF, and pictures as PNG.
    """

    content: "Report" = field(repr=False)
    files: tuple[Path, ...]

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader must know before believing a figure, the worst first; runs that were left out among it."""
        return tuple(f"{caveat.severity}: {caveat.text}" for caveat in self.content.comparison.caveats)

    def frame(self) -> "pandas.DataFrame":
        """The runs that count, one row each: the label of the method, seed, directory, and the figures of the run.

        Accuracies are fractions, bytes and FLOPs sums over all clients and rounds; a figure that a run has not is
        missing.
        """
        import pandas

        from fedbench.report.shown_metrics import own_columns

        own = [column.metric for column in own_columns(self.content.comparison.methods)]
        figures = [*(metric for metric in METRICS.values() if metric.is_summarised), *own]
        rows = [
            {
                "method": method.label,
                "seed": run.seed,
                **{metric.name: metric.of_summary(run.summary) for metric in figures},
                "directory": run.directory,
            }
            for method in self.content.comparison.methods
            for run in method.runs
        ]
        return pandas.DataFrame(rows)


def write_report(
    runs: "str | Path | Result | Iterable[str | Path | Result] | None" = None,
    *,
    experiment: str | None = None,
    mlflow_uri: str | None = None,
    target: float | None = None,
    baseline: str | None = None,
    columns: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    output: str | Path = "report",
) -> WrittenReport:
    """Compare recorded runs: tables, charts, differences seed by seed, and what cannot be compared.

    Args:
        runs: results, run directories, or folders that hold some; None: the folder `runs`, or with `experiment` none.
        experiment: an MLflow experiment whose runs are read, too; mlflow_uri: where it is.
        target: accuracy (0..1) to be reached, or a value of what the task of the runs is judged by; None: a tenth worse
            than the worst method's best.
        baseline: label of the method that others are measured against; None: plain FedAvg.
        columns: of the main table, by the names of `WrittenReport.frame`; none: the usual ones.
        labels: {method: what it is called everywhere}.
        output: the folder that is written to; made if it is not there.

    Raises:
        FedbenchError: nothing to compare, a wrong argument, or a folder that cannot be written.
    """
    if mlflow_uri is not None and experiment is None:
        raise ConfigError(f"mlflow_uri={mlflow_uri}: has no effect without experiment; leave it out")
    from fedbench.report.make import Wanted, report_on

    if runs is None:
        paths: tuple[Path, ...] = (runs_root(),) if experiment is None else ()
    else:
        several = [runs] if isinstance(runs, str | Path | Result) else list(runs)
        paths = tuple(item.directory if isinstance(item, Result) else Path(item) for item in several)
        if not paths and experiment is None:
            raise ConfigError("runs=[]: name at least one run, or leave it out for the folder runs")
    options = {"--experiment": experiment, "--mlflow-uri": mlflow_uri, "--target": target, "--baseline": baseline}
    options |= {"--columns": ",".join(columns) or None}
    given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    given += [text for method, label in (labels or {}).items() for text in ("--label", f"{method}={label}")]
    command = without_passwords(shlex.join(["fedbench", "report", *map(str, paths), *given]))
    wanted = Wanted(
        paths=paths,
        experiment=experiment,
        mlflow_uri=mlflow_uri,
        target=target,
        baseline=baseline,
        labels=labels or (),
        columns=tuple(columns),
        command=command,
    )
    with arguments_named(), restored():
        report, files = report_on(wanted, Path(output))
    return WrittenReport(report, tuple(files))
