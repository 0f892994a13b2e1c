"""What makes no sense of a run's task."""

from fedbench.algorithms.local import Local
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.tasks.kinds import TaskName


def check_task(config: ExperimentConfig, task: TaskName) -> None:
    """Refuse what compares labels of classes, or counts clients' accuracies, where the task is another one.

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
    if config.evaluation.per_client:
        raise ConfigError(
            f"evaluation.per_client=true: clients are scored by accuracy, and the task is {task}; leave it out, and "
            "set data.client_test_fraction, with which clients are scored by the metric of the task"
        )
    if isinstance(config.method, Local):
        raise ConfigError(
            f"algorithm.name=local: the accuracies of clients' models are averaged, and the task is {task}; choose "
            "another method"
        )
