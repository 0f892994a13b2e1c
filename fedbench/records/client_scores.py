"""The table of clients' scores on their held-out rows, and how these are spread over the clients."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

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
    ]
)
"""`client_scores.parquet`: one row for each client with held-out rows and each round in which clients are scored.

round: from 0. participant: whether the client took part in the round and was accepted; all others are absentees.
samples: its held-out rows. accuracy: 0..1, loss: mean cross-entropy in nats, of three models on these rows: before, the
one that a participant started from; after, the one that it has trained, before anything is done to it on its way to the
server; global, the new global model after the round. before_* and after_* are null for absentees."""

WORST_SHARE = 0.1
"""Share of the clients that the worst decile is the mean of."""

SPREAD = ("mean", "std", "worst_decile", "worst")
"""What is said of the clients' accuracies: see `accuracy_spread`."""

PREFIXES = {"global": "client_accuracy", "before": "client_accuracy_before", "after": "client_accuracy_after"}
"""Beginnings of the columns of `rounds.parquet`, by model."""

CLIENT_FIGURES = (
    *(f"{prefix}_{figure}" for prefix in PREFIXES.values() for figure in SPREAD),
    "client_accuracy_participants",
    "client_accuracy_absentees",
)
"""Columns of `rounds.parquet` that rounds in which clients are scored fill."""


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
            f"{model}_{figure}": _known(getattr(score, figure))
            for model, score in scores.items()
            for figure in ("accuracy", "loss")
        }
        row = {"round": round_index, "client": client, "samples": after_round[client].samples}
        rows.append(row | {"participant": trained is not None} | figures)
    return pa.Table.from_pylist(rows, schema=CLIENT_SCORE_SCHEMA)


def client_score_figures(rows: pa.Table) -> dict[str, Any]:
    """The columns of `rounds.parquet` that a round's rows of `client_scores.parquet` fill.

    Args:
        rows: with `CLIENT_SCORE_SCHEMA`; without rows nothing is filled.
    """
    if not rows.num_rows:
        return {}
    figures: dict[str, float | None] = {}
    for model, prefix in PREFIXES.items():
        accuracies = rows.column(f"{model}_accuracy").drop_null().to_pylist()
        figures |= {f"{prefix}_{figure}": value for figure, value in accuracy_spread(accuracies).items()}
    took_part, accuracies = rows.column("participant").to_pylist(), rows.column("global_accuracy").to_pylist()
    for name, wanted in (("participants", True), ("absentees", False)):
        chosen = [accuracy for accuracy, took in zip(accuracies, took_part, strict=True) if took == wanted]
        figures[f"client_accuracy_{name}"] = accuracy_spread(chosen)["mean"]
    return figures


def by_file(rows: pa.Table) -> dict[str, pa.Table]:
    """{file name: a round's rows}; empty without rows."""
    return {CLIENT_SCORES: rows} if rows.num_rows else {}


def accuracy_spread(accuracies: Sequence[float]) -> dict[str, float | None]:
    """How accuracies are spread over clients, each of which counts alike, however many rows it has.

    Returns:
        mean; std, the population's standard deviation; worst_decile, the mean over the tenth of the clients, rounded
        up, whose accuracy is lowest; worst, the lowest. All None without clients.

    Example:
        >>> accuracy_spread([0.9, 0.5, 0.7])
        {'mean': 0.7, 'std': 0.163..., 'worst_decile': 0.5, 'worst': 0.5}
    """
    if not len(accuracies):
        return dict.fromkeys(SPREAD)
    ascending = np.sort(np.asarray(accuracies, np.float64))
    worst = ascending[: math.ceil(WORST_SHARE * len(ascending))]
    figures = (ascending.mean(), ascending.std(), worst.mean(), ascending[0])
    return {name: float(figure) for name, figure in zip(SPREAD, figures, strict=True)}


def _known(value: float) -> float | None:
    """A value of a table; None where it is not a number."""
    return value if math.isfinite(value) else None
