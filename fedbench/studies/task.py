"""What the task of a study's trials decides: the objective where none is named, and what their target may be."""

from collections.abc import Iterable

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.task_limits import no_such_score, task_of
from fedbench.records.metrics import headline_figures
from fedbench.tasks.kinds import TASKS

LARGEST_SHARE = 1.0


def default_objective(config: ExperimentConfig) -> dict[str, str]:
    """What a study seeks that names no objective: the best value of the metric by which its task is judged.

    Args:
        config: the experiment of a trial; its data are loaded.

    Returns:
        The objective as a study's file has it; on the validation split where the data have one.

    Raises:
        FedbenchError: the data are missing or damaged.
    """
    from fedbench.experiment.federation import load_data

    data = load_data(config)
    headline = TASKS[data.task].headline
    on_test, _, on_validation, _ = headline_figures(headline)
    return {
        "metric": on_test if data.validation is None else on_validation,
        "direction": "maximize" if headline.higher_is_better else "minimize",
    }


def check_one_task(configs: Iterable[ExperimentConfig]) -> None:
    """Refuse a study whose trials have several tasks: the same figure of two tasks is not the same measure.

    Args:
        configs: an experiment of every kind of trial; where their tasks or data differ, these are loaded.

    Raises:
        ConfigError: there are several tasks.
        FedbenchError: the data are missing or damaged.
    """
    kinds = {(config.task, config.data.dataset.model_dump_json()): config for config in configs}
    if len(kinds) < 2:
        return
    if len(tasks := sorted({task_of(config) for config in kinds.values()})) > 1:
        raise ConfigError(
            f"space: trials would have the tasks {' and '.join(tasks)}, whose figures cannot be compared; make a study "
            "of each"
        )


def check_metrics(metrics: Iterable[str], config: ExperimentConfig) -> None:
    """Refuse figures by which another task is judged: no trial would have them.

    Args:
        metrics: the figures of objectives and constraints.
        config: the experiment of a trial; see `task_of`.

    Raises:
        ConfigError: the task has no such figure.
        FedbenchError: the data are missing or damaged.
    """
    for name in metrics:
        if (refusal := no_such_score(name, config)) is not None:
            raise ConfigError(f"{name}: {refusal}")


def check_target(target: float | None, config: ExperimentConfig) -> None:
    """Check that a target can be a value of the metric by which the task is judged.

    Args:
        target: of the study; None: there is none.
        config: the experiment of a trial; its data are loaded where the target does not suit every task.

    Raises:
        ConfigError: it is above 1, and the metric is a share.
        FedbenchError: the data are missing or damaged.
    """
    if target is None or target <= LARGEST_SHARE:
        return
    headline = TASKS[task_of(config)].headline
    if headline.percent:
        raise ConfigError(f"target={target:g}: must be at most 1, the {headline.words} sought is a share in 0..1")
