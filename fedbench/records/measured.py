"""The tables of what a run measured of its training (`analysis` of its configuration)."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from fedbench.measures.barrier import loss_barrier
from fedbench.measures.divergence import Divergence
from fedbench.measures.spread import SPREAD_COLUMNS, Values, client_spread
from fedbench.measures.step_norms import StepNorms, norms_by_client
from fedbench.records.client_scores import CLIENT_SCORE_SCHEMA, CLIENT_SCORES

STEPS = "steps.parquet"
DIVERGENCE = "divergence.parquet"
CKA = "cka.parquet"
BARRIER = "barrier.parquet"

STEP_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("step", pa.int32()),
        ("group", pa.int32()),
        ("clients", pa.int32()),
        *((f"{norm}_{column}", pa.float64()) for norm in ("step_norm", "gradient_norm") for column in SPREAD_COLUMNS),
    ]
)
"""`steps.parquet`: one row for each local step of a round and each layer group that trained in it.

round: from 0. step: from 0 in each round. group: the layer group; -1: all that a client trains, together. clients: the
accepted clients that made the step and train the group. step_norm: the L2 norm of w_{k+1} - w_k; gradient_norm: that of
the gradient which led to it; mean and quartiles over these clients."""

DIVERGENCE_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("group", pa.int32()),
        ("clients", pa.list_(pa.int32())),
        ("cosines", pa.list_(pa.float64())),
        *((f"cosine_{column}", pa.float64()) for column in SPREAD_COLUMNS),
        ("discrepancy", pa.float64()),
        ("cancelled_share", pa.float64()),
        ("mean_norm", pa.float64()),
        ("client_norm", pa.float64()),
    ]
)
"""`divergence.parquet`: one row for each round and each layer group that trained in it.

group: the layer group; -1: all that trained, together. clients: the accepted clients that trained it, ascending;
cosines: of the update of each to the mean update, and mean and quartiles over them. discrepancy: FedLAMA's, the mean
squared distance of the clients' values from their mean, per value. cancelled_share: 0..1, one minus mean_norm over
client_norm: the norm of the mean update, and the root mean square of the norms of the clients' updates. See
`fedbench.measures.divergence` for the formulas."""

CKA_SCHEMA = pa.schema(
    [("round", pa.int32()), ("client", pa.int32()), ("group", pa.int32()), ("similarity", pa.float64())]
)
"""`cka.parquet`: one row for each chosen round, accepted client and layer group.

similarity: linear CKA, 0..1, of the group's features in the client's model after its training and in the global model
after the round; null where a feature does not vary, or where the layer has no row of features for each sample."""

BARRIER_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("client", pa.int32()),
        ("group", pa.int32()),
        ("barrier", pa.float64()),
        ("losses", pa.list_(pa.float64())),
    ]
)
"""`barrier.parquet`: one row for each chosen round, accepted client and layer group that the round trained.

losses: mean loss of evenly spaced models on the line that moves this group alone, the running statistics of its layers
with it, from the client's values to the global ones after the round, while all other groups stay the client's; group
-1: all groups together, so that the last loss is the global model's. barrier: how far the loss rises above the line
between the losses at the ends; null where a loss is not finite."""

MEASURED = {
    STEPS: STEP_SCHEMA,
    DIVERGENCE: DIVERGENCE_SCHEMA,
    CKA: CKA_SCHEMA,
    BARRIER: BARRIER_SCHEMA,
    CLIENT_SCORES: CLIENT_SCORE_SCHEMA,
}
"""The tables of measures, by file name, and their schemas. A run has those that its configuration asks for."""


def step_rows(round_index: int, clients: Sequence[StepNorms]) -> pa.Table:
    """One round's rows of `steps.parquet`.

    Args:
        round_index: the round, from 0.
        clients: the norms of each accepted client, in the order of the clients.
    """
    groups = _all_groups(clients)
    steps, gradients = (client_spread(norms) for norms in norms_by_client(clients, groups))
    made = steps.clients.ravel() > 0
    count, columns = steps.clients.shape[0], len(groups) + 1
    table = {
        "round": np.full(count * columns, round_index),
        "step": np.repeat(np.arange(count), columns),
        "group": np.tile([-1, *groups], count),
        "clients": steps.clients.ravel(),
        **steps.columns("step_norm"),
        **gradients.columns("gradient_norm"),
    }
    return _table({name: values[made] for name, values in table.items()}, STEP_SCHEMA)


def step_figures(clients: Sequence[StepNorms]) -> dict[str, Any]:
    """The columns of `rounds.parquet` that the norms of a round's steps fill.

    Args:
        clients: as for `step_rows`.
    """
    made = [client for client in clients if len(client.steps)]
    if not made:
        return {}
    figures = {}
    for name, norms in zip(("step_norm", "gradient_norm"), norms_by_client(made, _all_groups(made)), strict=True):
        whole: Values = norms[:, :, 0]
        lengths = np.array([len(client.steps) for client in made])
        figures[name] = float(np.nansum(whole) / lengths.sum())
        figures[f"first_{name}"] = float(whole[:, 0].mean())
        figures[f"last_{name}"] = float(whole[np.arange(len(made)), lengths - 1].mean())
    return figures


def divergence_rows(round_index: int, divergences: Sequence[Divergence]) -> pa.Table:
    """One round's rows of `divergence.parquet`.

    Args:
        round_index: the round, from 0.
        divergences: over all layer groups, then of each.
    """
    rows = []
    for of_group in divergences:
        spread = client_spread(of_group.cosines)
        rows.append(
            {
                "round": round_index,
                "group": of_group.group,
                "clients": list(of_group.clients),
                "cosines": [_known(cosine) for cosine in of_group.cosines],
                **{name: _known(values[0]) for name, values in spread.columns("cosine").items()},
                "discrepancy": of_group.discrepancy,
                "cancelled_share": _known(of_group.cancelled_share),
                "mean_norm": of_group.mean_norm,
                "client_norm": of_group.client_norm,
            }
        )
    return pa.Table.from_pylist(rows, schema=DIVERGENCE_SCHEMA)


def divergence_figures(divergences: Sequence[Divergence]) -> dict[str, Any]:
    """The columns of `rounds.parquet` that the divergence of a round's updates fills.

    Args:
        divergences: as for `divergence_rows`.
    """
    if not divergences:
        return {}
    whole = divergences[0]
    return {
        "update_cosine": _known(client_spread(whole.cosines).mean.item()),
        "cancelled_share": _known(whole.cancelled_share),
        "discrepancy": whole.discrepancy,
    }


class Probe(Protocol):
    """A client's model compared with the global one (`fedbench.engine.probing.ClientProbe`).

    Attributes:
        client: the client.
        similarities: {layer group: linear CKA}.
        losses: {layer group or -1: losses on its line}.
    """

    @property
    def client(self) -> int: ...

    @property
    def similarities(self) -> dict[int, float]: ...

    @property
    def losses(self) -> dict[int, tuple[float, ...]]: ...


def cka_rows(round_index: int, probes: Sequence[Probe]) -> pa.Table:
    """One round's rows of `cka.parquet`.

    Args:
        round_index: the round, from 0.
        probes: of each accepted client, in the order of the clients.
    """
    rows = [
        {"round": round_index, "client": probe.client, "group": group, "similarity": _known(similarity)}
        for probe in probes
        for group, similarity in probe.similarities.items()
    ]
    return pa.Table.from_pylist(rows, schema=CKA_SCHEMA)


def barrier_rows(round_index: int, probes: Sequence[Probe]) -> pa.Table:
    """One round's rows of `barrier.parquet`; arguments as for `cka_rows`."""
    rows = [
        {
            "round": round_index,
            "client": probe.client,
            "group": group,
            "barrier": _known(loss_barrier(losses)),
            "losses": [_known(loss) for loss in losses],
        }
        for probe in probes
        for group, losses in probe.losses.items()
    ]
    return pa.Table.from_pylist(rows, schema=BARRIER_SCHEMA)


def probe_figures(probes: Sequence[Probe]) -> dict[str, Any]:
    """The columns of `rounds.parquet` that the comparisons after a round fill.

    Args:
        probes: as for `cka_rows`.
    """
    similarities = [value for probe in probes for value in probe.similarities.values() if not np.isnan(value)]
    barriers = [loss_barrier(probe.losses[-1]) for probe in probes if probe.losses]
    return {
        "cka": float(np.mean(similarities)) if similarities else None,
        "barrier": _known(float(np.mean(barriers))) if barriers else None,
    }


def _known(value: float) -> float | None:
    """A value of a table; None where it is not a number."""
    return None if np.isnan(value) else float(value)


def _all_groups(clients: Sequence[StepNorms]) -> list[int]:
    return sorted({group for client in clients for group in client.groups})


def _table(columns: dict[str, Values], schema: pa.Schema) -> pa.Table:
    """A table of a schema; NaN becomes null."""
    arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def round_rows(
    round_index: int, steps: Sequence[StepNorms], divergences: Sequence[Divergence], probes: Sequence[Probe]
) -> dict[str, pa.Table]:
    """{file name: one round's rows} of all tables; arguments as for the functions above."""
    tables = {
        STEPS: step_rows(round_index, steps) if steps else None,
        DIVERGENCE: divergence_rows(round_index, divergences),
        CKA: cka_rows(round_index, probes),
        BARRIER: barrier_rows(round_index, probes),
    }
    return {name: table for name, table in tables.items() if table is not None and table.num_rows}


def round_figures(
    steps: Sequence[StepNorms], divergences: Sequence[Divergence], probes: Sequence[Probe]
) -> dict[str, Any]:
    """The columns of `rounds.parquet` that a round's measures fill; arguments as for `round_rows`."""
    return step_figures(steps) | divergence_figures(divergences) | probe_figures(probes)
