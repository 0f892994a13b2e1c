"""What a run is to measure of its training, checked against the method and the schedule that it is measured of."""

from fedbench.algorithms.local import Local
from fedbench.components.optional_library import check_library
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.client_scoring import NOT_SCORED, ClientScoring
from fedbench.engine.probing import Probing
from fedbench.errors import ConfigError
from fedbench.tasks.kinds import TaskName
from fedbench.training.metric_names import ALWAYS


def compares_updates(config: ExperimentConfig) -> bool:
    """Whether the server receives and keeps the single updates of a round, to find out how far they point apart."""
    followed = config.schedule.compares_updates or config.chosen_exchange.compares_updates
    return config.analysis.divergence or (followed and config.asynchronous is None)


def probing(config: ExperimentConfig) -> Probing:
    """How clients' models are compared with the global one."""
    analysis = config.analysis
    cka, barrier = (frozenset(number - 1 for number in rounds) for rounds in (analysis.cka, analysis.barrier))
    return Probing(cka, barrier, analysis.samples, analysis.points)


def client_scoring(config: ExperimentConfig, rounds: int, task: TaskName) -> ClientScoring:
    """In which of a run's rounds clients are scored on their held-out rows, and by the metric of which task."""
    if not config.data.client_test_fraction:
        return NOT_SCORED
    every = config.evaluation.client_every or config.evaluation.every
    # Where one client holds the rows of all, nobody trains on its own.
    return ClientScoring(every, rounds, participants=not config.method.pools_rows, task=task)


def check_measures(config: ExperimentConfig, rounds: int) -> None:
    """Refuse measures, and schedules that follow them, that make no sense of this run.

    Args:
        config: the configuration.
        rounds: the number of its rounds.

    Raises:
        ConfigError: names the key, and what to do.
    """
    for name, chosen in (("cka", config.analysis.cka), ("barrier", config.analysis.barrier)):
        if chosen and chosen[-1] > rounds:
            raise ConfigError(f"analysis.{name}={list(chosen)}: there is no round {chosen[-1]}; the run has {rounds}")
        if chosen and config.method.rule().own_models:
            raise ConfigError(
                f"analysis.{name}={list(chosen)}: the clients of {config.method.name} start from different models, and "
                "no mean of theirs is trained on; leave it out"
            )
    if config.analysis.cka:
        check_library("cka", "analysis", f"analysis.cka={list(config.analysis.cka)}")
    wanted = [name for name in config.evaluation.metrics if name != ALWAYS]
    if wanted and isinstance(config.method, Local):
        raise ConfigError(
            f"evaluation.metrics={wanted}: algorithm.name=local has a model for each client, "
            "whose accuracies are averaged, and none that the metrics could be of; leave it out"
        )
    slots = config.runtime.slots
    if config.data.client_test_fraction and slots > 1 and config.participation.round_deadline is not None:
        raise ConfigError(
            f"runtime.slots={slots} with participation.round_deadline and data.client_test_fraction: clients would be "
            "scored in the time of those that train meanwhile; set runtime.slots=1"
        )
    if compares_updates(config):
        _check_updates_have_a_mean(config)


def _check_updates_have_a_mean(config: ExperimentConfig) -> None:
    method, schedule, exchange = config.method, config.schedule, config.chosen_exchange
    key = f"schedule.name={schedule.name}" if schedule.compares_updates else f"exchange.name={exchange.name}"
    if config.analysis.divergence:
        key = "analysis.divergence=true"
    if method.rule().own_models:
        raise ConfigError(
            f"{key}: the clients of {method.name} start from different models, so that their updates have no mean; "
            f"{'leave it out' if config.analysis.divergence else 'choose another schedule'}"
        )
    if config.slots() == 1:
        raise ConfigError(f"{key}: compares the updates of a round's participants, of which there is one; take more")
    if config.runtime.combine == "node":
        raise ConfigError(f"runtime.combine=node: {key} looks at single updates, not at their sum; leave it out")
