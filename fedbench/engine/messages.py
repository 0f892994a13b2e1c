"""What server, clients and driver tell each other, apart from the parameters themselves (those travel as bare arrays).

Parts are numbered as in `fedbench.protocol.message`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedbench.algorithms.base import Algorithm
from fedbench.data.augmentation import Augmentation
from fedbench.models.base import Model, Task
from fedbench.planning.schedules import ActiveGroups
from fedbench.protocol.layout import ParameterLayout, Vector
from fedbench.protocol.message import PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.optimizers import Optimizer
from fedbench.training.scores import BatchScore


@dataclass(frozen=True)
class HostSpec:
    """All that a client host needs to know before the first round.

    Attributes:
        statistics: float32 [layout.statistics_size], those of the initial model.
        table: the parts of a transfer.
        keeps_statistics: each client keeps its own running statistics (`local.batchnorm=local`).
        update: what is done to an update before it is sent.
        weight_decay: of the local optimizer, where clients send gradients.
        evaluation_statistics: aggregate | client0 | recalibrate.
        gpu_fraction: share of a GPU that this host may use; 0: CPU.
    """

    model: Model
    task: Task
    layout: ParameterLayout
    table: PartTable
    statistics: Vector
    algorithm: Algorithm
    optimizer: Optimizer
    batch_size: int
    epochs: int | None
    steps: int | None
    bf16: bool
    keeps_statistics: bool
    update: UpdatePipeline
    weight_decay: float
    evaluation_statistics: str
    evaluation_batch_size: int
    augmentation: Augmentation
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    seed: int
    torch_threads: int
    deterministic: bool
    gpu_fraction: float

    @property
    def stateful(self) -> bool:
        """Whether clients keep anything between their rounds."""
        return self.keeps_statistics or bool(self.algorithm.objective().keeps) or self.update.keeps_residual


@dataclass(frozen=True)
class RoundPlan:
    """What the server decides before a round.

    Attributes:
        round: from 0.
        active: the layer groups that train, of all participants together.
        cohort: participants, ascending.
        groups: one per participant: the layer groups that it trains.
        weights: one per participant, normalised over the cohort.
        scales: one per participant: a further factor on the update of its parameters.
        lr_factor: factor on the learning rate.
        versions: of each part, the round after which it last changed.
        downlink_bytes: one per participant: what it has to download, by what it still holds.
        uplink_bytes: one per participant: what it sends.
        own_starts: each participant starts from a model of its own, which comes with its order.
    """

    round: int
    active: ActiveGroups
    cohort: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    scales: tuple[float, ...]
    lr_factor: float
    versions: tuple[int, ...]
    downlink_bytes: tuple[int, ...]
    uplink_bytes: tuple[int, ...]
    own_starts: bool = False

    def order(self, clients: Sequence[int], **fields: Any) -> "WorkOrder":
        """One host's share: these clients, in this order."""
        place = {client: index for index, client in enumerate(self.cohort)}
        chosen = [place[client] for client in clients]
        return WorkOrder(
            round=self.round,
            union=self.active.groups,
            lr_factor=self.lr_factor,
            clients=tuple(clients),
            groups=tuple(self.groups[index] for index in chosen),
            weights=tuple(self.weights[index] for index in chosen),
            scales=tuple(self.scales[index] for index in chosen),
            own_starts=self.own_starts,
            **fields,
        )


@dataclass(frozen=True)
class WorkOrder:
    """One host's share of a round.

    Attributes:
        union: the layer groups of all participants together.
        stale: the parts that come with the order, for the host to load first; with `own_starts`, once per client.
        clients: trained in this order; groups, weights, scales: one each.
        combine: answer with one exact sum rather than with each client's values.
        on_failure: of a client: raise the exception as it is, stop and report it, or continue with the next.
        arriving: clients whose state comes with the order, from another host.
        seconds: that each client may train; None: without end.
    """

    round: int
    union: tuple[int, ...]
    lr_factor: float
    stale: tuple[int, ...]
    clients: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    scales: tuple[float, ...]
    own_starts: bool
    combine: bool
    on_failure: Literal["raise", "stop", "continue"]
    arriving: tuple[int, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True)
class ArrivalOrder:
    """One work of an asynchronous run.

    Attributes:
        number: of the work, from 0, in the order of dispatch.
        worker: the slot that it is in, 0..K-1.
        client: who does it; visit: how many works the client has had before.
        groups: the layer groups that it trains.
        stale: the parts that come with the order, for the host to load first.
        lr_factor: factor on the local learning rate.
        gradient: one minibatch's gradient is asked for, rather than the delta of local training.
        on_failure: of the client: raise the exception as it is, or report it.
    """

    number: int
    worker: int
    client: int
    visit: int
    groups: tuple[int, ...]
    stale: tuple[int, ...]
    lr_factor: float
    gradient: bool
    on_failure: Literal["raise", "report"] = "report"


@dataclass(frozen=True)
class ClientReport:
    """How a client's round went.

    Attributes:
        status: ok | rejected (its update is not finite, too large, or of the wrong shape) | failed (its work raised) |
            dropped (its training had not ended in time).
        loss: mean training loss over the samples of all steps.
        seconds: of training.
        passes: forward passes of every minibatch beside the training step's own.
        error, traceback: of a failure, else "".
    """

    client: int
    status: str
    samples: int
    steps: int
    loss: float
    seconds: float
    passes: int = 0
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Finished:
    """A work of an asynchronous run that is done and not yet applied: what was asked, what came of it."""

    order: ArrivalOrder
    upload: Vector
    report: ClientReport


@dataclass(frozen=True)
class HostReport:
    """How a host's share of a round went.

    Attributes:
        clients: one report for each client of the order that was begun.
        load_seconds: taking the parameters in and preparing the answer; busy_seconds: everything.
        state_bytes: client states that arrived from other hosts.
    """

    clients: tuple[ClientReport, ...]
    load_seconds: float
    busy_seconds: float
    state_bytes: int


@dataclass(frozen=True)
class EvaluationReport:
    """Scores of the evaluation minibatches given to one host, and of the clients it was asked about."""

    scores: tuple[BatchScore, ...]
    client_accuracy: dict[int, float]
    seconds: float


@dataclass(frozen=True)
class RoundOutcome:
    """What the server did with a round.

    Attributes:
        update_norm: L2 norm of the change of the global parameters.
        accepted: participants whose updates were combined.
        versions: of each part, after the round.
    """

    update_norm: float
    accepted: int
    versions: tuple[int, ...]
