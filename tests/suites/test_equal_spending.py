"""Columns that are read after equal spending."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from small_suites import BASE, plan_of, run, values, write_suite

from fedbench.errors import ConfigError
from fedbench.records.reader import load_run
from fedbench.suites.results import Outcomes

LAYERS = {
    "title": "Equal spending",
    "seeds": [0],
    "base": BASE,
    "rows": [
        {"name": "whole", "full_updates": True},
        {"name": "parts"},
        {"name": "rotating", "full_updates": True, "set": {"exchange": {"name": "rotate", "blocks": 2}}},
    ],
    "columns": [
        {"name": "all", "measure": "rounds"},
        {"name": "at equal bytes", "measure": "rounds", "until": {"equal": "bytes"}},
        {"name": "at equal FLOPs", "measure": "rounds", "until": {"equal": "flops"}},
        {"name": "sent", "measure": "sent_mb", "until": {"equal": "bytes"}},
    ],
}


def cumulative(outcomes: Outcomes, row: str, *columns: str) -> list[float]:
    digest = outcomes.plan.cells[row, "all"].runs[0]
    directory = outcomes.by_digest[digest].directory
    assert directory is not None
    rounds: pa.Table = load_run(directory)[1]
    totals = [pc.cumulative_sum(rounds.column(name)).to_pylist() for name in columns]
    return [sum(values) for values in zip(*totals, strict=True)]


def test_each_row_is_read_where_it_has_spent_what_the_cheapest_has(run_folder: Path) -> None:
    outcomes, _ = run(plan_of(write_suite(run_folder, LAYERS)))
    places = outcomes.plan.cells
    shown = {(row, column): values(outcomes, row, column)[0] for row, column in places}
    for column, spent in (
        ("at equal bytes", ("uplink_bytes", "downlink_bytes")),
        ("at equal FLOPs", ("client_flops",)),
    ):
        totals = {row: cumulative(outcomes, row, *spent) for row in ("whole", "parts", "rotating")}
        budget = min(of_row[-1] for of_row in totals.values())
        for row, of_row in totals.items():
            assert shown[row, column] == sum(total <= budget for total in of_row)
        assert 0 < shown["whole", column] < shown["parts", column] == shown["parts", "all"]
    assert shown["whole", "sent"] <= shown["parts", "sent"]
    assert "at equal FLOPs: after as many FLOPs of the clients as the row with the fewest" in " ".join(
        outcomes.to_mapping()["notes"]
    )


def test_a_place_to_read_is_named_once(run_folder: Path) -> None:
    columns = [{"name": "x", "measure": "rounds", "until": {"equal": "bytes", "round": 3}}]
    with pytest.raises(ConfigError, match="cycle=None, round=3 and equal=bytes: set one of the three"):
        plan_of(write_suite(run_folder, LAYERS, columns=columns))
