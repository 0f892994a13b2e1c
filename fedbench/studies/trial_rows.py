"""A trial as a row of plain values, and a study's trials handed to a function."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedbench.studies.file import StudyFile
from fedbench.studies.results import DIGESTS, DIRECTORIES, METRICS, Trial, is_feasible
from fedbench.studies.shared_study import REASON, counts


def trial_row(trial: Trial) -> dict[str, Any]:
    """A trial as plain values."""
    return {
        "number": trial.number,
        "state": trial.state.name,
        "counts": counts(trial),
        "values": trial.values,
        "parameters": trial.params,
        "metrics": trial.user_attrs.get(METRICS, {}),
        "feasible": is_feasible(trial),
        "reason": trial.user_attrs.get(REASON),
        "directories": trial.user_attrs.get(DIRECTORIES, []),
        "model_sha256": trial.user_attrs.get(DIGESTS, []),
    }


class TrialRows:
    """Hands each finished trial to a function, if there is one (a `StudyListener`)."""

    def __init__(self, take: Callable[[dict[str, Any]], object] | None) -> None:
        self._take = take

    def study_started(self, file: StudyFile, directory: Path, done: int, slots: int) -> None:
        """Nothing to hand on yet."""

    def trial_finished(self, trial: Trial, best: list[Trial]) -> None:
        """Hand the trial on."""
        if self._take is not None:
            self._take(trial_row(trial))

    def note(self, line: str) -> None:
        """Nothing is shown."""
