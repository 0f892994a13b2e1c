"""The table of clients' scores on their held-out rows, and how these are spread over the clients."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from fedbench.tasks.kinds import TASKS, TaskName
from fedbench.training.scores import RowsScore

CLIENT_SCORES = "client_scores.parquet"

MODELS = ("before", "after", "global")
"""The models that a client is scored with: its start, what it has trained, and the global one after the round."""

CLIENT_SCORE_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("client", pa.int32()),
        ("participant", pa.bool_()),
        ("samples", pa.int64()),
        *((f"{model}_{figure}", pa.float64()) for model in MODELS for figure in ("accuracy", "loss")),
        *((f"{model}_score", pa.float64()) for model in MODELS),
    ]
)
"""`client_scores.parquet`: one row for each client with held-out rows and each round in which clients are scored.

round: from 0. participant: whether the client took part in the round and was accepted; all others are absentees.
samples: its held-out rows. accuracy: 0..1, loss: mean cross-entropy in nats (of regression squared error), of three
models on these rows: before, the one that a participant started from; after, the one that it has trained, before
anything is done to it on its way to the server; global, the new global model after the round. score: of the same, the
metric by which the run's task is judged where that is another than accuracy, such as the perplexity; else null, as the
accuracy is of tasks without one. before_* and after_* are null for absentees."""

SCORE_COLUMNS = tuple(f"{model}_score" for model in MODELS)
"""Columns that tables of earlier versions lack."""

WORST_SHARE = 0.1
"""Share of the clients that the worst decile is the mean of."""

SPREAD = ("mean", "std", "worst_decile", "worst")
"""What is said of the clients' accuracies, or scores by another metric: see `accuracy_spread`."""

PREFIXES = {"global": "client_accuracy", "before": "client_accuracy_before", "after": "client_accuracy_after"}
"""Beginnings of the columns of `rounds.parquet`, by model."""

CLIENT_FIGURES = (
    *(f"{prefix}_{figure}" for prefix in PREFIXES.values() for figure in SPREAD),
    "client_accuracy_participants",
    "client_accuracy_absentees",
)
"""Columns of `rounds.parquet` that rounds in which clients are scored fill, for tasks that have an accuracy."""

SCORE_FIGURES = tuple(name.replace("accuracy", "score") for name in CLIENT_FIGURES)
"""The same columns of the metric by which the task is judged, where that is another than accuracy."""


class Trained(Protocol):
    """A participant's scores as its training began and as it ended (`fedbench.engine.client_scoring`)."""

    @property
    def before(self) -> RowsScore: ...

    @property
    def after(self) -> RowsScore: ...


def client_score_rows(
    round_index: int, after_round: Mapping[int, RowsScore], participants: Mapping[int, Trained]
) -> pa.Table:
    """One round's rows of `client_scores.parquet`, ascending by client.

    Args:
        round_index: the round, from 0.
        after_round: {client: score of the global model after the round}, of all clients with held-out rows.
        participants: {accepted participant: its scores}, of those with held-out rows.
    """
    rows = []
    for client in sorted(after_round):
        scores = {"global": after_round[client]}
        if (trained := participants.get(client)) is not None:
            scores |= {"before": trained.before, "after": trained.after}
        figures = {
            f"{model}_{figure}": known(getattr(score, figure))
            for model, score in scores.items()
            for figure in ("accuracy", "loss", "score")
        }
        row = {"round": round_index, "client": client, "samples": after_round[client].samples}
        rows.append(row | {"participant": trained is not None} | figures)
    return pa.Table.from_pylist(rows, schema=CLIENT_SCORE_SCHEMA)


def client_score_figures(rows: pa.Table, task: TaskName = "classification") -> dict[str, Any]:
    """The columns of `rounds.parquet` that a round's rows of `client_scores.parquet` fill.

    Args:
        rows: with `CLIENT_SCORE_SCHEMA`; without rows nothing is filled.
        task: of the run; by its metric the worst clients may be those with the largest scores.
    """
    if not rows.num_rows:
        return {}
    accuracies = _figures(rows, "accuracy", higher_is_better=True)
    return accuracies | _figures(rows, "score", higher_is_better=TASKS[task].headline.higher_is_better)


def _figures(rows: pa.Table, metric: str, higher_is_better: bool) -> dict[str, float | None]:
    """The columns of one metric, "accuracy" or "score": how its known values are spread over the clients."""
    figures: dict[str, float | None] = {}
    for model, prefix in PREFIXES.items():
        values = rows.column(f"{model}_{metric}").drop_null().to_pylist()
        name = prefix.replace("accuracy", metric)
        figures |= {f"{name}_{key}": value for key, value in accuracy_spread(values, higher_is_better).items()}
    took_part, of_global = rows.column("participant").to_pylist(), rows.column(f"global_{metric}").to_pylist()
    for name, wanted in (("participants", True), ("absentees", False)):
        chosen = [value for value, took in zip(of_global, took_part, strict=True) if took == wanted]
        figures[f"client_{metric}_{name}"] = accuracy_spread([value for value in chosen if value is not None])["mean"]
    return figures


def by_file(rows: pa.Table) -> dict[str, pa.Table]:
    """{file name: a round's rows}; empty without rows."""
    return {CLIENT_SCORES: rows} if rows.num_rows else {}


def accuracy_spread(accuracies: Sequence[float], higher_is_better: bool = True) -> dict[str, float | None]:
    """How accuracies, or scores by another metric, are spread over clients, each of which counts alike.

    Args:
        accuracies: one for each client, however many rows it has.
        higher_is_better: whether the lowest are the worst; else the highest are.

    Returns:
        mean; std, the population's standard deviation; worst_decile, the mean over the tenth of the clients, rounded
        up, that are worst; worst, the worst one. All None without clients.

    Example:
        >>> accuracy_spread([0.9, 0.5, 0.7])
        {'mean': 0.7, 'std': 0.163..., 'worst_decile': 0.5, 'worst': 0.5}
    """
    if not len(accuracies):
        return dict.fromkeys(SPREAD)
    ascending = np.sort(np.asarray(accuracies, np.float64))
    from_worst = ascending if higher_is_better else ascending[::-1]
    worst = from_worst[: math.ceil(WORST_SHARE * len(from_worst))]
    figures = (ascending.mean(), ascending.std(), worst.mean(), from_worst[0])
    return {name: float(figure) for name, figure in zip(SPREAD, figures, strict=True)}


def known(value: float) -> float | None:
    """A value of a table; None where it is not a number."""
    return value if math.isfinite(value) else None
