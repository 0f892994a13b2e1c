"""Metrics of one's own, which `evaluation.metrics` names by import path, as figures of a run: `own:NAME`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from fedbench.records.courses import Course
from fedbench.records.metrics import METRICS, Metric
from fedbench.training.metric_names import OWN_METRICS

OWN = "own:"
"""What stands before the name of a metric of one's own, as the name of a figure."""

DIRECTIONS = "own_metrics_better"
"""The entry of `summary.json` with {NAME: "higher" or "lower"}, of the metrics that say which values are better."""

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class OwnMetric(Metric):
    """The last value of a metric of one's own on the test split."""

    def of_summary(self, summary: Mapping[str, Any]) -> float | None:
        values = dict(summary.get(OWN_METRICS) or {}).get(f"test/{self.name.removeprefix(OWN)}") or ()
        return _only(values)


def own_metric(name: str, better: Direction | None = None) -> OwnMetric:
    """A metric of one's own as a figure of a run.

    Args:
        name: own:NAME.
        better: which of its values are better; None: neither.
    """
    short = name.removeprefix(OWN)

    def read(rounds: pa.Table) -> Course:
        course: Course = []
        for by_name in rounds.column(OWN_METRICS).to_pylist():
            known = _only(dict(by_name or ()).get(f"test/{short}", ()))
            course.append(known if known is not None or not course else course[-1])
        return course

    undefined = f"evaluation.metrics names no metric {short}, or it has not one value that is a number"
    return OwnMetric(
        name, f"last test {short}", "", read,
        bigger_is_better=better == "higher", is_error=better == "lower", undefined=undefined,
    )  # fmt: skip


def figure(name: str) -> Metric:
    """The figure of a name: a key of `METRICS`, or own:NAME, of which it is not said here which values are better."""
    return own_metric(name) if name.startswith(OWN) else METRICS[name]


def own_names(summary: Mapping[str, Any]) -> dict[str, Direction | None]:
    """{own:NAME: which of its values are better} of the metrics of one's own that are one number on the test split.

    Args:
        summary: as in `summary.json`; those of earlier versions have no directions.
    """
    directions = summary.get(DIRECTIONS) or {}
    named = {key.removeprefix("test/"): values for key, values in (summary.get(OWN_METRICS) or {}).items()}
    return {
        f"{OWN}{name}": directions.get(name) for name, values in named.items() if "/" not in name and len(values) == 1
    }


def _only(values: Any) -> float | None:
    """The only one of some values; None where there are several, none, or it is no number."""
    return float(values[0]) if len(values) == 1 and values[0] is not None and math.isfinite(values[0]) else None
