"""Jumps at aggregations by hand: only rounds of one phase that trained the same layer groups are compared."""

import pyarrow as pa
import pytest

from fedbench.records.metrics import METRICS
from fedbench.records.schema import ROUND_SCHEMA
from fedbench.records.step_jumps import geometric_mean, jumps


def rounds(*rows: tuple[str, list[int], float | None, float | None]) -> pa.Table:
    """A run's rounds from (phase, clients of each group, first norm, last norm)."""
    names = ("phase", "group_clients", "first_step_norm", "last_step_norm")
    records = [{"round": index} | dict(zip(names, row, strict=True)) for index, row in enumerate(rows)]
    return pa.Table.from_pylist(records, schema=ROUND_SCHEMA)


TABLE = rounds(
    ("full", [3, 3], 9.0, 2.0),
    ("full", [3, 3], 4.0, 1.0),
    ("partial", [3, 0], 5.0, 2.0),
    ("partial", [2, 0], 6.0, 3.0),
    ("partial", [0, 3], 7.0, 4.0),
    ("full", [3, 3], 8.0, 4.0),
    ("full", [3, 2], 2.0, 1.0),
)


def test_jumps_compare_the_first_step_with_the_last_one_of_the_round_before() -> None:
    assert jumps(TABLE, "step_norm", "full") == [None, 2.0, None, None, None, None, 0.5]
    assert jumps(TABLE, "step_norm", "partial") == [None, None, None, 3.0, None, None, None]


def test_a_runs_jump_is_their_geometric_mean() -> None:
    full, partial = (METRICS[f"step_norm_jump_{phase}"].by_round(TABLE) for phase in ("full", "partial"))
    assert full == pytest.approx([None, 2, 2, 2, 2, 2, 1])
    assert partial == pytest.approx([None, None, None, 3, 3, 3, 3])
    assert geometric_mean([]) is None


def test_a_run_that_recorded_no_norms_has_no_jump() -> None:
    none = rounds(("full", [3, 3], None, None), ("full", [3, 3], None, None))
    assert METRICS["step_norm_jump_full"].by_round(none) == [None, None]
