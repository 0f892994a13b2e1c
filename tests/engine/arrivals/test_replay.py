"""The same run again: from its seed, and from the record of its arrivals."""

from pathlib import Path

import pytest
from arrival_runs import followed
from async_cases import SEQUENTIAL, config_with, events_of, inline, without_wall

from fedbench.errors import ConfigError, RunError
from fedbench.experiment.run import run

pytestmark = pytest.mark.usefixtures("run_folder")

REPLAYED = {
    "virtual": (),
    "wall": ("delays.clock=wall",),
    "wall in lock-step": ("delays.clock=wall", "algorithm=ssgdm"),
    "lost works": ("delays.drop_rate=0.3", "delays.away_seconds=2", "delays.arrivals_per_round=7"),
    "more clients than slots": ("data.clients=6", "delays.concurrency=3", *SEQUENTIAL, "algorithm=dana-zero"),
    "seconds": ("delays.seconds_per_round=1.7", *SEQUENTIAL),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_a_replay_is_the_run_again(name: str) -> None:
    config = inline(*REPLAYED[name])
    recorded = run(config)
    replayed = run(config_with(config, f"delays.replay={recorded.directory / 'events.parquet'}"))
    assert replayed.summary["model_sha256"] == recorded.summary["model_sha256"]
    assert without_wall(replayed) == without_wall(recorded)
    assert replayed.summary["config_hash"] == recorded.summary["config_hash"]
    for column in ("virtual_seconds", "test_accuracy", "staleness_mean", "downlink_bytes", "client_flops"):
        assert replayed.history[column].equals(recorded.history[column]), column


def test_works_done_one_after_the_other_arrive_in_the_order_they_were_given_out() -> None:
    events = events_of(run(inline("delays.clock=wall")))
    assert [event["worker"] for event in events] == [0, 1, 2, 3] * 3
    times = [event["arrived_seconds"] for event in events]
    assert times == sorted(set(times))
    assert 0 < times[0] < times[-1] < 60


def test_an_order_of_arrivals_can_be_followed_by_another_method() -> None:
    """What methods are compared on, when the clock is the wall's."""
    config = inline("delays.clock=wall")
    recorded = run(config)
    replay = f"delays.replay={recorded.directory / 'events.parquet'}"
    other = run(inline("delays.clock=wall", "algorithm=asgd", replay))
    assert [event["worker"] for event in events_of(other)] == [event["worker"] for event in events_of(recorded)]
    assert other.summary["model_sha256"] != recorded.summary["model_sha256"]


def test_a_log_that_does_not_fit_ends_the_run(run_folder: Path) -> None:
    recorded = run(inline("data.clients=6", "delays.concurrency=2"))
    replay = f"delays.replay={recorded.directory / 'events.parquet'}"
    with pytest.raises(
        ConfigError, match=r"^delays\.replay=.*worker \d has client \d there and \d here; replay it with"
    ):
        run(inline("data.clients=5", "delays.concurrency=2", replay))
    with pytest.raises(RunError, match=r"^delays\.replay=.*: ends before the run does; lower rounds"):
        run(inline("data.clients=6", "delays.concurrency=2", "rounds=4", replay))


def test_a_configuration_is_the_same_whether_it_is_replayed(tmp_path: Path) -> None:
    base = inline().digest()
    assert inline("delays.replay=somewhere/events.parquet").digest() == base
    changes = ("delays.distribution=constant", "delays.clock=wall", "delays.concurrency=3", "delays.work=delta")
    digests = {inline(change).digest() for change in changes} | {base}
    assert len(digests) == len(changes) + 1


def test_same_seed_same_run() -> None:
    config = inline("data.clients=6", "delays.concurrency=3", *SEQUENTIAL)
    first, second, other = followed(config), followed(config), followed(config_with(config, "seed=1"))
    assert first.digest == second.digest
    assert first.plain() == second.plain()
    assert first.digest != other.digest
    assert [one.worker for one in first.arrivals] != [one.worker for one in other.arrivals]
