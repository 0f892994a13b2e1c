"""What a study can aim at: figures of a run's summary, and what it took to reach a target accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

ACCURACIES = ("best_accuracy", "final_accuracy")
OF_ALL = (
    *ACCURACIES,
    "uplink_bytes",
    "downlink_bytes",
    "total_bytes",
    "transport_bytes",
    "client_flops",
    "paper_comm_gb",
    "paper_comp_tflop",
    "wall_seconds",
    "rounds",
    "parameters",
    "peak_actor_bytes",
    "rejected_clients",
    "privacy_epsilon",
)
OF_ARRIVALS = (
    "virtual_seconds",
    "arrivals",
    "lost_updates",
    "staleness_mean",
    "staleness_max",
    "epochs",
    "virtual_seconds_to_target",
)
TO_TARGET = ("bytes_to_target", "flops_to_target", "rounds_to_target", "virtual_seconds_to_target")
METRICS = tuple(dict.fromkeys((*OF_ALL, *OF_ARRIVALS, *TO_TARGET)))
"""Everything that an objective or a constraint may name. Bytes and FLOPs are totals over all clients."""


def measure(summary: Mapping[str, Any], rounds: pa.Table, target: float | None) -> dict[str, float]:
    """The figures of a run that has them, by the names of `METRICS`.

    A run that never evaluates at `target` or above has no *_to_target: there is no honest number for it.

    Args:
        summary: as in `summary.json`.
        rounds: as in `rounds.parquet`.
        target: accuracy in 0..1, or None.
    """
    found = {name: float(summary[name]) for name in METRICS if summary.get(name) is not None}
    found["total_bytes"] = float(summary["uplink_bytes"] + summary["downlink_bytes"])
    reached = None if target is None else _first_at(rounds["test_accuracy"].to_pylist(), target)
    if reached is not None:
        until = {name: rounds[name].to_pylist()[: reached + 1] for name in rounds.column_names}
        found["rounds_to_target"] = float(reached + 1)
        found["bytes_to_target"] = float(sum(until["uplink_bytes"]) + sum(until["downlink_bytes"]))
        found["flops_to_target"] = float(sum(until["client_flops"]))
        if until["virtual_seconds"][-1] is not None:
            found["virtual_seconds_to_target"] = float(until["virtual_seconds"][-1])
    return found


def _first_at(accuracies: Sequence[float | None], target: float) -> int | None:
    return next((i for i, accuracy in enumerate(accuracies) if accuracy is not None and accuracy >= target), None)


def mean(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over seeds of what all of them have."""
    shared = set(seeds[0]).intersection(*seeds) if seeds else set()
    return {name: sum(one[name] for one in seeds) / len(seeds) for name in seeds[0] if name in shared} if seeds else {}


def lacking(wanted: Sequence[str], found: Mapping[str, float], target: float | None) -> str | None:
    """Why a trial has no value, in a line; None if it has all that is wanted."""
    for name in wanted:
        if name in found:
            continue
        if name in TO_TARGET and target is not None:
            return f"{name}: the accuracy never reached target={target:g}"
        return f"{name}: this run has no such figure"
    return None
