"""What a study leaves in its directory: the best configurations, the trials as a table, figures."""

import csv
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fedbench.config.passwords import masked
from fedbench.studies.file import StudyFile
from fedbench.studies.metrics import CHOOSERS, TO_TARGET, judged_by
from fedbench.studies.samplers import BOUNDS
from fedbench.studies.shared_study import REASON, counts, finished
from fedbench.system.atomic_files import replacing

METRICS = "fedbench:metrics"
DIRECTORIES = "fedbench:directories"
DIGESTS = "fedbench:model_sha256"

FIGURES = "figures"
TRIALS = "trials.csv"
DOTS_PER_INCH = 150
FIGURE_INCHES = (8.0, 5.0)

Trial = FrozenTrial
"""A trial as Optuna keeps it; for modules that do not import Optuna."""


def is_complete(trial: Trial) -> bool:
    """Whether the trial ended with a value for each objective."""
    return trial.state == TrialState.COMPLETE


def count_states(study: optuna.Study) -> dict[str, int]:
    """{name of a state, in small letters: number of trials in it}; those given out again are waiting."""
    trials = study.get_trials(deepcopy=False)
    ended = list(finished(trials))
    counted = {state.name.lower(): sum(trial.state == state for trial in ended) for state in TrialState}
    return counted | {"waiting": sum(trial.state == TrialState.WAITING for trial in trials)}


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial keeps within all constraints."""
    return all(violation <= 0 for violation in trial.user_attrs.get(BOUNDS, ()))


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best complete trial, or the Pareto front by number; feasible ones only, and so possibly none."""
    complete = [
        trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if is_feasible(trial)
    ]
    signs = [1.0 if direction == StudyDirection.MINIMIZE else -1.0 for direction in study.directions]
    losses = {
        trial.number: [sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in complete
    }
    if len(signs) == 1:
        return [min(complete, key=lambda trial: losses[trial.number])] if complete else []
    return [
        trial
        for trial in complete
        if not any(dominates(losses[other.number], losses[trial.number]) for other in complete)
    ]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere larger than `other`, and somewhere smaller."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def write_best(study: optuna.Study, file: StudyFile, directory: Path) -> list[Path]:
    """The configurations of the best trials, for `fedbench run`: best.yaml, or best-0007.yaml and so on for a front.

    A trial of several seeds is written with the first.
    """
    best = best_trials(study)
    paths = []
    for trial in best:
        values = masked(file.concrete(trial.params, file.seeds[0]).to_mapping())
        sought = ", ".join(
            f"{one.metric} {value:.6g}" for one, value in zip(file.objectives, trial.values or (), strict=True)
        )
        sought += test_in_words(file, trial)
        seeds = f", mean of {len(file.seeds)} seeds" if len(file.seeds) > 1 else ""
        text = (
            f"# Trial {trial.number} of the study {file.name}: {sought}{seeds}.\n"
            f"# With seed {file.seeds[0]} its model_sha256 is {trial.user_attrs[DIGESTS][0]}\n"
            + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        )
        path = directory / ("best.yaml" if len(file.objectives) == 1 else f"best-{trial.number:04d}.yaml")
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(path)
    for old in directory.glob("best-*.yaml"):
        if old not in paths:  # no longer on the front
            old.unlink(missing_ok=True)
    return paths


def test_in_words(file: StudyFile, trial: FrozenTrial) -> str:
    """The test score of a trial whose objective is one on validation, as a clause; "" for other studies."""
    sought = {objective.metric for objective in file.objectives}
    measured = trial.user_attrs.get(METRICS, {})
    names = [name for name, chooser in CHOOSERS.items() if chooser in sought and name in measured]
    return "".join(f", {name} on test {measured[name]:.4f}" for name in names)


def remarks_on_choice(study: optuna.Study, file: StudyFile) -> list[str]:
    """A line where trials were compared by the test split; none where they have a validation split."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if is_complete(trial)]
    if not complete or not any(name in CHOOSERS or name in TO_TARGET for name in file.metrics()):
        return []
    measured = complete[0].user_attrs.get(METRICS, {})
    headline = judged_by(measured)
    if (chooser := f"best_validation_{headline.name}") in measured:
        return []
    return [
        f"the trials were compared by their {headline.words} on the test split, so that of the best one is too "
        f"{'high' if headline.higher_is_better else 'low'}; set data.validation_fraction, and choose by {chooser}"
    ]


def write_trials(study: optuna.Study, file: StudyFile, directory: Path) -> Path:
    """All trials as CSV: number, state, objectives, parameters, further metrics, why it failed, its run."""
    trials = study.get_trials(deepcopy=False)
    parameters = list(file.drawn_from.names)
    measured = sorted({name for trial in trials for name in trial.user_attrs.get(METRICS, {})})
    text = io.StringIO()
    writer = csv.writer(text)
    values = [f"value:{one.metric}" for one in file.objectives]
    head = ["number", "state", *values, *parameters, *measured, "feasible", "counts", "reason", "directory"]
    writer.writerow(head)
    for trial in trials:
        metrics, runs = trial.user_attrs.get(METRICS, {}), trial.user_attrs.get(DIRECTORIES) or [""]
        writer.writerow(
            [
                trial.number,
                trial.state.name,
                *(trial.values or [""] * len(values)),
                *(trial.params.get(name, "") for name in parameters),
                *(metrics.get(name, "") for name in measured),
                is_feasible(trial) if trial.user_attrs.get(BOUNDS) else "",
                counts(trial),
                trial.user_attrs.get(REASON, ""),
                runs[0],
            ]
        )
    path = directory / TRIALS
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return path


def draw_figures(study: optuna.Study, file: StudyFile, directory: Path) -> list[str]:
    """Figures of Optuna's as figures/NAME.png: what it took to get where, and what mattered.

    Returns:
        Why one is missing, a line each.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return []
    from optuna.visualization import matplotlib as drawn

    folder = directory / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    with _off_screen():
        for name, draw in _figures(study, file, drawn):
            try:
                _save(draw, folder / f"{name}.png")
            except Exception as error:  # a figure is never worth a study; most want several trials
                missing.append(f"{name}: {' '.join(str(error).split())}")
    return missing


@contextmanager
def _off_screen() -> Iterator[None]:
    """Context in which pyplot draws without a display; the caller's backend and open figures stay."""
    import matplotlib.pyplot as plt

    before, opened = plt.get_backend(), set(plt.get_fignums())
    is_on_screen = before.lower() != "agg"
    if is_on_screen:
        plt.switch_backend("agg")
    try:
        yield
    finally:
        for number in set(plt.get_fignums()) - opened:
            plt.close(number)
        if is_on_screen:
            plt.switch_backend(before)


def _figures(study: optuna.Study, file: StudyFile, drawn: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    names = [one.metric for one in file.objectives]
    if len(names) in (2, 3):
        yield "pareto_front", lambda: drawn.plot_pareto_front(study, target_names=names)
    for place, (name, direction) in enumerate(zip(names, study.directions, strict=True)):
        suffix = f"_{name}" if len(names) > 1 else ""
        target = (lambda trial, place=place: trial.values[place]) if len(names) > 1 else None

        def history(name: str = name, target: Any = target) -> Any:
            return drawn.plot_optimization_history(study, target=target, target_name=name)

        def importance(name: str = name, target: Any = target) -> Any:
            return drawn.plot_param_importances(study, target=target, target_name=name)

        def parallel(name: str = name, target: Any = target, direction: StudyDirection = direction) -> Any:
            return best_darkest(drawn.plot_parallel_coordinate(study, target=target, target_name=name), direction)

        yield f"history{suffix}", history
        yield f"importance{suffix}", importance
        yield f"parallel_coordinates{suffix}", parallel
    if file.pruner is not None:
        yield "intermediate_values", lambda: drawn.plot_intermediate_values(study)


def best_darkest(axes: Any, direction: StudyDirection) -> Any:
    """Give the best trial the darkest line: Optuna gives it to the smallest value of any objective among several.

    Args:
        axes: what `plot_parallel_coordinate` returned.
        direction: in which the objective is better.

    Returns:
        The same axes.
    """
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap

    visible = ListedColormap(colormaps["Blues"](np.linspace(0.25, 1.0, 256)))
    for lines in axes.collections:
        if isinstance(lines, LineCollection):
            lines.set_cmap(visible if direction == StudyDirection.MAXIMIZE else visible.reversed())
    return axes


def _save(draw: Callable[[], Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("ignore")  # Optuna calls its matplotlib figures experimental
        axes = draw()
        figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
        figure.set_size_inches(*FIGURE_INCHES)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=DOTS_PER_INCH, bbox_inches="tight", format="png")
        plt.close(figure)
