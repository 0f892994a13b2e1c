"""Clients beyond their device's memory are refused, or train as many layer groups as fit."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from small import config
from warm_pools import WarmPools

from fedbench.accounting.memory import peak_training_bytes
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.device_memory import fitting_windows
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import run
from fedbench.experiment.setup import build_problem
from fedbench.models.groups import build_module, derive_layer_groups

pytestmark = pytest.mark.usefixtures("run_folder", "no_figures", "flops_counted_once")

PER_CLIENT = ("schedule=per-client", "schedule.warmup_rounds=0", "schedule.full_rounds_between_cycles=0")
BY_MEMORY = (*PER_CLIENT, "participation.capacities=memory", "data.samples_per_client=64")


def on_devices(*memories: int | None) -> tuple[str, ...]:
    """Options by which clients 0, 1, ... are on devices with so many bytes, in turns; None: not known."""
    figures = [
        f"d{place}: {{flops_per_second: 1e+9" + ("}" if size is None else f", memory_bytes: {size}}}")
        for place, size in enumerate(memories)
    ]
    clients = ", ".join(f"d{client % len(memories)}+lte" for client in range(6))
    devices = f"delays.profile.devices={{{', '.join(figures)}}}"
    return devices, f"delays.profile.clients=[{clients}]", "runtime.executor=inline"


def peaks(settings: ExperimentConfig) -> tuple[int, dict[tuple[int, ...], int]]:
    """The number of layer groups, and what consecutive ones need."""
    federation = load_federation(settings)
    module = build_module(settings.model, federation.task, 0)
    groups = derive_layer_groups(module, federation.task)
    count = len(groups)
    windows = {
        tuple(sorted((first + step) % count for step in range(length)))
        for first in range(count)
        for length in range(1, count + 1)
    }
    slots, samples = settings.local.optimizer.slots, settings.local.batch_size
    return count, {
        window: peak_training_bytes(module, groups, federation.task, window, samples, slots) for window in windows
    }


def test_who_cannot_train_the_network_is_named_with_what_it_needs_and_has() -> None:
    _, of_windows = peaks(config())
    whole = max(of_windows.values())
    run(config("rounds=1", "schedule=full", *on_devices(whole)))
    with pytest.raises(ConfigError) as error:
        run(config("rounds=1", "schedule=full", *on_devices(10 * whole, whole - 1)))
    assert "client 1 (d1+lte) needs" in str(error.value)
    assert f"needs {whole / 1e6:,.1f} MB to train the whole network and has {(whole - 1) / 1e6:,.1f} MB" in str(
        error.value
    )
    assert "participation.capacities=memory with schedule=per-client" in str(error.value)
    assert "\n" not in str(error.value)


def test_only_what_is_trained_must_fit() -> None:
    """Layer by layer less memory is enough; with a full round before it is not."""
    count, of_windows = peaks(config())
    single = max(of_windows[group,] for group in range(count))
    assert single < of_windows[tuple(range(count))]
    layer_by_layer = ("schedule=sequential", "schedule.full_rounds_between_cycles=0", *on_devices(single))
    run(config(*layer_by_layer, "rounds=2", "schedule.warmup_rounds=0"))
    with pytest.raises(ConfigError, match="to train the whole network"):
        run(config(*layer_by_layer))
    run(config(*PER_CLIENT, "rounds=1", *on_devices(single)))


def test_a_device_of_unknown_memory_is_not_checked() -> None:
    run(config("rounds=1", *on_devices(None)))


def test_as_many_layer_groups_as_fit_are_trained() -> None:
    settings = config(*BY_MEMORY)
    count, of_windows = peaks(settings)
    small = int(np.mean([of_windows[0,], of_windows[0, 1]]))
    large = int(np.mean([of_windows[0, 1], of_windows[tuple(range(count - 1))]]))
    settings = config(*BY_MEMORY, *on_devices(small, large, 10 * large))
    problem = build_problem(settings, load_federation(settings))
    windows = problem.server.clients.windows
    for client, memory in enumerate((small, large, 10 * large)):
        for first, window in enumerate(windows[client]):
            following = tuple(sorted({*window, (first + len(window)) % count}))
            if window:
                assert of_windows[window] <= memory
            assert len(window) == count or of_windows[following] > memory
    assert len(windows[0][0]) == 1
    assert len(windows[2][0]) == count
    result, foreseen = run(settings), estimate(settings)
    assert result.summary["uplink_bytes"] == foreseen.total.uplink_bytes
    assert result.summary["client_flops"] == foreseen.total.client_flops
    sent = pq.read_table(result.directory / "clients.parquet").to_pylist()
    totals = [sum(row["uplink_bytes"] for row in sent if row["client"] == client) for client in range(3)]
    assert totals[0] < totals[1] < totals[2]


def test_with_enough_memory_clients_train_the_whole_network() -> None:
    settings = config(*BY_MEMORY, *on_devices(10**9))
    problem = build_problem(settings, load_federation(settings))
    count = problem.layout.groups
    assert all(window == tuple(range(count)) for window in problem.server.clients.windows[0])


@pytest.mark.slow
def test_the_model_is_the_same_on_actors(warm_pools: WarmPools) -> None:
    _, of_windows = peaks(config(*BY_MEMORY))
    options = (*BY_MEMORY, *on_devices(of_windows[0, 1], of_windows[1,]))
    expected = run(config(*options)).summary["model_sha256"]
    on_ray = ("runtime.executor=ray", "runtime.actors=2", "runtime.cpus_per_client=0.1")
    assert warm_pools.run(config(*options, *on_ray)).summary["model_sha256"] == expected


def test_windows_are_the_longest_that_fit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(1, 8))
        costs, budget = rng.integers(1, 9, count), int(rng.integers(1, 25))
        windows = fitting_windows(count, lambda groups, costs=costs, budget=budget: costs[list(groups)].sum() <= budget)
        for first in range(count):
            lengths = [
                length
                for length in range(count + 1)
                if sum(costs[(first + step) % count] for step in range(length)) <= budget
            ]
            expected = {(first + step) % count for step in range(max(lengths))}
            assert set(windows[first]) == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (BY_MEMORY, "participation.capacities=memory: the memory is that of delays.profile"),
        ((*BY_MEMORY, *on_devices(None)), r"the device of client 0 \(d0\+lte\) has no memory_bytes"),
        ((*BY_MEMORY, *on_devices(10**9, 1000)), r"client 1 \(d1\+lte\) could train no layer group: the least needs"),
        (("schedule=full", "participation.capacities=memory", *on_devices(10**9)), "schedule.name=full does not keep"),
        (
            ("schedule=selective", "participation.capacities=memory", *on_devices(10**9)),
            "schedule.name=selective: what layer groups need together is no sum",
        ),
        (
            ("participation.capacities={memory: true, shares: [0.5]}",),
            r"capacities.shares=\[0.5\]: has no effect with memory=true",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        run(config(*overrides, "runtime.executor=inline"))
    assert "\n" not in str(error.value)
