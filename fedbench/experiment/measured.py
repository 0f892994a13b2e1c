"""What a run is to measure of its training, checked against the method and the schedule that it is measured of."""

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError


def compares_updates(config: ExperimentConfig) -> bool:
    """Whether the server receives and keeps the single updates of a round, to find out how far they point apart."""
    return config.analysis.divergence or (config.schedule.compares_updates and config.asynchronous is None)


def check_measures(config: ExperimentConfig) -> None:
    """Refuse measures, and schedules that follow them, that make no sense of this run.

    Raises:
        ConfigError: names the key, and what to do.
    """
    if not compares_updates(config):
        return
    method, schedule = config.method, config.schedule
    key = "analysis.divergence=true" if config.analysis.divergence else f"schedule.name={schedule.name}"
    if method.rule().own_models:
        raise ConfigError(
            f"{key}: the clients of {method.name} start from different models, so that their updates have no mean; "
            f"{'leave it out' if config.analysis.divergence else 'choose another schedule'}"
        )
    if config.slots() == 1:
        raise ConfigError(f"{key}: compares the updates of a round's participants, of which there is one; take more")
    if config.runtime.combine == "node":
        raise ConfigError(f"runtime.combine=node: {key} looks at single updates, not at their sum; leave it out")
