"""A study from Python: an Optuna search, run and returned with its trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.api.progress import RowProgress, row_function, warn
from fedbench.api.session import release_actors
from fedbench.api.surroundings import restored
from fedbench.api.wording import arguments_named
from fedbench.config.python_values import override_texts
from fedbench.engine.on_ray.lifetime import ray_kept
from fedbench.experiment.interrupt import delivered_afterwards

if TYPE_CHECKING:
    from fedbench.studies.run import StudyListener, StudyResult


def run_study(
    study: str | Path | Mapping[str, Any],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    trials: int | None = None,
    concurrency: int | None = None,
    storage: str | None = None,
    progress: RowProgress = False,
) -> "StudyResult":
    """Search over configurations with Optuna, or go on with a study.

    Signals are heeded as by `run`: running trials end at their round, and the same call goes on with the study.

    Args:
        study: the name of one that comes with fedbench, the path of a YAML file, or what such a file holds.
        overrides: of the base configuration; also `base`, `name` and `run_budget.KEY` of the study itself.
        trials: how many in all, those of earlier calls included; concurrency: how many at a time.
        storage: path of a journal, or a database to share a study.
        progress: False or None: nothing is shown. True: the lines of the command line, on stderr. A function: it is
            called with each finished trial as a dict: number, state, values, parameters, metrics, ...

    Raises:
        FedbenchError: bad study or storage, a cluster without room (before any trial), or one of them that was lost.
    """
    from fedbench.studies.file import load_study
    from fedbench.studies.run import sweep

    with arguments_named():
        file = load_study(study, override_texts(overrides), trials=trials, concurrency=concurrency, storage=storage)
        with delivered_afterwards() as was_signalled, ray_kept(), restored():
            release_actors()
            result = sweep(file, _listener(progress))
            if result.status == "interrupted":
                was_signalled.hint = "go on with the same call"
    warn(result.warnings, progress)
    return result


def _listener(progress: RowProgress) -> "StudyListener":
    if progress is True:
        from fedbench.cli.study_terminal import StudyProgress
        from fedbench.cli.terminal import console

        return StudyProgress(console)
    from fedbench.studies.trial_rows import TrialRows

    return TrialRows(None if progress is None or progress is False else row_function(progress))
