"""What makes no sense of a run's task."""

import re

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.tasks.kinds import TASKS, TaskName
from fedbench.training.metric_names import metrics_of


def check_task(config: ExperimentConfig, task: TaskName) -> None:
    """Refuse what changes labels of classes, where the task is another one.

    Args:
        config: the configuration.
        task: the run's task.

    Raises:
        ConfigError: names the key, and what to do.
    """
    if task == "classification":
        return
    attack = config.participation.byzantine
    if attack is not None and attack.changes_labels:
        raise ConfigError(
            f"participation.byzantine.name={attack.name}: changes labels of classes, and the task is {task}; choose an "
            "attack on updates"
        )


def task_of(config: ExperimentConfig) -> TaskName:
    """The task of an experiment: the one that it names, or else the one of its data.

    These are loaded for it where their task is not known beforehand, as that of columns of a file is not.

    Raises:
        FedbenchError: the data are missing or damaged.
    """
    if config.task is not None:
        return config.task
    outline = config.data.dataset.outline()
    if outline is not None:
        return outline.task
    from fedbench.experiment.federation import load_data

    return load_data(config).task


def no_such_score(figure: str, config: ExperimentConfig) -> str | None:
    """Why a figure by which another task is judged is refused: no run of the experiment has it.

    Args:
        figure: the name of a figure of a run: best_accuracy, final_validation_mae, sent_mb, ...
        config: the experiment; see `task_of`.

    Returns:
        The task, and the figure to choose instead; None where the figure is of every task, or of this one.

    Raises:
        FedbenchError: the data are missing or damaged.
    """
    score = re.sub(r"^(best|final)_(validation_)?", "", figure)
    if score == figure or score not in {kind.headline.name for kind in TASKS.values()}:
        return None
    task = task_of(config)
    kind = TASKS[task]
    if score in {kind.headline.name, *metrics_of(task, config.evaluation.metrics), *(("accuracy",) * kind.counts_hits)}:
        return None
    return (
        f"the task of the data is {task}, which has no {score} and is judged by {kind.headline.words}; choose "
        f"{figure.removesuffix(score)}{kind.headline.name}"
    )
