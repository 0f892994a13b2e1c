"""Recorded step norms: the same on any number of actors, through a resume, and without a trace in the model."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from small import asynchronous, config
from warm_pools import WarmPools

from fedbench import resume
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.run import Result, run
from fedbench.records.measured import STEP_SCHEMA, STEPS
from fedbench.records.reader import load_measured
from fedbench.records.recorded_run import read_run
from fedbench.records.schema import STEP_FIGURES

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once")

ON = "analysis.step_norms=true"
FEW = "data.samples_per_client=60"

KINDS = {
    "full updates": ("schedule=full", "local.optimizer=sgd", "local.optimizer.lr=0.05"),
    "partial updates": (),
    "another group for each client": ("schedule=per-client", "participation.clients_per_round=4"),
    "SCAFFOLD": ("algorithm=scaffold", "local.optimizer=sgd", "local.optimizer.lr=0.05"),
    "FedMR": ("algorithm=fedmr", "algorithm.first_stage_rounds=1"),
    "slots": ("runtime.slots=3",),
}


def inline(*overrides: str) -> Result:
    return run(config("rounds=3", "runtime.executor=inline", *overrides))


def steps_of(result: Result) -> pa.Table:
    return load_measured(result.directory, STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_step_norms_leave_no_trace_in_the_model(kind: str, no_figures: None) -> None:
    with_norms, without = inline(ON, FEW, *KINDS[kind]), inline(FEW, *KINDS[kind])
    assert with_norms.summary["model_sha256"] == without.summary["model_sha256"]
    assert not (without.directory / STEPS).exists()
    assert with_norms.history.drop_columns(STEP_FIGURES).column("train_loss").equals(without.history["train_loss"])


@pytest.mark.slow
def test_the_table_has_every_step_whole_and_by_group_and_the_rounds_sum_it_up() -> None:
    result = inline(ON)
    steps, rounds = steps_of(result), result.history
    assert steps.schema == STEP_SCHEMA
    assert (result.directory / "plots" / "step_norms.png").exists()
    for row in rounds.to_pylist():
        of_round = steps.filter(pc.equal(steps["round"], row["round"]))
        trained = [group for group, count in enumerate(row["group_clients"]) if count]
        assert pc.unique(of_round["group"]).to_pylist() == [-1, *trained]
        whole = of_round.filter(pc.equal(of_round["group"], -1)).to_pylist()
        assert [step["step"] for step in whole] == list(range(len(whole)))
        assert row["first_step_norm"] == pytest.approx(whole[0]["step_norm_mean"])
        weighted = sum(step["gradient_norm_mean"] * step["clients"] for step in whole)
        assert row["gradient_norm"] == pytest.approx(weighted / sum(step["clients"] for step in whole))


def test_the_rows_survive_a_resume(no_figures: None) -> None:
    whole = inline(ON, FEW)
    rounds: list[int] = []

    def after_two() -> bool:
        rounds.append(1)
        return len(rounds) >= 2

    part = run(config("rounds=3", "runtime.executor=inline", ON, FEW), should_stop=after_two)
    assert part.summary["status"] == "interrupted"
    assert steps_of(resume(part.directory)).equals(steps_of(whole))


def test_a_table_that_was_changed_is_refused(no_figures: None) -> None:
    directory = inline(ON, FEW).directory
    read_run(directory)
    pq.write_table(pq.read_table(directory / STEPS).slice(1), directory / STEPS)
    with pytest.raises(DataError, match=r"steps\.parquet: is not as the run wrote it"):
        read_run(directory)


OnRay = Callable[..., Result]


@pytest.mark.slow
def test_the_table_is_the_same_on_any_number_of_actors(warm_pools: WarmPools, no_figures: None) -> None:
    dealt = ("data.partition=dirichlet", "data.partition.alpha=0.5", "data.test_fraction=0.75")
    skewed = (ON, *dealt, "schedule=per-client")
    expected = steps_of(inline(*skewed))
    for actors in (1, 3):
        overrides = ("rounds=3", f"runtime.actors={actors}", "runtime.cpus_per_client=0.1", *skewed)
        assert steps_of(warm_pools.run(config(*overrides))).equals(expected), actors


def test_an_asynchronous_run_has_no_step_norms() -> None:
    with pytest.raises(ConfigError, match=r"analysis\.step_norms=true: an asynchronous run has no rounds to compare"):
        asynchronous(ON)


def test_measures_are_part_of_a_runs_identity_only_where_there_are_any() -> None:
    """So that runs of earlier versions are what they were, and a run without a table never stands for one with it."""
    off, on = config(), config(ON)
    assert "analysis" not in off.to_mapping() or off.digest() == config("analysis.step_norms=false").digest()
    assert off.digest() != on.digest()


@pytest.mark.slow
def test_the_cost_of_step_norms_is_foreseen() -> None:
    (cost,) = estimate(config("rounds=3", ON, FEW)).measures
    assert cost.name == "step_norms"
    assert 0 < cost.share_of_work < 0.1
    rows = steps_of(inline(ON, FEW))
    assert cost.table_bytes == rows.num_rows * 8 * len(rows.column_names)
    assert estimate(config("rounds=3")).measures == ()


def test_a_path_for_the_tables_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        load_measured(tmp_path, STEPS)
