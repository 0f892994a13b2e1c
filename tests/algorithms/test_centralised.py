"""Centralised training: a plain loop over all rows, FedAvg with one client, and the same on any number of actors."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from broken_runs import CopyAfter, load, tables
from plain_training import accuracy, images, new_module, train_round
from warm_pools import WarmPools

from fedbench import ConfigError, resume
from fedbench.errors import RunError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.result import Result
from fedbench.experiment.run import run

pytestmark = pytest.mark.usefixtures("run_folder")
CENTRALISED = "algorithm=centralised"
UNEVEN = ("data.samples_per_client=null", "data.partition=dirichlet", "data.partition.alpha=0.5")


@pytest.mark.slow
def test_it_is_a_plain_loop_over_all_rows() -> None:
    config = load(CENTRALISED, "rounds=3", "local.optimizer.momentum=0.9")
    federation = load_federation(config)
    (rows,) = federation.rows
    assert len(rows) == 6 * 20
    module, data = new_module(config, federation), images(config, federation)
    for r in range(3):
        train_round(module, config, data, rows, r, client=0, steps=12)
    result = run(config)
    trained = module.state_dict()
    for name, values in result.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(values.numpy(), trained[name].numpy(), rtol=0, atol=1e-6)
    score = accuracy(module, images(config, federation, "test"))
    assert result.summary["final_accuracy"] == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("local.epochs=2", "local.optimizer=adam", "model=cnn-bn", "local.batchnorm=local", "model.width=2"),
        ("schedule=sequential", "schedule.warmup_rounds=1", "local.steps=5"),
        ("data.samples_per_client=31", "model=cnn-bn", "model.width=2"),
    ],
    ids=["plain", "own statistics", "partial, by steps", "a last row left out"],
)
def test_with_one_client_it_is_fedavg_bit_for_bit(overrides: tuple[str, ...]) -> None:
    alone = ("data.clients=1", *overrides)
    expected, result = run(load("algorithm=fedavg", *alone)), run(load(CENTRALISED, *alone))
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert result.summary["client_flops"] == expected.summary["client_flops"]


def test_a_run_that_fails_before_its_first_round_ends_says_why() -> None:
    with pytest.raises(RunError, match=r"round 1: .*lower local\.optimizer\.lr"):
        run(load(CENTRALISED, "rounds=2", "local.optimizer.lr=1e30"))


def samples_by_round(result: Result) -> list[int]:
    """The samples that the participants of each round have passed through, with one pass over the rows a round."""
    clients = pq.read_table(result.directory / "clients.parquet").to_pylist()
    rounds = range(result.summary["rounds"])
    return [sum(row["samples"] for row in clients if row["round"] == index) for index in rounds]


@pytest.mark.slow
def test_all_clients_rows_are_seen_once_a_round_however_they_were_divided() -> None:
    two = "rounds=2"
    even, uneven = run(load(CENTRALISED, two, "data.samples_per_client=null")), run(load(CENTRALISED, two, *UNEVEN))
    assert even.summary["model_sha256"] == uneven.summary["model_sha256"]
    federated = samples_by_round(run(load(two, *UNEVEN)))
    assert samples_by_round(uneven) == federated
    assert {row["steps"] for row in tables(uneven.directory)["clients.parquet"]} == {-(-federated[0] // 10)}


def test_a_round_has_the_samples_of_the_mean_cohort() -> None:
    partial = (*UNEVEN, "participation.clients_per_round=2", "rounds=3")
    federated = samples_by_round(run(load(*partial)))
    rows = tables(run(load(CENTRALISED, *partial)).directory)["clients.parquet"]
    assert {row["steps"] for row in rows} == {round(sum(federated) / len(federated) / 10)}


def test_rows_that_clients_share_are_there_once() -> None:
    shared = ("data.overlap=true", "data.samples_per_client=1200")
    federation = load_federation(load(CENTRALISED, *shared))
    held = load_federation(load(*shared)).rows
    np.testing.assert_array_equal(federation.rows[0], np.unique(np.concatenate(held)))
    assert federation.pooled_sizes == (1200,) * 6


@pytest.mark.parametrize(
    "overrides", [(), ("schedule=sequential", "schedule.warmup_rounds=1")], ids=["full", "partial"]
)
def test_its_rows_travel_once_and_the_cost_is_foreseen(overrides: tuple[str, ...]) -> None:
    config = load(CENTRALISED, "participation.clients_per_round=3", *overrides)
    result, foreseen = run(config), estimate(config)
    sent = 6 * 20 * (8 * 8 * 1 + 8)  # inputs as uint8, labels as int64
    history = result.history.to_pylist()
    assert [row["uplink_bytes"] for row in history] == [sent, 0, 0, 0, 0]
    assert [row["downlink_bytes"] for row in history] == [0] * 5
    assert [cost.uplink_bytes for cost in foreseen.per_round] == [sent, 0, 0, 0, 0]
    assert foreseen.total.downlink_bytes == 0
    assert foreseen.total.client_flops == result.summary["client_flops"]
    assert result.summary["paper_comm_gb"] is None


@pytest.mark.parametrize(
    "option",
    [
        "server=fedadam",
        "server=median",
        "update.clip_norm=1.0",
        "update.compression=int8",
        "participation.round_deadline=5",
        "server=ormo",
        "exchange=rotate",
        "participation.byzantine=sign-flip",
    ],
)
def test_options_on_updates_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="centralised"):
        run(load(CENTRALISED, option))
    with pytest.raises(ConfigError, match="centralised"):
        run(load("algorithm=fedprox", "server=centralised"))


@pytest.mark.slow
def test_a_run_on_actors_or_resumed_leaves_the_same_model(warm_pools: WarmPools) -> None:
    expected = run(load(CENTRALISED, "output.directory=whole"), [CopyAfter(3, "broken")]).summary
    on_actors = warm_pools.run(load(CENTRALISED, "runtime.executor=ray", "runtime.actors=3"))
    assert on_actors.summary["model_sha256"] == expected["model_sha256"]
    assert on_actors.summary["final_accuracy"] == expected["final_accuracy"]
    assert resume("broken").summary["model_sha256"] == expected["model_sha256"]
    assert tables(Path("whole")) == tables(Path("broken"))
