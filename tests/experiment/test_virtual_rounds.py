"""Runs on devices: virtual seconds and joules by hand, on any number of actors, resumed, and foreseen."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from small import asynchronous, config
from traces import a_trace
from warm_pools import WarmPools

from fedbench.errors import ConfigError, RunError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.result import Result
from fedbench.experiment.run import resume, run
from fedbench.records.metrics import METRICS, spent_to_reach
from fedbench.records.recorded_run import RecordedRun, read_run

pytestmark = pytest.mark.usefixtures("no_figures", "flops_counted_once")

DEVICES = (
    "delays.profile.devices={fast: {flops_per_second: 1e+9, joules_per_flop: 1e-9}, "
    "slow: {flops_per_second: 1e+8, joules_per_flop: 3e-9}}"
)
LINKS = (
    "delays.profile.links={near: {down_bytes_per_second: 1e+6, up_bytes_per_second: 5e+5, latency_seconds: 0.01, "
    "joules_per_byte_down: 1e-6, joules_per_byte_up: 2e-6}}"
)
EVERY_ROW = "data.samples_per_client=null"
"""So many steps that the slow device misses the deadlines below."""
MIXED = (DEVICES, LINKS, "delays.profile.profiles=[fast+near, slow+near]", EVERY_ROW, "runtime.executor=inline")
HALF = "participation.clients_per_round=3"
VIRTUAL = ("virtual_start", "virtual_download_seconds", "virtual_compute_seconds", "virtual_upload_seconds", "joules")


def clients_of(result: Result) -> list[dict[str, Any]]:
    return read_clients(result).to_pylist()


def read_clients(result: Result) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(result.directory / "clients.parquet")


def test_two_clients_by_hand() -> None:
    """Each round lasts as long as its slower client, by bytes and FLOPs that the same row states."""
    two = (DEVICES, LINKS, "delays.profile.clients=[fast+near, slow+near]", "data.clients=2", "runtime.executor=inline")
    result = run(config(*two))
    rows = clients_of(result)
    speed, per_flop = (1e9, 1e8), (1e-9, 3e-9)
    clock, joules = 0.0, 0.0
    for record in result.history.to_pylist():
        ends = []
        for row in rows[2 * record["round"] : 2 * record["round"] + 2]:
            down, up, flops, client = row["downlink_bytes"], row["uplink_bytes"], row["flops"], row["client"]
            assert row["virtual_start"] == pytest.approx(clock)
            assert row["virtual_download_seconds"] == pytest.approx(0.01 + down / 1e6 if down else 0.0)
            assert row["virtual_compute_seconds"] == pytest.approx(flops / speed[client])
            assert row["virtual_upload_seconds"] == pytest.approx(0.01 + up / 5e5)
            assert row["joules"] == pytest.approx(flops * per_flop[client] + down * 1e-6 + up * 2e-6)
            ends.append(sum(row[name] for name in VIRTUAL[:4]))
        clock = max(ends)
        joules += record["joules"]
        assert record["virtual_seconds"] == pytest.approx(clock)
        assert record["joules"] == pytest.approx(sum(row["joules"] for row in rows if row["round"] == record["round"]))
        assert record["waited_seconds"] == 0.0
    assert result.summary["virtual_seconds"] == pytest.approx(clock)
    assert result.summary["joules"] == pytest.approx(joules)


def test_a_profile_changes_neither_the_model_nor_what_it_costs() -> None:
    plain = run(config(HALF, EVERY_ROW, "runtime.executor=inline"))
    on_devices = run(config(HALF, *MIXED))
    assert on_devices.summary["model_sha256"] == plain.summary["model_sha256"]
    costs = ("uplink_bytes", "downlink_bytes", "client_flops")
    assert [on_devices.summary[name] for name in costs] == [plain.summary[name] for name in costs]
    assert "virtual_seconds" not in plain.summary
    assert plain.history["virtual_seconds"].null_count == 4
    assert plain.history["joules"].null_count == 4


@pytest.mark.slow
def test_virtual_time_and_energy_are_foreseen() -> None:
    moon = ("algorithm=moon", "delays.deadline=5")
    for overrides in ((HALF,), moon, ("schedule=selective", "update.compression=int8"), ("delays.deadline=0.4", HALF)):
        settings = config(*MIXED, *overrides)
        foreseen, summary = estimate(settings), run(settings).summary
        assert foreseen.virtual_seconds == pytest.approx(summary["virtual_seconds"])
        assert foreseen.joules == pytest.approx(summary["joules"])
        assert foreseen.total.uplink_bytes == summary["uplink_bytes"]
        assert foreseen.total.downlink_bytes == summary["downlink_bytes"]
        assert foreseen.total.client_flops == summary["client_flops"]


def test_partial_updates_take_less_virtual_time_than_full_ones() -> None:
    foreseen = estimate(config(*MIXED))
    assert foreseen.virtual_seconds is not None
    assert foreseen.full_updates.virtual_seconds is not None
    assert foreseen.virtual_seconds < foreseen.full_updates.virtual_seconds
    assert foreseen.joules is not None
    assert foreseen.full_updates.joules is not None
    assert foreseen.joules < foreseen.full_updates.joules


def test_who_misses_the_deadline_is_dropped_and_the_round_ends_there() -> None:
    result = run(config(*MIXED, "delays.deadline=0.4", "rounds=2"))
    dropped = [row for row in clients_of(result) if row["status"] == "dropped"]
    assert result.history["dropped_clients"].to_pylist() == [3, 3]
    assert result.history["virtual_seconds"].to_pylist() == pytest.approx([0.4, 0.8])
    assert all(row["flops"] == row["uplink_bytes"] == 0 and row["joules"] > 0 for row in dropped)
    assert all(sum(row[name] for name in VIRTUAL[1:4]) == pytest.approx(0.4) for row in dropped)


def test_a_round_that_everyone_misses_ends_the_run_in_one_line() -> None:
    with pytest.raises(
        RunError, match=r"all 6 participants were not done within delays.deadline=0.001 virtual seconds"
    ):
        run(config(*MIXED, "delays.deadline=0.001"))


def test_only_clients_that_are_on_take_part_and_rounds_wait_for_them(tmp_path: Path) -> None:
    a_trace(tmp_path, [(0, 0.0, 1e6), (4, 0.0, 1e6), (5, 0.0, 0.05), (2, 100.0, 1e6)])
    trace = f"delays.availability={{name: trace, path: {tmp_path / 'trace.parquet'}}}"
    settings = config(*MIXED, HALF, trace)
    result = run(settings)
    cohorts = [
        {row["client"]: row["status"] for row in clients_of(result) if row["round"] == index} for index in range(4)
    ]
    assert cohorts[0] == {0: "ok", 4: "ok", 5: "dropped"}
    assert cohorts[1:] == [{0: "ok", 2: "ok", 4: "ok"}] * 3
    waited = result.history["waited_seconds"].to_pylist()
    assert waited[0] == 0.0
    assert waited[1] == pytest.approx(100.0 - result.history["virtual_seconds"].to_pylist()[0])
    assert waited[2:] == [0.0, 0.0]
    assert any("virtual seconds for enough clients to be on" in warning for warning in result.warnings)
    assert estimate(settings).virtual_seconds == pytest.approx(result.summary["virtual_seconds"])
    with pytest.raises(RunError, match="round 1: 5 clients are needed and at most"):
        run(config(*MIXED, "participation.clients_per_round=5", trace))


BY_CHANCE = (HALF, "delays.availability={on_seconds: 8, off_seconds: 2}", "delays.deadline=0.9")


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [BY_CHANCE, (*BY_CHANCE, "algorithm=moon"), (*BY_CHANCE, "algorithm=fedmr")])
def test_a_resumed_run_goes_on_at_its_time(overrides: tuple[str, ...]) -> None:
    whole, rounds = run(config(*MIXED, *overrides)), list[int]()

    def after_two() -> bool:
        rounds.append(1)
        return len(rounds) >= 2

    part = run(config(*MIXED, *overrides), should_stop=after_two)
    resumed = resume(part.directory)
    assert resumed.summary["model_sha256"] == whole.summary["model_sha256"]
    columns = ["virtual_seconds", "joules", "waited_seconds"]
    assert resumed.history.select(columns).equals(whole.history.select(columns))
    assert read_clients(resumed).select(list(VIRTUAL)).equals(read_clients(whole).select(list(VIRTUAL)))


@pytest.mark.slow
def test_the_clock_is_the_same_on_actors(warm_pools: WarmPools) -> None:
    shared = (*BY_CHANCE, "delays.uplink_groups={bytes_per_second: 3e+5, groups: 2}", "participation.sampler=weighted")
    expected = run(config(*MIXED, *shared))
    for actors in (1, 2):
        on_ray = ("runtime.executor=ray", f"runtime.actors={actors}", "runtime.cpus_per_client=0.1")
        result = warm_pools.run(config(*MIXED, *shared, *on_ray))
        assert result.summary["model_sha256"] == expected.summary["model_sha256"]
        assert result.summary["virtual_seconds"] == expected.summary["virtual_seconds"]
        assert read_clients(result).select(list(VIRTUAL)).equals(read_clients(expected).select(list(VIRTUAL)))


def test_time_and_energy_to_a_target_are_figures_of_the_run() -> None:
    recorded: RecordedRun = read_run(run(config(*MIXED)).directory)
    spent = spent_to_reach(recorded.rounds, 0.0, ["virtual_seconds", "joules"])
    first = recorded.rounds.to_pylist()[0]
    assert spent == {"virtual_seconds": first["virtual_seconds"], "joules": first["joules"]}
    assert METRICS["joules"].by_round(recorded.rounds)[-1] == pytest.approx(recorded.summary["joules"])
    assert not recorded.is_asynchronous


def test_without_an_energy_joules_are_not_recorded_and_that_is_said() -> None:
    one = run(config("delays.profile=macbook-air-m2+lte", "runtime.executor=inline", "rounds=1"))
    assert one.history["joules"].to_pylist() == [None]
    assert one.summary["joules"] is None
    assert any("macbook-air-m2+lte has no joules_per_flop" in warning for warning in one.warnings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm=centralised"], "delays.profile=... with algorithm.name=centralised: the rows are in one place"),
        (["participation.round_deadline=9"], "round_deadline=9 with delays.profile=...: real time would decide"),
        (["delays.mean_seconds=2"], "mean_seconds=2.0 has no effect with profile"),
        (["delays.concurrency=2"], "delays.concurrency=2: has no effect with algorithm.name=fedavg"),
        (["delays.profile.clients=[fast+near]", "delays.profile.profiles=null"], "has 1 profiles for data.clients=6"),
        (["algorithm=ormo", "delays.deadline=3", "schedule=full"], "delays.deadline=3.0: has no effect with"),
        (
            ["algorithm=ormo", "delays.uplink_groups={bytes_per_second: 1, groups: 1}", "schedule=full"],
            "delays.uplink_groups=...: has no effect with",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        run(config(*MIXED, *overrides))
    assert "\n" not in str(error.value)


def test_asynchronous_service_times_follow_from_bytes_and_flops() -> None:
    settings = asynchronous(DEVICES, LINKS, "delays.profile.profiles=[fast+near, slow+near]", "runtime.executor=inline")
    result = run(settings)
    rows = clients_of(result)
    import pyarrow.parquet as pq

    events = pq.read_table(result.directory / "events.parquet").to_pylist()
    for row, event in zip(rows, events, strict=True):
        spans = [row[name] for name in VIRTUAL[1:4]]
        assert event["arrived_seconds"] - event["dispatched_seconds"] == pytest.approx(sum(spans))
        assert row["virtual_start"] == event["dispatched_seconds"]
        assert row["virtual_upload_seconds"] == pytest.approx(0.01 + row["uplink_bytes"] / 5e5)
        assert row["virtual_compute_seconds"] in (pytest.approx(row["flops"] / 1e9), pytest.approx(row["flops"] / 1e8))
    assert result.summary["joules"] == pytest.approx(sum(row["joules"] for row in rows))
    foreseen = estimate(settings)
    assert foreseen.virtual_seconds == pytest.approx(result.summary["virtual_seconds"])
    assert foreseen.joules == pytest.approx(result.summary["joules"])


@pytest.mark.parametrize("slots", [(), ("data.clients=7", "delays.concurrency=3", "delays.arrivals_per_round=9")])
def test_asynchronous_clients_that_are_off_are_not_drawn_and_those_that_go_off_are_lost(slots: tuple[str, ...]) -> None:
    import pyarrow.parquet as pq

    from fedbench.planning.availability import Presence

    settings = asynchronous(
        DEVICES, LINKS, "delays.profile.profiles=[fast+near, slow+near]", "runtime.executor=inline",
        "delays.availability={on_seconds: 0.5, off_seconds: 0.5}", *slots,
    )  # fmt: skip
    whole = run(settings)
    availability = settings.delays.availability
    assert availability is not None
    presence = Presence(availability, settings.data.clients, settings.seed)
    events = pq.read_table(whole.directory / "events.parquet").to_pylist()
    assert {event["status"] for event in events} == {"ok", "lost"}
    for event in events:
        leaves = presence.on_until(event["client"], event["dispatched_seconds"])
        assert leaves > event["dispatched_seconds"]
        assert (event["status"] == "lost") == (event["arrived_seconds"] == leaves)
    part = run(settings, should_stop=lambda: True)
    assert resume(part.directory).summary["model_sha256"] == whole.summary["model_sha256"]


@pytest.mark.slow
def test_clients_that_are_never_on_long_enough_end_an_asynchronous_run() -> None:
    short = "delays.availability={on_seconds: 0.001, off_seconds: 0.001}"
    with pytest.raises(RunError, match="the last 10,001 tasks were lost"):
        run(asynchronous(DEVICES, LINKS, "delays.profile.profiles=[slow+near]", "runtime.executor=inline", short))
