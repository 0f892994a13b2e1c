"""Participants that take longer than the round's deadline."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small import config
from warm_pools import WarmPools

from fedbench.engine.on_ray import rounds as ray_rounds
from fedbench.errors import ConfigError
from fedbench.experiment.result import Result
from fedbench.experiment.run import run

ONE_SLOW = (
    "data.partition=shards", "data.partition.shards_per_client=1", "data.clients=10", "rounds=2", "schedule=full",
    "algorithm=small:Slow", "local.epochs=null", "local.steps=2",
)  # fmt: skip
LATE = ("algorithm.seconds=4", "participation.round_deadline=6")  # of two steps


def rows(result: Result) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(result.directory / "clients.parquet").to_pylist()
    return table


@pytest.mark.slow
@pytest.mark.usefixtures("run_folder")
def test_a_slow_client_is_dropped_recorded_and_the_record_gives_the_same_model_again(warm_pools: WarmPools) -> None:
    result = warm_pools.run(config(*ONE_SLOW, *LATE, "runtime.actors=2"))
    dropped = [row for row in rows(result) if row["status"] == "dropped"]
    assert {row["round"] for row in dropped} == {0, 1}
    assert all(row["uplink_bytes"] == 0 and row["flops"] == 0 and row["downlink_bytes"] > 0 for row in dropped)
    assert result.history.column("dropped_clients").to_pylist() == [1, 1]
    assert result.summary["dropped_clients"] == 2
    replay = f"participation.replay={result.directory / 'clients.parquet'}"
    again = run(config(*ONE_SLOW, "runtime.executor=inline", "algorithm.seconds=0", LATE[1], replay))
    assert again.summary["model_sha256"] == result.summary["model_sha256"]
    assert [row["status"] for row in rows(again)] == [row["status"] for row in rows(result)]


@pytest.mark.slow
@pytest.mark.usefixtures("run_folder")
def test_clients_that_never_come_back_are_given_up_with_their_actor(
    monkeypatch: pytest.MonkeyPatch, warm_pools: WarmPools
) -> None:
    monkeypatch.setattr(ray_rounds, "HANG_GRACE", 1.0)
    hanging = ("algorithm.seconds=10000", "participation.round_deadline=3", "rounds=1")
    result = warm_pools.run(config(*ONE_SLOW, *hanging, "runtime.actors=2"))
    assert result.summary["status"] == "finished"
    assert 5 <= result.summary["dropped_clients"] < 10
    assert any("did not come back from their training" in warning for warning in result.warnings)


@pytest.mark.usefixtures("run_folder")
def test_a_deadline_that_everyone_meets_changes_nothing_but_the_configuration() -> None:
    plain = run(config("rounds=1", "runtime.executor=inline"))
    bounded = run(config("rounds=1", "runtime.executor=inline", "participation.round_deadline=1000"))
    assert bounded.summary["model_sha256"] == plain.summary["model_sha256"]
    assert bounded.summary["dropped_clients"] == 0


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["fedbuff-digits", "participation.round_deadline=3"], "which has no rounds"),
        (["quickstart", "participation.replay=clients.parquet"], "only with round_deadline"),
        (["quickstart", "participation.round_deadline=0"], "greater than 0"),
        (
            ["quickstart", "participation.round_deadline=3", "update.noise_multiplier=1", "update.clip_norm=1",
             "local.batchnorm=local", "algorithm.weighting=uniform"],
            "every share of noise must arrive",
        ),
    ],
)  # fmt: skip
def test_where_it_makes_no_sense_it_is_refused(overrides: list[str], complaint: str, run_folder: Path) -> None:
    from fedbench.config.experiment import ExperimentConfig

    with pytest.raises(ConfigError, match=complaint):
        run(ExperimentConfig.load(overrides[0], [*overrides[1:], "runtime.executor=inline"]))
    assert not list(run_folder.iterdir())


def test_a_configuration_is_the_same_whether_its_drops_are_followed() -> None:
    plain = config("participation.round_deadline=3")
    assert config("participation.round_deadline=3", "participation.replay=clients.parquet").digest() == plain.digest()
    assert config("participation.round_deadline=4").digest() != plain.digest()
