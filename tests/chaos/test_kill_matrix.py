"""What clusters do to runs, method by method: each run ends with the model of the undisturbed one.

A loss of each kind is tried every time: of processes in test_losses.py, of a node in test_faults.py.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from disturbed import PRESET, SGD, SMALL, Outcome, fedbench_run, kill_at_work
from local_cluster import LocalCluster

from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.run import run
from fedbench.randomness import generator

ROUNDS = 12
METHODS = {
    "fedavg, partial": ("schedule=sequential", "schedule.warmup_rounds=2", "schedule.cycles=3"),
    "scaffold": ("algorithm=scaffold", "server=fedadam"),
    "moon": ("algorithm=moon", "model=cnn-bn"),
    "fedmr": ("algorithm=fedmr",),
    "median": ("algorithm=median",),
    "scaffold, node sums": ("algorithm=scaffold", "server=fedadam", "runtime.combine=node"),
    "ormo": ("algorithm=ormo", "delays.concurrency=4", "delays.arrivals_per_round=8"),
    "fedbuff": (
        "algorithm=fedbuff",
        "algorithm.buffer_size=4",
        "local.epochs=null",
        "local.steps=2",
        "delays.arrivals_per_round=8",
    ),
    "fedprox, ormo": (
        "algorithm=fedprox",
        "server=ormo",
        "local.epochs=null",
        "local.steps=2",
        "delays.arrivals_per_round=8",
    ),
}

pytestmark = [pytest.mark.exhaustive, pytest.mark.usefixtures("flops_counted_once", "no_figures")]


def lose_last_node(cluster: LocalCluster) -> None:
    cluster.kill_node(max(node.index for node in cluster.nodes if not node.killed))


FAULTS: dict[str, Callable[[LocalCluster], None]] = {
    "client": functools.partial(kill_at_work, title="ray::ClientActor"),
    "server": functools.partial(kill_at_work, title="ray::ArrivalServerActor"),
    "node": lose_last_node,
}


@functools.cache
def undisturbed(method: str, folder: Path) -> dict[str, object]:
    options = [text for text in METHODS[method] if not text.startswith("runtime.")]
    config = ExperimentConfig.load(
        PRESET,
        [*SMALL, *SGD, *options, f"rounds={ROUNDS}", "tracking.enabled=false", "runtime.executor=inline",
         f"output.directory={folder / method.replace(', ', '-')}"],
    )  # fmt: skip
    return run(config).summary


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_that_of_the_undisturbed_run(
    method: str,
    fault: str,
    cluster: LocalCluster,
    on_cluster: dict[str, str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    point = 2 + int(generator(0, f"{method} {fault}").integers(ROUNDS - 4))
    kill = FAULTS[fault]
    if fault == "server" and "ormo" not in method and method != "fedbuff":
        title = "ray::PoolServerActor" if method == "fedmr" else "ray::ServerActor"
        kill = functools.partial(kill_at_work, title=title)
    outcome = fedbench_run(
        tmp_path,
        on_cluster,
        *SMALL,
        *SGD,
        *METHODS[method],
        *[f"rounds={ROUNDS}", "tracking.enabled=false", "runtime.checkpoint_every=2", "output.directory=run"],
        events={point: lambda: kill(cluster)},
    )
    if fault == "node":
        cluster.add_node(cpus=1, resources={"right": 1})
    assert outcome.status == 0, outcome.text
    plain = undisturbed(method, tmp_path_factory.getbasetemp() / "undisturbed")
    for key in ("model_sha256", "uplink_bytes", "downlink_bytes", "client_flops", "final_accuracy", "rounds"):
        assert outcome.summary[key] == plain[key], (key, outcome.text)
    assert survived(outcome, method, fault)


def survived(outcome: Outcome, method: str, fault: str) -> bool:
    """Whether something happened at all; the lost tasks of a method without client state leave no trace."""
    quiet = fault == "client" and method in ("ormo", "fedbuff", "fedprox, ormo")
    return quiet or "went on from round" in outcome.text
