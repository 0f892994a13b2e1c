"""Checks what a run is to keep for later analysis (`runtime.keep_models`, `runtime.keep_messages`)."""

from collections.abc import Sequence

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.messages import KeptClients
from fedbench.errors import ConfigError
from fedbench.planning.samplers import draw_cohort


def kept_clients(config: ExperimentConfig) -> KeptClients:
    """The clients whose messages are kept, as the hosts need to know it."""
    if not config.runtime.keep_messages:
        return KeptClients()
    rounds = frozenset(number - 1 for number in config.runtime.keep_models)
    return KeptClients(rounds, frozenset(config.runtime.keep_messages))


def check_keeping(config: ExperimentConfig, sizes: Sequence[int], rounds: int) -> None:
    """Refuse rounds that the run does not have, and clients that send nothing in the rounds that are kept.

    Args:
        config: the experiment.
        sizes: training samples of each client.
        rounds: its number of rounds.

    Raises:
        ConfigError: names the round or the client.
    """
    runtime = config.runtime
    if runtime.keep_models and runtime.keep_models[-1] > rounds:
        raise ConfigError(
            f"runtime.keep_models={list(runtime.keep_models)}: the run has no round {runtime.keep_models[-1]}, "
            f"it has {rounds}; name rounds from 1 to {rounds}"
        )
    if runtime.keep_messages and config.method.rule().own_models:
        raise ConfigError(
            f"runtime.keep_messages={list(runtime.keep_messages)}: under algorithm.name={config.method.name} a client "
            "starts from a model of its own, which is not kept, so that its message cannot be read; leave it out"
        )
    if not runtime.keep_messages or config.participation.sampler.follows_training:
        return  # who takes part is not known beforehand
    present = {client for number in runtime.keep_models for client in cohort_of(config, sizes, number - 1)}
    if absent := [client for client in runtime.keep_messages if client not in present]:
        raise ConfigError(
            f"runtime.keep_messages={list(runtime.keep_messages)}: client {absent[0]} takes part in none of the rounds "
            f"of runtime.keep_models; clients {_listed(sorted(present))} do"
        )


def cohort_of(config: ExperimentConfig, sizes: Sequence[int], round_index: int) -> tuple[int, ...]:
    """The participants of a round, counted from 0, as far as they are known before the run."""
    participation = config.participation
    return draw_cohort(participation.sampler, round_index, participation.size(len(sizes)), sizes, config.seed)


def _listed(clients: Sequence[int], most: int = 10) -> str:
    return ", ".join(map(str, clients[:most])) + (" and others" if len(clients) > most else "")
