"""Checks what clients send and take over (`exchange`) against the method, the schedule and the measures of a run."""

from collections.abc import Callable, Iterator, Sequence

from fedbench.algorithms.base import Objective
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.planning.capacities import Clients
from fedbench.planning.checked_exchange import checked_exchange
from fedbench.planning.checked_groups import checked_groups
from fedbench.planning.exchange import Trained, TrainedRound
from fedbench.planning.schedules import Feedback
from fedbench.protocol.layout import ParameterLayout

Cohort = Callable[[int], Sequence[int]]
"""The participants of a round, from its index."""


def check_exchange(config: ExperimentConfig) -> None:
    """Refuse an exchange that makes no sense with the method or the measures.

    Raises:
        ConfigError: names the exchange, what it clashes with, and the reason.
    """
    exchange, method = config.chosen_exchange, config.method
    key = f"exchange.name={exchange.name}"
    if isinstance(exchange, Trained):
        return
    if config.asynchronous is not None:
        raise ConfigError(
            f"{key}: {method.name} applies single updates of what was trained, as they arrive; set exchange=trained"
        )
    if method.rule().own_models:
        raise ConfigError(
            f"{key}: {method.name} deals whole models to the clients, and needs back what was trained of each; set "
            "exchange=trained"
        )
    for name, rounds in (("cka", config.analysis.cka), ("barrier", config.analysis.barrier)):
        if rounds:
            raise ConfigError(
                f"{key}: analysis.{name}={list(rounds)} rebuilds a client's model from its message, which has not all "
                "that it trained; leave one of them out"
            )
    if kept := config.runtime.keep_messages:
        raise ConfigError(
            f"{key}: runtime.keep_messages={list(kept)} keeps messages to be read as the client's training from the "
            "global model, which they are not; leave one of them out"
        )
    if exchange.keeps_layers:
        _check_objective(config, key)


def _check_objective(config: ExperimentConfig, key: str) -> None:
    """Refuse a method whose updates are of one round, where clients send the changes of several rounds at once."""
    method = config.method
    objective = method.objective()
    if objective.channels or type(objective).correct_state is not Objective.correct_state:
        raise ConfigError(
            f"{key}: the server of {method.name} relies on what clients keep of a single round, and they would send "
            "the changes of several; choose another algorithm or exchange=rotate"
        )
    if method.scales_are_special():
        raise ConfigError(
            f"{key}: {method.name} scales an update by the steps of a single round, and clients would send the changes "
            "of several; choose another algorithm or exchange=rotate"
        )


def sent_groups(
    config: ExperimentConfig, layout: ParameterLayout, rounds: int, cohort: Cohort, limits: Clients
) -> Iterator[tuple[tuple[int, ...], ...]]:
    """For each round, the layer groups that each of its participants sends, asked as if training changed nothing.

    Args:
        config: the experiment.
        layout: of the model's parameters.
        rounds: number of rounds.
        cohort: the participants of a round, from its index.
        limits: what the clients can train.

    Raises:
        ConfigError: schedule or exchange do not keep to their base class.
    """
    none, exchange = Feedback.none(layout), config.chosen_exchange
    memory = exchange.first_memory(none.sizes)
    for index in range(rounds):
        clients = tuple(cohort(index))
        _, trained = checked_groups(config.schedule, index, layout.groups, config.seed, none, clients, clients=limits)
        yield checked_exchange(exchange, TrainedRound(index, config.seed, none.sizes, clients, trained), memory)
