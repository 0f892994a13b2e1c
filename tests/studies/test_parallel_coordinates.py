"""Parallel coordinates of a study: the darkest line is the best trial."""

import warnings

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection

from fedbench.studies.results import best_darkest

VALUES = (0.9, 0.1, 0.5)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("objectives", [1, 2])
def test_the_darkest_line_is_the_best_trial(direction: str, objectives: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    study = optuna.create_study(directions=[direction, "minimize"][:objectives])
    for number, value in enumerate(VALUES):
        values = [value, 1.0 + number][:objectives]
        where = {"params": {"lr": 0.1 * (number + 1)}, "distributions": {"lr": FloatDistribution(0.0, 1.0)}}
        study.add_trial(optuna.trial.create_trial(values=values, **where))
    target = (lambda trial: trial.values[0]) if objectives > 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = optuna.visualization.matplotlib.plot_parallel_coordinate(study, target=target, target_name="accuracy")
    (lines,) = best_darkest(axes, StudyDirection[direction.upper()]).collections
    axes.figure.canvas.draw()
    darkness = [-colour[:3].sum() for colour in lines.get_colors()]
    shown = lines.get_array().tolist()
    assert sorted(shown) == sorted(VALUES)
    best = max(VALUES) if direction == "maximize" else min(VALUES)
    worst = min(VALUES) if direction == "maximize" else max(VALUES)
    assert shown[darkness.index(max(darkness))] == best
    assert shown[darkness.index(min(darkness))] == worst
    plt.close("all")
