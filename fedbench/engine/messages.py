"""What server, clients and driver tell each other, apart from the parameters themselves (those travel as bare arrays).

A *part* is what a transfer consists of: part g < M is layer group g, part M is the vector of running statistics
(which travels only under `local.batchnorm=aggregate`).
"""

from dataclasses import dataclass
from typing import Literal

from fedbench.algorithms.base import Algorithm
from fedbench.data.augmentation import Augmentation
from fedbench.models.base import Model, Task
from fedbench.parameters import ParameterLayout, Vector
from fedbench.schedules import ActiveGroups
from fedbench.training.optimizers import Optimizer
from fedbench.training.scores import BatchScore


@dataclass(frozen=True)
class HostSpec:
    """All that a client host needs to know before the first round.

    Attributes:
        statistics: float32 [layout.statistics_size], those of the initial model.
        keeps_statistics: each client keeps its own running statistics (`local.batchnorm=local`).
        evaluation_statistics: aggregate | client0 | recalibrate.
        gpu_fraction: share of a GPU that this host may use; 0: CPU.
    """

    model: Model
    task: Task
    layout: ParameterLayout
    statistics: Vector
    algorithm: Algorithm
    optimizer: Optimizer
    batch_size: int
    epochs: int | None
    steps: int | None
    bf16: bool
    keeps_statistics: bool
    evaluation_statistics: str
    evaluation_batch_size: int
    augmentation: Augmentation
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    seed: int
    torch_threads: int
    deterministic: bool
    gpu_fraction: float


@dataclass(frozen=True)
class RoundPlan:
    """What the server decides before a round.

    Attributes:
        round: from 0.
        active: the layer groups that train.
        cohort: participants, ascending.
        weights: one per participant, normalised over the cohort.
        lr_factor: factor on the learning rate.
        versions: of each part, the round after which it last changed.
        downlink_bytes: one per participant: what it has to download, by what it still holds.
        uplink_bytes: what each participant sends.
    """

    round: int
    active: ActiveGroups
    cohort: tuple[int, ...]
    weights: tuple[float, ...]
    lr_factor: float
    versions: tuple[int, ...]
    downlink_bytes: tuple[int, ...]
    uplink_bytes: int


@dataclass(frozen=True)
class WorkOrder:
    """One host's share of a round.

    Attributes:
        stale: the parts that come with the order, for the host to load first.
        clients: trained in this order; weights: one each.
        combine: answer with one exact sum rather than with each client's values.
        on_failure: of a client: raise the exception as it is, stop and report it, or continue with the next.
        arriving: clients whose state comes with the order, from another host.
    """

    round: int
    groups: tuple[int, ...]
    lr_factor: float
    stale: tuple[int, ...]
    clients: tuple[int, ...]
    weights: tuple[float, ...]
    combine: bool
    on_failure: Literal["raise", "stop", "continue"]
    arriving: tuple[int, ...] = ()


@dataclass(frozen=True)
class ClientReport:
    """How a client's round went.

    Attributes:
        status: ok | rejected (its update cannot be summed) | failed (its work raised).
        loss: mean training loss over the samples of all steps.
        seconds: of training.
        error, traceback: of a failure, else "".
    """

    client: int
    status: str
    samples: int
    steps: int
    loss: float
    seconds: float
    error: str = ""
    traceback: str = ""


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
