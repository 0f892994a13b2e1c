"""Centralised training: all clients' rows in one place, the ceiling that federated methods are measured against.

The data are divided over the clients as in a federated run, and then brought together: one client holds every row that
some client holds, each once. In a round it trains on as many samples as the participants of the federated run's round
do, in minibatches of the same size, with the same optimizer. The optimizer is made anew every round, as the clients'
is, so that nothing but the place of the data differs: with `data.clients=1` a run is that of FedAvg, bit for bit.

The number of samples is the mean over the federated run's rounds, in whole minibatches. It is exact where every client
takes part in each round, or all hold the same number of rows; else it differs from a single round's by what its cohort
differs from the mean. With a sampler that follows training, the cohorts are those of clients that never report.

Bytes: every client sends its rows in the first round, as the data set's arrays hold them (inputs and labels,
uncompressed). After that nothing travels. The paper's Comm., which counts parameters, is not defined.
"""

from typing import Any, ClassVar

from fedbench.algorithms.base import Algorithm
from fedbench.errors import ConfigError


class Centralised(Algorithm):
    """All rows in one place: what a federated method would reach if data could be shared; no federated method."""

    sends: ClassVar[str] = "every client its rows, once; nothing after the first round"
    refuses: ClassVar[str] = (
        "a server rule, an exchange, update.*, deadlines, Byzantine clients, kept messages: no updates are sent"
    )
    pools_rows: ClassVar[bool] = True
    name: str = "centralised"

    def check(self, config: Any) -> None:
        refuse_update_steps(self.name, config)


def refuse_update_steps(name: str, config: Any) -> None:
    """Refuse options on updates, for a method whose clients send none.

    Args:
        name: of the method.
        config: the whole `ExperimentConfig`.

    Raises:
        ConfigError: names the option.
    """
    update, runtime, participation = config.update, config.runtime, config.participation
    attack = participation.byzantine
    options: list[tuple[str, object, object]] = [
        ("server.name", config.server.name if config.server else None, None),
        ("exchange.name", config.exchange.name if config.exchange else None, None),
        ("update.clip_norm", update.clip_norm, None),
        ("update.noise_multiplier", update.noise_multiplier, None),
        ("update.compression", update.compression.name, "none"),
        ("participation.round_deadline", participation.round_deadline, None),
        ("schedule.name", config.schedule.name if config.schedule.reads_gradient_norms else None, None),
        ("participation.capacities", participation.capacities, None),
        ("participation.byzantine.name", attack.name if attack else None, None),
        ("runtime.keep_messages", list(runtime.keep_messages), []),
    ]
    for key, value, without_effect in options:
        if value != without_effect:
            raise ConfigError(f"{key}={value}: algorithm.name={name} sends no updates; leave it out")
