"""What is recorded of a run: one row a round, one row a client and round, one summary; and who is told of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from fedbench.records.client_scores import CLIENT_FIGURES, SCORE_COLUMNS, SCORE_FIGURES
from fedbench.tasks.kinds import Headline
from fedbench.training.metric_names import CLASS_COLUMNS, METRIC_COLUMNS, OWN_METRICS, TASK_COLUMNS

STEP_FIGURES = (
    "step_norm",
    "first_step_norm",
    "last_step_norm",
    "gradient_norm",
    "first_gradient_norm",
    "last_gradient_norm",
)
"""Columns of `rounds.parquet` that runs with `analysis.step_norms` fill."""

DIVERGENCE_FIGURES = ("update_cosine", "cancelled_share", "discrepancy")
"""Columns of `rounds.parquet` that runs with `analysis.divergence` fill."""

PROBE_FIGURES = ("cka", "barrier")
"""Columns of `rounds.parquet` that rounds named in `analysis.cka` and `analysis.barrier` fill."""

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
        ("validation_loss", pa.float64()),
        ("validation_accuracy", pa.float64()),
        ("group_clients", pa.list_(pa.int32())),
        ("joules", pa.float64()),
        ("waited_seconds", pa.float64()),
        *((name, pa.float64()) for name in (*STEP_FIGURES, *DIVERGENCE_FIGURES, *PROBE_FIGURES, *CLIENT_FIGURES)),
        *((name, pa.float64()) for name in METRIC_COLUMNS),
        *((name, pa.list_(pa.float64())) for name in CLASS_COLUMNS),
        (OWN_METRICS, pa.map_(pa.string(), pa.list_(pa.float64()))),
        *((name, pa.float64()) for name in (*TASK_COLUMNS, *SCORE_FIGURES)),
    ]
)
"""`rounds.parquet`. round: from 0 in the tables; all that is shown, and MLflow's steps, count from 1. Bytes, FLOPs and
seconds are of this round; the paper_ columns are cumulative, paper_comm_gb is null where the paper does not define it.
The *_seconds after `rejected_clients` say where the round's wall_seconds went. train_loss is the mean over the
rows, tokens or pixels that count of the accepted clients.

An asynchronous run's round is a stretch of arrivals: phase is `async`, `clients` counts the updates that arrived, group
is -1 unless all trained the same one, virtual_seconds is the clock at its end. epochs: samples trained on so far, per
sample of the training split; staleness_*: over the round's arrivals. Null for synchronous runs and empty rounds.

virtual_seconds of synchronous rounds: the virtual clock at the round's end, null without `delays.profile`. joules: the
energy that clients spent in the round on computing, receiving and sending, null where a profile does not know it.
waited_seconds: of the virtual clock, until enough clients were on for the round to begin.

dropped_clients: participants whose training had not ended by `participation.round_deadline`, or, on the virtual clock,
by `delays.deadline`, or that went off before (`delays.availability`).

validation_loss, validation_accuracy: of the global model on the validation split; null where there is no such split.

group, group_clients: layer groups are numbered from 0, in the order of `group_names` in `description.json`; group is
the single one that a partial round trained, else -1. group_clients: for each layer group, the number of accepted
updates that trained it; null in runs of earlier versions.

step_norm, gradient_norm: mean norm of a local step and of its gradient, over the accepted clients' steps, over all
parameters that a client trains; first_*, last_*: of each client's first and last step of the round. Null without
`analysis.step_norms`; see `fedbench.records.measured` for all steps.

update_cosine, cancelled_share, discrepancy: how far the accepted updates point apart, over all layer groups that
trained: mean cosine of a client's update to the mean update, the share of their norm that averaging cancels (0..1), and
their mean squared distance from the mean update per parameter. Null without `analysis.divergence`.

cka, barrier: of the clients' models and the global model after the round: linear CKA, mean over clients and layer
groups, and the loss barrier between the whole models, mean over clients. Null but in rounds that `analysis` names.

client_accuracy_*: accuracy on clients' held-out rows, 0..1, each client counting alike: mean, std (the population's
standard deviation), worst_decile (mean over the worst tenth of the clients, rounded up) and worst over all clients, of
the global model after the round; *_before_*, *_after_*: over the participants, of the model that each received and of
the one that it has trained; participants, absentees: means of the global model over those that took part in the round
and over the others. Null but in rounds of `evaluation.client_every`; see `fedbench.records.client_scores`.
client_score_*: the same of the metric by which the table's task is judged, where that is not the accuracy; the worst
clients are those with the highest scores where less is better.

test_*, validation_*, own_metrics: of the global model, by the metrics of `evaluation.metrics`, null without them.
*_per_class_recall: one number for each class, NaN for a class without rows. own_metrics: {"test/NAME" or
"validation/NAME": the values of one's own metric NAME}.

*_perplexity, *_mae, *_r2, *_mean_iou: of the global model, by what the task is judged by and further metrics of it;
null for other tasks. test_accuracy, validation_accuracy: the share of rows, of tokens with task=next_token, and of
pixels with task=segmentation; null with task=multilabel and task=regression. The table's metadata name the task
(`fedbench.records.headline`) where it is another one than classification."""

ADDED_LATER = (
    "byzantine",
    "own_test_accuracy",
    "group_clients",
    *("joules", "waited_seconds"),
    *("virtual_start", "virtual_download_seconds", "virtual_compute_seconds", "virtual_upload_seconds"),
    *(*STEP_FIGURES, *DIVERGENCE_FIGURES, *PROBE_FIGURES),
    *(*CLIENT_FIGURES, *METRIC_COLUMNS, *CLASS_COLUMNS, OWN_METRICS),
    *TASK_COLUMNS,
    *(*SCORE_FIGURES, *SCORE_COLUMNS, "local_score"),
)
"""Columns that tables of earlier versions lack; they are read as nulls."""

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
        ("byzantine", pa.bool_()),
        ("own_test_accuracy", pa.float64()),
        ("virtual_start", pa.float64()),
        ("virtual_download_seconds", pa.float64()),
        ("virtual_compute_seconds", pa.float64()),
        ("virtual_upload_seconds", pa.float64()),
        ("joules", pa.float64()),
        ("local_score", pa.float64()),
    ]
)
"""`clients.parquet`. status: ok | rejected | failed, or dropped (not done by the round's deadline, or gone off before).
virtual_start: the virtual clock when the client began, in seconds; virtual_*_seconds: how long it then received,
computed and sent, until it was done or dropped; joules: energy that it spent on that; null without `delays.profile`.

byzantine: whether the client attacks (`participation.byzantine`), whose train_loss is the one on the labels that it
trained on; null in runs of earlier versions. own_test_accuracy: of the client's own model on the common test split, in
runs without a global model (algorithm=local); null elsewhere.

local_accuracy: of the global model on the client's own training rows, with `evaluation.per_client`; local_score: the
same of the metric by which the task is judged, where that is not the accuracy."""

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
    paper_comm_gb: float | None
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
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    group_clients: Sequence[int] | None = None
    step_norm: float | None = None
    first_step_norm: float | None = None
    last_step_norm: float | None = None
    gradient_norm: float | None = None
    first_gradient_norm: float | None = None
    last_gradient_norm: float | None = None
    update_cosine: float | None = None
    cancelled_share: float | None = None
    discrepancy: float | None = None
    cka: float | None = None
    barrier: float | None = None
    client_accuracy_mean: float | None = None
    client_accuracy_std: float | None = None
    client_accuracy_worst_decile: float | None = None
    client_accuracy_worst: float | None = None
    client_accuracy_before_mean: float | None = None
    client_accuracy_before_std: float | None = None
    client_accuracy_before_worst_decile: float | None = None
    client_accuracy_before_worst: float | None = None
    client_accuracy_after_mean: float | None = None
    client_accuracy_after_std: float | None = None
    client_accuracy_after_worst_decile: float | None = None
    client_accuracy_after_worst: float | None = None
    client_accuracy_participants: float | None = None
    client_accuracy_absentees: float | None = None
    test_top5_accuracy: float | None = None
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    test_expected_calibration_error: float | None = None
    validation_top5_accuracy: float | None = None
    validation_balanced_accuracy: float | None = None
    validation_macro_f1: float | None = None
    validation_expected_calibration_error: float | None = None
    test_per_class_recall: Sequence[float] | None = None
    validation_per_class_recall: Sequence[float] | None = None
    own_metrics: Sequence[tuple[str, Sequence[float]]] | None = None
    test_perplexity: float | None = None
    test_mae: float | None = None
    test_r2: float | None = None
    test_mean_iou: float | None = None
    validation_perplexity: float | None = None
    validation_mae: float | None = None
    validation_r2: float | None = None
    validation_mean_iou: float | None = None
    client_score_mean: float | None = None
    client_score_std: float | None = None
    client_score_worst_decile: float | None = None
    client_score_worst: float | None = None
    client_score_before_mean: float | None = None
    client_score_before_std: float | None = None
    client_score_before_worst_decile: float | None = None
    client_score_before_worst: float | None = None
    client_score_after_mean: float | None = None
    client_score_after_std: float | None = None
    client_score_after_worst_decile: float | None = None
    client_score_after_worst: float | None = None
    client_score_participants: float | None = None
    client_score_absentees: float | None = None
    joules: float | None = None
    waited_seconds: float | None = None

    def score(self, headline: Headline, split: str = "test") -> float | None:
        """The metric by which the task is judged, on a split; None where it was not evaluated."""
        value: float | None = getattr(self, f"{split}_{headline.name}")
        return value

    def choosing_score(self, headline: Headline) -> float | None:
        """The same on the split by which rounds and runs are chosen: validation, or test where there is none."""
        on_validation = self.score(headline, "validation")
        return self.score(headline) if on_validation is None else on_validation


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
    byzantine: bool = False
    own_test_accuracy: float | None = None
    virtual_start: float | None = None
    virtual_download_seconds: float | None = None
    virtual_compute_seconds: float | None = None
    virtual_upload_seconds: float | None = None
    joules: float | None = None
    local_score: float | None = None


DROPPED = "dropped"
"""Status of a participant whose training had not ended in time."""
