"""The tables that a convergence study leaves as Parquet: one row a run, and one row a fitted line."""

from collections.abc import Sequence

import pyarrow as pa

from fedbench.analysis.convergence.scalings import CountSlope, HorizonSlope
from fedbench.analysis.convergence.series import Measurement

MEASUREMENTS = pa.schema(
    [
        ("problem", pa.string()),
        ("series", pa.string()),
        ("theorem", pa.string()),
        ("groups", pa.int32()),
        ("clients", pa.int32()),
        ("workers", pa.int32()),
        ("local_steps", pa.int32()),
        ("delays", pa.string()),
        ("horizon", pa.int64()),
        ("seed", pa.int64()),
        ("step_size", pa.float64()),
        ("step_size_capped", pa.bool_()),
        ("masked_square", pa.float64()),
        ("whole_square", pa.float64()),
        ("bound", pa.float64()),
        ("largest_delay", pa.int64()),
        ("delay_sum", pa.int64()),
        ("delay_limit", pa.int64()),
    ]
)
"""`convergence.parquet`: one row a run. masked_square and whole_square: means over the T iterations of the squared norm
of the masked and of the whole gradient; masked_square is null in asynchronous series, workers where there are rounds.
bound: on masked_square, with its constants, null where it is not known. delay_limit: (K - 1) T."""

SLOPES = pa.schema(
    [
        ("problem", pa.string()),
        ("series", pa.string()),
        ("against", pa.string()),
        ("quantity", pa.string()),
        ("theorem_exponent", pa.float64()),
        ("exponent", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("seeds", pa.int32()),
        ("reading", pa.string()),
    ]
)
"""`slopes.parquet`: one row a fitted line. against: T, M, N or K. quantity: masked or whole. low, high: the interval
over seeds. reading: rate, or faster or slower than the theorem's exponent; null without a theorem or with fewer
than 3 seeds."""


def measurement_rows(measurements: Sequence[Measurement]) -> pa.Table:
    """The measurements with `MEASUREMENTS`."""
    rows = []
    for measured in measurements:
        series = measured.series
        rows.append(
            {
                "problem": series.problem,
                "series": series.label,
                "theorem": series.theorem,
                "groups": series.groups,
                "clients": series.clients,
                "workers": series.workers,
                "local_steps": series.steps,
                "delays": None if series.workers is None else series.delays,
                "horizon": measured.horizon,
                "seed": measured.seed,
                "step_size": measured.step_size,
                "step_size_capped": measured.capped,
                "masked_square": measured.masked,
                "whole_square": measured.whole,
                "bound": measured.bound,
                "largest_delay": measured.largest_delay,
                "delay_sum": measured.delay_sum,
                "delay_limit": None if series.workers is None else (series.workers - 1) * measured.horizon,
            }
        )
    return pa.Table.from_pylist(rows, schema=MEASUREMENTS)


def slope_rows(slopes: Sequence[HorizonSlope | CountSlope]) -> pa.Table:
    """The slopes with `SLOPES`."""
    rows = []
    for slope in slopes:
        values = slope.slope.values
        low, high = values.interval or (None, None)
        rows.append(
            {
                "problem": slope.problem,
                "series": slope.label,
                "against": slope.against,
                "quantity": slope.quantity,
                "theorem_exponent": slope.slope.expected,
                "exponent": values.mean,
                "low": low,
                "high": high,
                "seeds": values.n,
                "reading": slope.slope.reading,
            }
        )
    return pa.Table.from_pylist(rows, schema=SLOPES)
