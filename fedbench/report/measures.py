"""The figures by which runs are compared, and what it took to reach an accuracy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedbench.records.recorded_run import RecordedRun, Values
from fedbench.report.methods import Method
from fedbench.tables.numbers import PERCENT, Number


@dataclass(frozen=True)
class Measure:
    """One figure of `summary.json`.

    Attributes:
        key: its name there.
        heading: of a table's column, without the unit.
        scales: (unit, factor) from small to large, the largest fitting one is taken; (): percent.
        optional: left out where no method has it.
    """

    key: str
    heading: str
    scales: tuple[tuple[str, float], ...]
    optional: bool = False


BYTES = (("kB", 1e-3), ("MB", 1e-6), ("GB", 1e-9), ("TB", 1e-12))
FLOPS = (("MFLOP", 1e-6), ("GFLOP", 1e-9), ("TFLOP", 1e-12), ("PFLOP", 1e-15))
SECONDS = (("s", 1.0),)

MEASURES = (
    Measure("best_accuracy", "best accuracy", ()),
    Measure("final_accuracy", "final accuracy", ()),
    Measure("uplink_bytes", "uplink", BYTES),
    Measure("downlink_bytes", "downlink", BYTES),
    Measure("client_flops", "client work", FLOPS),
    Measure("paper_comm_gb", "paper's Comm.", (("GB", 1.0),)),
    Measure("paper_comp_tflop", "paper's Comp.", (("TFLOP", 1.0),)),
    Measure("wall_seconds", "wall time", SECONDS),
    Measure("virtual_seconds", "virtual time", SECONDS, optional=True),
)


def number_for(measure: Measure, values: Sequence[float]) -> Number:
    """How these values of a measure are shown in one column."""
    return PERCENT if not measure.scales else fitting(measure.scales, values)


def fitting(scales: Sequence[tuple[str, float]], values: Sequence[float]) -> Number:
    """The largest unit in which the largest value is at least 1, with three digits of the smallest value.

    >>> fitting(BYTES, [2.5e6, 1.2e7]).show(2.5e6)
    '2.50 MB'
    """
    most = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    fits = [(unit, factor) for unit, factor in scales if most * factor >= 1]
    unit, factor = (fits or list(scales[:1]))[-1]
    return Number.fitting(values, factor, unit)


@dataclass(frozen=True)
class Reached:
    """What one run had spent at the end of the round that first reached the target.

    Attributes:
        round: counted from 1.
        bytes: uplink and downlink of all clients.
        flops: of all clients.
        seconds: of the wall clock, training rounds alone.
        virtual_seconds: None for a run without such a clock.
    """

    round: int
    bytes: float
    flops: float
    seconds: float
    virtual_seconds: float | None


def reached(run: RecordedRun, target: float) -> Reached | None:
    """When `run` was first scored at least `target` (0..1); None if it never was."""
    accuracy = run.column("test_accuracy")
    with np.errstate(invalid="ignore"):
        hits = np.flatnonzero(accuracy >= target)
    if not len(hits):
        return None
    stop = int(hits[0]) + 1
    virtual = run.column("virtual_seconds")[stop - 1]
    return Reached(
        round=stop,
        bytes=float(traffic(run)[stop - 1]),
        flops=float(np.cumsum(run.column("client_flops"))[stop - 1]),
        seconds=float(np.cumsum(run.column("wall_seconds"))[stop - 1]),
        virtual_seconds=None if math.isnan(virtual) else float(virtual),
    )


def traffic(run: RecordedRun) -> Values:
    """Bytes up and down, of all clients, by the end of each round."""
    total: Values = np.cumsum(run.column("uplink_bytes") + run.column("downlink_bytes"))
    return total


def default_target(methods: Sequence[Method]) -> float:
    """90 % of the best accuracy of the worst method (mean over its seeds), rounded down to 0.1 %."""
    worst = min(method.spread("best_accuracy").mean for method in methods)
    return math.floor(900 * worst) / 1000
