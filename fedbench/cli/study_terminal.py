"""Shows the progress and the result of a study: on the terminal, or as plain values for programs."""

import shlex
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedbench.studies.file import StudyFile
from fedbench.studies.metrics import CHOOSERS
from fedbench.studies.results import (
    METRICS,
    Trial,
    count_states,
    is_complete,
    is_feasible,
    test_in_words,
)
from fedbench.studies.run import StudyResult
from fedbench.studies.shared_study import REASON, counts
from fedbench.studies.space import in_words, number
from fedbench.studies.storage import with_driver
from fedbench.studies.trial_rows import trial_row

LONGEST_PARAMETERS = 80
MOST_ROWS = 20


class StudyProgress:
    """Prints one line for each finished trial to stderr (a `StudyListener`)."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._file: StudyFile | None = None

    def study_started(self, file: StudyFile, directory: Path, done: int, slots: int) -> None:
        """Print what begins: the study, its number of trials, its directory."""
        self._file = file
        asked = file.budget.trials
        of = f" of {asked}" if asked else ""
        earlier = f", {done}{of} trials done before" if done else f", {asked} trials" if asked else ""
        self.note(f"study {file.name}: {slots} trial{'s' if slots > 1 else ''} at a time{earlier}, {directory}")

    def trial_finished(self, trial: Trial, best: list[Trial]) -> None:
        """Print number, state, values, best so far and parameters."""
        assert self._file is not None
        state = "INTERRUPTED" if not counts(trial) else trial.state.name
        values = (
            shown_values(self._file, trial)
            if is_complete(trial)
            else trial.user_attrs.get(REASON) or shown_values(self._file, trial)
        )
        if is_complete(trial) and not is_feasible(trial):
            values += " (beyond a constraint)"
        if not best:
            so_far = ""
        elif len(self._file.objectives) > 1:
            so_far = f"front {len(best)}"
        else:
            so_far = f"best {number(best[0].values[0])} (trial {best[0].number})"
        parameters = textwrap.shorten(in_words(trial.params), LONGEST_PARAMETERS, placeholder=" ...")
        parts = (f"trial {trial.number:<4d} {state:<9}", values, so_far, parameters)
        self.note("  ".join(part for part in parts if part))

    def note(self, line: str) -> None:
        """Print a line."""
        self._screen.print(line, markup=False, highlight=False, soft_wrap=True)


def shown_values(file: StudyFile, trial: Trial) -> str:
    """Write the objectives of a trial with their names, as far as it has values."""
    pairs = zip(file.objectives, trial.values or (), strict=False)
    return "  ".join(f"{one.metric} {number(value)}" for one, value in pairs) + test_in_words(file, trial)


def print_study(result: StudyResult, screen: Console) -> None:
    """Print the best trial, or the Pareto front, and where the study's files are."""
    if not result.best:
        screen.print(
            "no trial has come to a value that keeps the constraints"
            if result.file.constraints
            else "no trial is complete"
        )
    else:
        table = Table(box=None, padding=(0, 2, 0, 0))
        sought = [objective.metric for objective in result.file.objectives]
        on_test = [name for name, chooser in CHOOSERS.items() if chooser in sought]
        for head in ("trial", *sought, *(f"{name} on test" for name in on_test), "parameters"):
            table.add_column(head, overflow="fold", no_wrap=head == "trial")
        for trial in sorted(result.best, key=lambda trial: trial.values[0])[:MOST_ROWS]:
            measured = trial.user_attrs.get(METRICS, {})
            tested = [number(measured[name]) if name in measured else "" for name in on_test]
            table.add_row(str(trial.number), *map(number, trial.values), *tested, in_words(trial.params))
        screen.print("Pareto front:" if len(result.file.objectives) > 1 else "best:", highlight=False)
        screen.print(table, markup=False, highlight=False)
        if len(result.best) > MOST_ROWS:
            screen.print(f"and {len(result.best) - MOST_ROWS} more in trials.csv", highlight=False)
    states = count_states(result.study)
    lines = [("trials", ", ".join(f"{count} {name}" for name, count in states.items() if count))]
    lines.append(("files", _near(result.directory)))
    if result.best_files:
        more = f" (and {len(result.best_files) - 1} more)" if len(result.best_files) > 1 else ""
        lines.append(("run again", f"fedbench run {shlex.quote(_near(result.best_files[0]))}{more}"))
    if find_spec("optuna_dashboard") is not None:
        where = with_driver(result.storage) if "://" in result.storage else _near(Path(result.storage))
        lines.append(("browse", f"optuna-dashboard {shlex.quote(where)}"))
    for name, text in lines:
        screen.print(f"{name:<16} {text}", markup=False, highlight=False, soft_wrap=True)


def to_document(result: StudyResult) -> dict[str, Any]:
    """Give the result of a study as plain values, with every trial."""
    return {
        "study": result.file.name,
        "status": result.status,
        "directory": str(result.directory),
        "storage": result.storage,
        "objectives": [one.model_dump() for one in result.file.objectives],
        "trials": [trial_row(trial) for trial in result.study.get_trials(deepcopy=False)],
        "best": [trial.number for trial in result.best],
        "best_files": [str(path) for path in result.best_files],
        "warnings": list(result.warnings),
    }


def _near(path: Path) -> str:
    """Shorten a path to what one would type in the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
