"""What is recorded of a run: one row a round, one row a client and round, one summary; and who is told of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

ROUND_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("phase", pa.string()),
        ("group", pa.int32()),
        ("clients", pa.int32()),
        ("train_loss", pa.float64()),
        ("test_loss", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("uplink_bytes", pa.int64()),
        ("downlink_bytes", pa.int64()),
        ("transport_bytes", pa.int64()),
        ("client_flops", pa.int64()),
        ("paper_comm_gb", pa.float64()),
        ("paper_comp_tflop", pa.float64()),
        ("update_norm", pa.float64()),
        ("wall_seconds", pa.float64()),
        ("virtual_seconds", pa.float64()),
        ("rejected_clients", pa.int32()),
        ("dispatch_seconds", pa.float64()),
        ("transfer_seconds", pa.float64()),
        ("training_seconds", pa.float64()),
        ("aggregation_seconds", pa.float64()),
        ("evaluation_seconds", pa.float64()),
        ("tracking_seconds", pa.float64()),
        ("epochs", pa.float64()),
        ("staleness_mean", pa.float64()),
        ("staleness_max", pa.int64()),
        ("dropped_clients", pa.int32()),
    ]
)
"""`rounds.parquet`. Bytes, FLOPs and seconds are of this round; the paper_ columns are cumulative. The *_seconds
after `rejected_clients` say where the round's wall_seconds went.

An asynchronous run's round is a stretch of arrivals: phase is `async`, `clients` counts the updates that arrived, group
is -1 unless all trained the same one, virtual_seconds is the clock at its end. epochs: samples trained on so far, per
sample of the training split; staleness_*: over the round's arrivals. Null for synchronous runs and empty rounds.

dropped_clients: participants whose training had not ended by `participation.round_deadline`."""

CLIENT_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("client", pa.int32()),
        ("status", pa.string()),
        ("samples", pa.int64()),
        ("steps", pa.int64()),
        ("train_loss", pa.float64()),
        ("local_accuracy", pa.float64()),
        ("uplink_bytes", pa.int64()),
        ("downlink_bytes", pa.int64()),
        ("flops", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
"""`clients.parquet`. status: ok | rejected | failed, or dropped (not done by the round's deadline)."""

ARRIVAL_SCHEMA = pa.schema(
    [
        ("arrival", pa.int64()),
        ("round", pa.int32()),
        ("worker", pa.int32()),
        ("client", pa.int32()),
        ("status", pa.string()),
        ("group", pa.int32()),
        ("index", pa.int64()),
        ("staleness", pa.int64()),
        ("dispatched_seconds", pa.float64()),
        ("arrived_seconds", pa.float64()),
        ("wall_seconds", pa.float64()),
        ("uplink_bytes", pa.int64()),
        ("downlink_bytes", pa.int64()),
    ]
)
"""`events.parquet` of an asynchronous run: one row an arrival, in order; from it the run can be replayed.

worker: the slot, 0..K-1, that the work was in. status: ok | rejected | failed, or lost (the client dropped out; the row
stands at the time when its slot was free again). group: -1 for several. index: updates applied when the work was
dispatched; staleness: updates applied between that and its arrival. *_seconds: of the run's clock, and real ones."""


@dataclass(frozen=True)
class RoundRecord:
    """One row of `rounds.parquet` (see `ROUND_SCHEMA` for units)."""

    round: int
    phase: str
    group: int
    clients: int
    train_loss: float
    test_loss: float | None
    test_accuracy: float | None
    uplink_bytes: int
    downlink_bytes: int
    transport_bytes: int
    client_flops: int
    paper_comm_gb: float
    paper_comp_tflop: float
    update_norm: float
    wall_seconds: float
    virtual_seconds: float | None
    rejected_clients: int
    dispatch_seconds: float = 0.0
    transfer_seconds: float = 0.0
    training_seconds: float = 0.0
    aggregation_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    tracking_seconds: float = 0.0
    epochs: float | None = None
    staleness_mean: float | None = None
    staleness_max: int | None = None
    dropped_clients: int = 0


@dataclass(frozen=True)
class ArrivalRecord:
    """One row of `events.parquet` (see `ARRIVAL_SCHEMA`)."""

    arrival: int
    round: int
    worker: int
    client: int
    status: str
    group: int
    index: int
    staleness: int
    dispatched_seconds: float
    arrived_seconds: float
    wall_seconds: float
    uplink_bytes: int
    downlink_bytes: int


@dataclass(frozen=True)
class ClientRecord:
    """One row of `clients.parquet` (see `CLIENT_SCHEMA`)."""

    round: int
    client: int
    status: str
    samples: int
    steps: int
    train_loss: float
    local_accuracy: float | None
    uplink_bytes: int
    downlink_bytes: int
    flops: int
    seconds: float


@dataclass(frozen=True)
class RunDescription:
    """What is known of a run before its first round.

    Attributes:
        config: the complete configuration, nested plain values.
        title: one line, e.g. "FedAvg, sequential schedule, resnet8 on cifar10".
        note: the run in words, Markdown.
        tags: {algorithm, schedule, dataset, model, ...}.
        rounds: the number of rounds planned.
        directory: the run directory, a path as text.
        dataset_name, dataset_source, dataset_digest: for the tracker's dataset input.
        class_names: in label order.
        client_class_counts: one row per client, one column per class: how many samples of the class it holds.
        test_samples: size of the test split.
        sent_bytes: protocol bytes up and down of the rounds before, where a run goes on.
    """

    config: dict[str, Any]
    title: str
    note: str
    tags: dict[str, str]
    rounds: int
    directory: str
    dataset_name: str
    dataset_source: str
    dataset_digest: str
    class_names: tuple[str, ...]
    client_class_counts: tuple[tuple[int, ...], ...]
    test_samples: int
    sent_bytes: int = 0


@dataclass(frozen=True)
class Verdict:
    """What can be said of a run only once it has ended: tags, and metrics, for MLflow."""

    tags: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Membership:
    """What a run is part of: a sweep's trial, a suite's cell. Changes nothing but how MLflow shows it.

    Attributes:
        parent_run_id: the MLflow run under which this one is nested.
        run_name: of the MLflow run; None: the method and the run directory's name.
        tags: added to the run's own.
        judge: asked, when the run has ended, what the whole makes of its summary.
    """

    parent_run_id: str | None = None
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    judge: Callable[[Mapping[str, Any]], Verdict] | None = None


ALONE = Membership()


class Observer(Protocol):
    """Is told of a run as it goes; what it does must neither stop nor slow the run."""

    def run_started(self, run: RunDescription) -> None:
        """Once, before the first round."""

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """After every round."""

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Once, however the run ended; `summary["status"]` is finished | interrupted | failed."""
