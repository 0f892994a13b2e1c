"""The messages between driver, server and client hosts. Parameters travel beside them, as bare arrays.

Parts are numbered as in `fedbench.protocol.message`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fedbench.algorithms.base import Algorithm
from fedbench.data.augmentation import Augmentation
from fedbench.engine.client_scoring import NOT_SCORED, ClientScoring, TrainingScores
from fedbench.engine.kept import NOTHING_KEPT
from fedbench.engine.kept import KeptClients as KeptClients
from fedbench.engine.kept import KeptMessage as KeptMessage
from fedbench.engine.probing import NOT_PROBED, Probing
from fedbench.engine.task_order import TaskOrder as TaskOrder
from fedbench.engine.task_order import TaskSeconds as TaskSeconds
from fedbench.measures.divergence import Divergence
from fedbench.measures.step_norms import StepNorms
from fedbench.models.base import Model, Task
from fedbench.planning.schedules import ActiveGroups
from fedbench.protocol.attacks import Attack
from fedbench.protocol.layout import ParameterLayout, Vector
from fedbench.protocol.message import PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline
from fedbench.training.optimizers import Optimizer
from fedbench.training.scores import BatchScore, RowsScore

if TYPE_CHECKING:
    from fedbench.models.frozen_base import FrozenBase

Precision = Literal["float32", "tf32", "bf16", "bf16-parameters"]
"""The numbers that a network is computed in, as `local.precision` says."""


@dataclass(frozen=True)
class DeviceRecord:
    """What is recorded of the device that a host computes on.

    Attributes:
        name: "CPU", or the name of the GPU.
        cuda: version of CUDA; None on a CPU.
        cudnn: version of cuDNN; None on a CPU.
        tf32: whether convolutions and matrix products round their inputs to TF32.
    """

    name: str
    cuda: str | None = None
    cudnn: int | None = None
    tf32: bool = False


@dataclass(frozen=True)
class HostSpec:
    """Everything that a client host needs to know before the first round.

    Attributes:
        model: the network to build.
        task: the learning task: input shape, classes.
        layout: where each parameter lies in the flat vector.
        table: the parts of a transfer.
        statistics: float32 [layout.statistics_size], the running statistics of the initial model.
        algorithm: the method; it gives the local objective.
        optimizer: the local optimizer.
        batch_size: samples of a training minibatch.
        epochs: local epochs of a round; None where `steps` is set.
        steps: local minibatches of a round; None where `epochs` is set.
        precision: the numbers that the network is computed in.
        keeps_statistics: whether each client keeps its own running statistics (`local.batchnorm=local`).
        update: clipping, noise and compression of an update before it is sent.
        weight_decay: L2 penalty that a client adds to the gradient that it sends; 0 where the server does.
        evaluation_statistics: running statistics for evaluation: "aggregate", "client0" or "recalibrate".
        evaluation_batch_size: samples of an evaluation minibatch.
        augmentation: augmentation of training images.
        mean: per-channel mean for normalisation; None: not normalised.
        std: per-channel standard deviation for normalisation.
        seed: seed of the experiment.
        torch_threads: CPU threads of PyTorch.
        deterministic: whether a GPU must use deterministic kernels.
        device: cpu, cuda (refused where there is none), or auto: a GPU where this process finds one.
        slots: clients that train at the same time in one host, a step of one after the other.
        kept: clients whose messages are kept for later analysis.
        gpu_fraction: share of the GPU's memory that this host may use, where it has a GPU.
        step_norms: whether the norms of every local step are recorded.
        probing: how clients' models are compared with the global one.
        keeps_layers: whether clients keep their own parameters, to go on from them (`Exchange.keeps_layers`).
        has_global_model: whether the model that is saved is the server's; else it is the mean of all clients' own.
        own_share: the share of these where they are mixed with the global ones (`Exchange.own_share`).
        gradient_norms: whether clients report the norm of the gradient in each layer group.
        attack: what Byzantine clients do; None: all are honest.
        attackers: the Byzantine clients.
        client_scoring: the rounds in which participants are scored on their held-out rows.
        checkpoint_activations: whether blocks of the network keep their inputs alone between forward and backward pass.
        metrics: by which the splits are scored beside accuracy and loss: the task's, and `evaluation.metrics`.
        base: of a network with a frozen base, from which hosts make theirs; None: they build it.
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
    precision: Precision
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
    device: Literal["auto", "cpu", "cuda"]
    gpu_fraction: float
    slots: int = 1
    kept: KeptClients = NOTHING_KEPT
    step_norms: bool = False
    probing: Probing = NOT_PROBED
    keeps_layers: bool = False
    has_global_model: bool = True
    own_share: float = 0.0
    gradient_norms: bool = False
    attack: Attack | None = None
    attackers: frozenset[int] = frozenset()
    client_scoring: ClientScoring = NOT_SCORED
    checkpoint_activations: bool = False
    metrics: tuple[str, ...] = ()
    base: "FrozenBase | None" = None

    @property
    def bf16(self) -> bool:
        """Whether the forward pass runs under bfloat16 autocast."""
        return self.precision == "bf16"

    @property
    def stateful(self) -> bool:
        """Whether clients keep state between their rounds."""
        kept_by_method = bool(self.algorithm.objective().keeps) or self.update.keeps_residual
        return self.keeps_statistics or self.keeps_layers or kept_by_method


@dataclass(frozen=True)
class RoundPlan:
    """The server's decisions before a round.

    Attributes:
        round: round number, from 0.
        active: union of the layer groups that the participants train.
        cohort: participants, ascending.
        groups: for each participant, the layer groups that it trains.
        sent: for each participant, the layer groups that it sends.
        weights: for each participant, its weight in the mean; they sum to 1 over the cohort.
        scales: for each participant, a further factor on the update of its parameters.
        lr_factor: factor on the local learning rate.
        versions: for each part, the number of rounds after which it last changed; 0 is the initial model.
        downlink_bytes: for each participant, the bytes that it downloads, given what it still holds.
        uplink_bytes: for each participant, the bytes that it sends.
        own_starts: whether each participant starts from its own model of a pool, which comes with its order.
        kept: for each participant, the layer groups in which it goes on from its own values; (): none does.
        mixed: for each participant, the layer groups that it goes on from its own and the global values in; (): none.
    """

    round: int
    active: ActiveGroups
    cohort: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    sent: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    scales: tuple[float, ...]
    lr_factor: float
    versions: tuple[int, ...]
    downlink_bytes: tuple[int, ...]
    uplink_bytes: tuple[int, ...]
    own_starts: bool = False
    kept: tuple[tuple[int, ...], ...] = ()
    mixed: tuple[tuple[int, ...], ...] = ()

    @property
    def combined(self) -> tuple[int, ...]:
        """The layer groups that any participant sends, ascending."""
        return tuple(sorted(set().union(*self.sent)))

    def order(self, clients: Sequence[int], **fields: Any) -> "HostOrder":
        """The order that gives some of the participants to one host.

        Args:
            clients: the host's participants, in the order in which they train.
            fields: the remaining fields of `HostOrder`.
        """
        position = {client: index for index, client in enumerate(self.cohort)}
        chosen = [position[client] for client in clients]
        return HostOrder(
            round=self.round,
            union=self.combined,
            lr_factor=self.lr_factor,
            clients=tuple(clients),
            groups=tuple(self.groups[index] for index in chosen),
            sent=tuple(self.sent[index] for index in chosen),
            kept=tuple(self.kept[index] for index in chosen) if self.kept else (),
            mixed=tuple(self.mixed[index] for index in chosen) if self.mixed else (),
            weights=tuple(self.weights[index] for index in chosen),
            scales=tuple(self.scales[index] for index in chosen),
            own_starts=self.own_starts,
            **fields,
        )


@dataclass(frozen=True)
class HostOrder:
    """One host's share of a synchronous round.

    Attributes:
        round: round number, from 0.
        union: union of the layer groups that all participants of the round send.
        lr_factor: factor on the local learning rate.
        stale: parts whose global values come with the order, to be loaded first; with `own_starts`, once per client.
        clients: the host's participants, in the order in which they train.
        groups: for each of `clients`, the layer groups that it trains.
        sent: for each of `clients`, the layer groups that it sends.
        weights: for each of `clients`, its weight in the mean of the round.
        scales: for each of `clients`, a further factor on the update of its parameters.
        own_starts: whether each client starts from its own model of a pool.
        combine: whether to answer with one exact sum rather than with each client's message.
        on_failure: when a client raises: "raise" the exception as it is, "stop" and report it, or "continue" with the
            next client.
        arriving: clients whose state comes with the order, from the host that held it.
        seconds: time limit for each client's training; None: no limit.
        kept: for each of `clients`, the layer groups in which it goes on from its own values; (): none does.
        mixed: for each of `clients`, those in which it goes on from its own and the global values; (): none.
    """

    round: int
    union: tuple[int, ...]
    lr_factor: float
    stale: tuple[int, ...]
    clients: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    sent: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    scales: tuple[float, ...]
    own_starts: bool
    combine: bool
    on_failure: Literal["raise", "stop", "continue"]
    arriving: tuple[int, ...] = ()
    seconds: float | None = None
    kept: tuple[tuple[int, ...], ...] = ()
    mixed: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class ClientReport:
    """The outcome of one client's training.

    Attributes:
        client: number of the client.
        status: "ok", "rejected" (the update is not finite, too large, or of the wrong shape), "failed" (training raised
            an exception) or "dropped" (training did not end in time).
        samples: training samples of the client; of a gradient, those of the minibatch.
        steps: minibatches trained on.
        loss: mean training loss over the rows, tokens or pixels that count of all steps; NaN where nothing was trained.
        seconds: duration of the training.
        passes: additional forward passes of every minibatch, beside that of the training step.
        rms_loss: root of the mean squared minibatch loss, over the samples of all steps; NaN where nothing was trained.
        error: the exception of a failure in one line, else "".
        traceback: the traceback of a failure, else "".
        step_norms: the norms of its local steps; None where they are not recorded.
        gradient_norms: for each layer group, the norm of the gradient of its first minibatch at its start; (): none.
        held_out: its scores on its held-out rows; None where it has none, is not scored in this round, or did not
            train to the end.
        places: mean number of tokens or pixels of a sample that count; 1 where the loss is the mean over rows.
    """

    client: int
    status: str
    samples: int
    steps: int
    loss: float
    seconds: float
    passes: int = 0
    rms_loss: float = math.nan
    error: str = ""
    traceback: str = ""
    step_norms: StepNorms | None = None
    gradient_norms: tuple[float, ...] = ()
    held_out: TrainingScores | None = None
    places: float = 1.0

    @property
    def scoring_seconds(self) -> float:
        """Time spent on scoring the client, which is not part of `seconds`."""
        return 0.0 if self.held_out is None else self.held_out.seconds

    @property
    def total_seconds(self) -> float:
        """Time spent on the client."""
        return self.seconds + self.scoring_seconds


@dataclass(frozen=True)
class FinishedTask:
    """An asynchronous task that has been computed and not yet applied.

    Attributes:
        order: the task.
        upload: float32, the parts that it sends; empty where it failed or was rejected.
        report: the outcome of the task.
    """

    order: TaskOrder
    upload: Vector
    report: ClientReport


@dataclass(frozen=True)
class BatchReport:
    """The outcome of the asynchronous tasks that a host was given in one call.

    Attributes:
        clients: one report for each task, in their order.
        began: when the host began, in seconds of its machine's monotonic clock.
        ended: when it had all updates.
        spent: where the time between went.
    """

    clients: tuple[ClientReport, ...]
    began: float
    ended: float
    spent: TaskSeconds


@dataclass(frozen=True)
class HostReport:
    """The outcome of a host's share of a round.

    Attributes:
        clients: one report for each client of the order whose training began.
        load_seconds: time spent on loading parameters and preparing the answer.
        busy_seconds: time spent in all.
        state_bytes: bytes of the client states that came from other hosts.
        kept: the accepted messages that are kept for later analysis, beside the answer to the server.
        remarks: what a user should know of how the host trains, one line each.
    """

    clients: tuple[ClientReport, ...]
    load_seconds: float
    busy_seconds: float
    state_bytes: int
    kept: tuple[KeptMessage, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def scoring_seconds(self) -> float:
        """Time spent on scoring the clients on their held-out rows."""
        return sum(report.scoring_seconds for report in self.clients)


@dataclass(frozen=True)
class EvaluationReport:
    """One host's share of an evaluation.

    Attributes:
        scores: one score for each minibatch that the host was given, in that order.
        client_scores: {client: score on its own training rows}, for the clients that were asked for.
        seconds: duration.
    """

    scores: tuple[BatchScore, ...]
    client_scores: dict[int, RowsScore]
    seconds: float


@dataclass(frozen=True)
class RoundOutcome:
    """The result of combining a round's updates.

    Attributes:
        update_norm: L2 norm of the change of the global parameters.
        accepted: number of participants whose updates were combined.
        versions: for each part, its version after the round.
        divergences: how far the updates point apart, over all layer groups and then in each; (): that is not looked at.
    """

    update_norm: float
    accepted: int
    versions: tuple[int, ...]
    divergences: tuple[Divergence, ...] = ()
