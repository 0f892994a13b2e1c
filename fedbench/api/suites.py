"""A suite from Python: a paper's table, run and returned as pandas has it."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.api.progress import Row, RowProgress, row_function
from fedbench.api.session import release_actors
from fedbench.api.surroundings import restored
from fedbench.api.wording import arguments_named
from fedbench.config.python_values import override_texts
from fedbench.engine.on_ray.lifetime import ray_kept
from fedbench.errors import ConfigError
from fedbench.experiment.interrupt import delivered_afterwards
from fedbench.records.headline import ACCURACY, headline_of_summary
from fedbench.records.metrics import headline_figures
from fedbench.records.observers import RunDescription
from fedbench.records.schema import ClientRecord, RoundRecord
from fedbench.suites.expand import expand
from fedbench.suites.file import read_suite, suite_path
from fedbench.suites.files import TABLE
from fedbench.suites.plan import Plan, slug
from fedbench.suites.results import Outcome, Outcomes
from fedbench.suites.run import run_suite as run_plan
from fedbench.suites.run import suite_folder
from fedbench.tables import render

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class SuiteResult:
    """What a suite came to.

    Attributes:
        outcomes: what became of each run.
        directory: the folder of the suite's runs and tables.
        warnings: what could not be recorded, or deserves a second look.
    """

    outcomes: Outcomes = field(repr=False)
    directory: Path
    warnings: tuple[str, ...]

    @property
    def status(self) -> str:
        """Finished, or failed where a run has failed, or interrupted where one is missing."""
        return self.outcomes.status

    @property
    def files(self) -> Path:
        """The folder with the table as Markdown, LaTeX, HTML, CSV and JSON."""
        return self.directory / TABLE

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The suite as `fedbench suite --json` prints it."""
        return self.outcomes.to_mapping()

    def frame(self) -> "pandas.DataFrame":
        """The cells, one row each: mean and deviation over the seeds in `unit`, with the published figure beside."""
        columns = ("row", "column", "quantity", "unit", "mean", "std", "published", "published_std", "difference")
        return _frame(self.summary["cells"], (*columns, "absence"))

    def runs(self) -> "pandas.DataFrame":
        """The runs, one row each: label, seed, status, directory, why it failed, its best score, time."""
        runs = self.summary["runs"]
        names = dict.fromkeys(key for run in runs for key in run)
        return _frame([names | run for run in runs], tuple(names))

    def to_markdown(self) -> str:
        """The table with its notes, as Markdown."""
        return render.markdown(self.outcomes.table())


def run_suite(
    suite: str | Path,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    seeds: Sequence[int] | None = None,
    only: str | None = None,
    scale: float = 1.0,
    force: bool = False,
    progress: RowProgress = False,
) -> SuiteResult:
    """Run a paper's table: every cell that is not recorded yet, for every seed.

    A run that fails leaves the others alone: see `SuiteResult.status` and `SuiteResult.runs`. What is recorded is not
    run again, so that a call after an interrupt goes on with the suite. Signals are heeded as by `run`.

    Args:
        suite: the name of one that comes with fedbench, or the path of a YAML file.
        overrides: "section.key=value" texts, or values by key, over everything that the suite sets.
        seeds: instead of the suite's.
        only: "ROW/COLUMN", a row or a column, with wildcards.
        scale: of rounds and data, greater than 0, at most 1, for a smaller table, which says so.
        force: run everything again, also what is recorded.
        progress: False or None: nothing is shown. True: the lines of the command line, on stderr. A function: it is
            called with the row of each run that has ended, as in `SuiteResult.runs`, without its label.

    Raises:
        FedbenchError: no such suite, a configuration that cannot be run, or data of which nothing is there.
    """
    path = suite_path(str(suite))
    chosen = None if seeds is None else _checked_seeds(seeds)
    with arguments_named():
        plan = expand(
            slug(path.stem),
            read_suite(path),
            seeds=chosen,
            only=only,
            scale=scale,
            overrides=override_texts(overrides),
        )
        with delivered_afterwards() as was_signalled, ray_kept(), restored():
            release_actors()
            outcomes, warnings = _carry_out(plan, progress, force)
            if outcomes.status == "interrupted":
                was_signalled.hint = "go on with the same call" + (
                    ", without force: what it has run again is kept" if force else ""
                )
    return SuiteResult(outcomes, suite_folder(plan), warnings)


def _carry_out(plan: Plan, progress: RowProgress, force: bool) -> tuple[Outcomes, tuple[str, ...]]:
    if progress is True:
        from fedbench.cli.suite_progress import SuiteProgress
        from fedbench.cli.terminal import console

        with SuiteProgress(console, len(plan.runs)) as lines:
            return run_plan(plan, lines, force=force), tuple(lines.warnings)
    rows = SuiteRows(progress)
    return run_plan(plan, rows, force=force), tuple(rows.warnings)


class SuiteRows:
    """Hands each run that has ended to a function, if there is one (a `SuiteListener`).

    Attributes:
        warnings: what was warned of.
    """

    def __init__(self, progress: RowProgress) -> None:
        self._take = None if progress is None or progress is False else row_function(progress)
        self.warnings: list[str] = []
        self._title = ""

    def begin(self, number: int, title: str) -> None:
        """Keep the name of the run."""
        self._title = title

    def end(self, outcome: Outcome) -> None:
        """Hand the run on."""
        if self._take is not None:
            self._take(self._row(outcome))

    @staticmethod
    def _scores(outcome: Outcome) -> tuple[str, ...]:
        """The accuracies, and behind them what the run's task is judged by where that is another metric."""
        of_task = headline_figures(headline_of_summary(outcome.summary))[:2]
        return tuple(dict.fromkeys((*headline_figures(ACCURACY)[:2], *of_task)))

    def _row(self, outcome: Outcome) -> Row:
        return {
            "run": self._title,
            "status": outcome.status,
            "reused": outcome.reused,
            "reason": outcome.reason or None,
            "directory": outcome.directory,
            **{key: outcome.summary.get(key) for key in (*self._scores(outcome), "wall_seconds")},
        }

    def say(self, line: str) -> None:
        """Nothing is shown."""

    def show_traceback(self, text: str) -> None:
        """Nothing is shown; the reason is in the run's row."""

    def warn(self, line: str) -> None:
        """Keep the warning."""
        self.warnings.append(line)

    def run_started(self, run: RunDescription) -> None:
        """Nothing is shown."""

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Nothing is shown."""

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Nothing is shown."""


def _checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Seeds as different whole numbers of at least 0.

    Raises:
        ConfigError: they are none.
    """
    try:
        chosen = tuple(operator.index(seed) for seed in seeds)
    except TypeError:
        chosen = ()
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        raise ConfigError(f"seeds={seeds!r}: must be different whole numbers of at least 0, such as [0, 1, 2]")
    return chosen


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> "pandas.DataFrame":
    import pandas

    return pandas.DataFrame([{name: row[name] for name in columns} for row in rows], columns=list(columns))
