"""What makes no sense of a run's task."""

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.tasks.kinds import TaskName


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
