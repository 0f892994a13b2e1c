"""Local training: each client alone, the floor that federated methods are measured against.

Every client starts from the same initial model, trains it on its own rows in the rounds that it takes part in, and goes
on from what it has: nothing is sent and nothing is combined. Running statistics stay with the client, as with
`local.batchnorm=local`. The optimizer is made anew every round, as in federated runs.

There is no global model. Test and validation accuracy and loss are the mean of those of clients' own models, each with
its own running statistics, on the common splits: of all clients, or of `scored_clients` that the seed draws once for
the whole run. Metrics of other tasks than classification are those of the predictions of all these models together: a
perplexity is that of their mean loss. A client that has not taken part yet counts with the initial model.
`clients.parquet` has the accuracy of each scored participant (`own_test_accuracy`). The model that is saved is the
unweighted mean of all clients' models, which identifies the run; no figure of it is shown.

With a partial schedule a client trains the active layer groups alone. With one client it is FedAvg but for the
rounding of FedAvg's sums to multiples of 2**-40.

Bytes: uplink 0; downlink the initial parameters, once for each client, in its first round.
"""

from typing import Any, ClassVar

from pydantic import Field

from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.centralised import refuse_update_steps
from fedbench.errors import ConfigError
from fedbench.planning.exchange import Exchange, Memory, TrainedRound


class Alone(Exchange):
    """Clients go on with their own models, and nothing is ever sent."""

    keeps_layers: ClassVar[bool] = True
    name: str = "none"

    def sent(self, trained: TrainedRound, memory: Memory) -> tuple[tuple[int, ...], ...]:
        return ((),) * len(trained.cohort)


class Local(Algorithm):
    """Each client alone: what clients reach without federated learning.

    Attributes:
        scored_clients: number of clients whose own models are scored on the common test set; all, where there are
            fewer.
    """

    sends: ClassVar[str] = "nothing; the initial model once to each client"
    keeps: ClassVar[str] = "its model"
    refuses: ClassVar[str] = (
        "a server rule, an exchange, update.*, deadlines, Byzantine clients, measures of updates: none are sent"
    )
    has_global_model: ClassVar[bool] = False
    name: str = "local"
    scored_clients: int = Field(default=20, ge=1)

    def exchange(self) -> Exchange:
        return Alone()

    def check(self, config: Any) -> None:
        refuse_update_steps(self.name, config)
        key = f"algorithm.name={self.name}"
        if config.local.batchnorm == "aggregate" or config.evaluation.batchnorm is not None:
            section = "local" if config.local.batchnorm == "aggregate" else "evaluation"
            raise ConfigError(
                f"{section}.batchnorm={getattr(config, section).batchnorm}: with {key} each client keeps its running "
                "statistics and is scored with them; leave it out"
            )
        if config.schedule.follows_training:
            raise ConfigError(
                f"schedule.name={config.schedule.name}: follows the changes of a global model, and with {key} there is "
                "none; choose another schedule"
            )
        if config.analysis.divergence:
            raise ConfigError(f"analysis.divergence=true: {key} sends no updates; leave it out")
        if config.evaluation.per_client:
            raise ConfigError(f"evaluation.per_client=true: scores a global model, and {key} has none; leave it out")
        if config.runtime.max_failed_clients:
            raise ConfigError(
                f"runtime.max_failed_clients={config.runtime.max_failed_clients}: with {key} a client that fails would "
                "begin anew; leave it out"
            )
