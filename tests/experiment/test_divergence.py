"""How far a round's updates point apart: as kept messages say, the same everywhere, and a schedule may follow it."""

import math

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file
from small import asynchronous, config
from warm_pools import WarmPools

from fedbench import resume
from fedbench.errors import ConfigError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import Result, run
from fedbench.experiment.setup import build_problem
from fedbench.records.kept import message_name
from fedbench.records.measured import DIVERGENCE, DIVERGENCE_SCHEMA
from fedbench.records.reader import load_measured

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")

ON = "analysis.divergence=true"
FEW = "data.samples_per_client=60"
SGD = ("local.optimizer=sgd", "local.optimizer.lr=0.05")
SKEWED = ("data.partition=dirichlet", "data.partition.alpha=0.5", "data.test_fraction=0.75")
"""Such a partition deals out every row that is not held out for testing."""
FOLLOWING = ("schedule=discrepancy", "schedule.cycles=1", "rounds=5", FEW)

KINDS = {
    "full updates": ("schedule=full", FEW, *SGD),
    "partial updates of clients that differ in size": SKEWED,
    "another group for each client": ("schedule=per-client", "participation.clients_per_round=4", FEW),
    "SCAFFOLD": ("algorithm=scaffold", FEW, *SGD),
    "FedAdam": ("algorithm=fedadam", FEW, *SGD),
    "median": ("server=median", FEW),
    "int8 compression in slots": ("update.compression=int8", "runtime.slots=3", FEW),
}


def inline(*overrides: str) -> Result:
    return run(config("rounds=3", "runtime.executor=inline", *overrides))


def table_of(result: Result) -> pa.Table:
    return load_measured(result.directory, DIVERGENCE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_comparing_updates_leaves_no_trace_in_the_model(kind: str) -> None:
    compared, plain = inline(ON, *KINDS[kind]), inline(*KINDS[kind])
    assert compared.summary["model_sha256"] == plain.summary["model_sha256"]
    assert compared.summary["uplink_bytes"] == plain.summary["uplink_bytes"]
    assert not (plain.directory / DIVERGENCE).exists()
    assert plain.history["update_cosine"].null_count == 3
    assert table_of(compared).schema == DIVERGENCE_SCHEMA


def test_the_table_is_what_the_kept_messages_say() -> None:
    clients = list(range(6))
    result = inline(ON, *SKEWED, "runtime.keep_models=[1,2,3]", f"runtime.keep_messages={clients}")
    problem = build_problem(config(*SKEWED), load_federation(config(*SKEWED)))
    layout, sizes = problem.layout, problem.federation.sizes
    weights = np.array(sizes) / sum(sizes)
    for row in table_of(result).to_pylist():
        sent = [load_file(result.directory / message_name(row["round"] + 1, client)) for client in clients]
        names = [slot.name for slot in layout.slots if row["group"] in (-1, slot.group) and slot.name in sent[0]]
        updates = np.array([np.concatenate([one[name].ravel() for name in names]) for one in sent], np.float64)
        mean = weights @ updates
        lengths = np.linalg.norm(updates, axis=1)
        assert row["clients"] == clients
        assert row["cosines"] == pytest.approx(updates @ mean / lengths / np.linalg.norm(mean), rel=1e-4)
        assert row["cosine_mean"] == pytest.approx(np.mean(row["cosines"]))
        apart = weights @ ((updates - mean) ** 2).sum(axis=1)
        assert row["discrepancy"] == pytest.approx(apart / updates.shape[1], rel=1e-3)
        cancelled = 1 - np.linalg.norm(mean) / math.sqrt(weights @ lengths**2)
        assert row["cancelled_share"] == pytest.approx(cancelled, rel=1e-3)
        if row["group"] == -1:
            assert result.history["cancelled_share"][row["round"]].as_py() == row["cancelled_share"]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["schedule=per-client", "schedule=discrepancy"])
def test_table_and_model_are_the_same_on_any_number_of_actors(schedule: str, warm_pools: WarmPools) -> None:
    overrides = (ON, *SKEWED, schedule)
    expected = inline(*overrides)
    for actors in (1, 3):
        wide = ("rounds=3", f"runtime.actors={actors}", "runtime.cpus_per_client=0.1")
        result = warm_pools.run(config(*wide, *overrides))
        assert table_of(result).equals(table_of(expected)), actors
        assert result.summary["model_sha256"] == expected.summary["model_sha256"]


@pytest.mark.slow
def test_a_schedule_that_follows_discrepancies_goes_on_after_a_resume() -> None:
    whole = inline(*FOLLOWING, ON)
    rounds: list[int] = []

    def after_three() -> bool:
        rounds.append(1)
        return len(rounds) >= 3

    part = run(config("runtime.executor=inline", *FOLLOWING, ON), should_stop=after_three)
    resumed = resume(part.directory)
    assert resumed.summary["model_sha256"] == whole.summary["model_sha256"]
    assert table_of(resumed).equals(table_of(whole))


def test_the_group_in_which_clients_differ_most_comes_next() -> None:
    """After the full round each visit is to the group whose discrepancy was the largest when it was last trained."""
    result = inline(*FOLLOWING, ON)
    known: dict[int, float] = {}
    table = table_of(result).to_pylist()
    for index, group in enumerate(result.history["group"].to_pylist()):
        if index:
            assert group == max(known, key=known.__getitem__)
        known |= {row["group"]: row["discrepancy"] for row in table if row["round"] == index and row["group"] >= 0}


def test_the_schedule_alone_records_nothing_and_trains_the_same() -> None:
    followed, recorded = inline(*FOLLOWING), inline(*FOLLOWING, ON)
    assert followed.summary["model_sha256"] == recorded.summary["model_sha256"]
    assert not (followed.directory / DIVERGENCE).exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((ON, "algorithm=fedmr"), r"analysis\.divergence=true: the clients of fedmr start from different models"),
        (("schedule=discrepancy", "algorithm=fedmr"), r"schedule\.name=discrepancy: the clients of fedmr"),
        ((ON, "participation.clients_per_round=1"), "of which there is one"),
        ((ON, "runtime.combine=node"), r"runtime\.combine=node: analysis\.divergence=true looks at single updates"),
    ],
)
def test_what_has_no_mean_update_is_refused(overrides: tuple[str, ...], message: str) -> None:
    refused = config(*overrides)
    with pytest.raises(ConfigError, match=message):
        build_problem(refused, load_federation(refused))


def test_an_asynchronous_run_has_no_divergence() -> None:
    with pytest.raises(ConfigError, match=r"analysis\.divergence=true: an asynchronous run has no rounds to compare"):
        asynchronous(ON)


def test_the_cost_of_comparing_updates_is_foreseen() -> None:
    (cost,) = estimate(config("rounds=3", ON)).measures
    assert cost.name == "divergence"
    assert 0 < cost.share_of_work < 0.1
    layout = build_problem(config(), load_federation(config())).layout
    assert cost.server_bytes == 6 * 4 * layout.size
