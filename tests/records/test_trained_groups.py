"""The layer groups that rounds record, on runs of a fraction of a second."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from samples import without_checksums
from small import asynchronous, config

from fedbench.experiment.run import run
from fedbench.records.reader import load_run
from fedbench.records.trained_groups import numbered

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")


def test_each_client_counts_in_the_group_that_it_trained() -> None:
    result = run(config("schedule=per-client", "rounds=5", "runtime.executor=inline"))
    phases, counts = (result.history.column(name).to_pylist() for name in ("phase", "group_clients"))
    assert "partial" in phases
    for phase, of_round in zip(phases, counts, strict=True):
        assert of_round == [6] * 4 if phase == "full" else sum(of_round) == 6


def test_each_arrival_that_was_applied_counts_in_its_groups() -> None:
    partial = ("schedule=sequential", "schedule.warmup_rounds=0", "schedule.rounds_per_group=1", "rounds=3")
    result = run(asynchronous(*partial, "runtime.executor=inline"))
    of_rounds = zip(*(result.history.column(name).to_pylist() for name in ("clients", "group_clients")), strict=True)
    for arrivals, counts in of_rounds:
        assert sum(counts) == arrivals
    arrived = pq.read_table(result.directory / "events.parquet")
    in_group_0 = sum(group == 0 for group in arrived.column("group").to_pylist())
    assert sum(counts[0] for counts in result.history.column("group_clients").to_pylist()) == in_group_0 > 0


def test_a_table_of_an_earlier_version_is_read_without_them() -> None:
    directory = run(config("rounds=1", "schedule=full", "runtime.executor=inline")).directory
    file = Path(directory) / "rounds.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["group_clients"]), file)
    without_checksums(directory)
    assert load_run(directory)[1].column("group_clients").to_pylist() == [None]


def test_names_are_listed_with_the_numbers_of_the_tables() -> None:
    assert numbered(("stem", "layer1.0", "fc")) == "0: stem, 1: layer1.0, 2: fc"
