"""Full stores and disks, nodes that come and go, heads that go: real ones."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Finished
from disturbed import PRESET, SGD, SMALL, actors, fedbench_run
from local_cluster import LocalCluster

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.on_ray.experiment_actors import GROWTH_CHECK_INTERVAL
from fedbench.experiment.run import run
from fedbench.records.reader import load_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flops_counted_once", "no_figures")]

UNTRACKED = "tracking.enabled=false"
FILL_STORES = """
import sys, numpy, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init(log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=0)
class Hog:
    def fill(self, megabytes):
        self.kept = [ray.put(numpy.full(10_000_000, fill, numpy.uint8)) for fill in range(megabytes // 10)]

hogs = [Hog.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote() for node in ray.nodes()]
ray.get([hog.fill.remote(int(sys.argv[1])) for hog in hogs])
print(len(hogs), "full", flush=True)
sys.stdin.read()
"""
"""Fills the object stores of all nodes, says of how many, and keeps them full until its standard input ends."""


def reference(folder: Path, *overrides: str) -> dict[str, object]:
    """The summary of the undisturbed run."""
    config = ExperimentConfig.load(
        PRESET,
        [*SMALL, *overrides, UNTRACKED, "runtime.executor=inline", f"output.directory={folder / 'undisturbed'}"],
    )
    return run(config).summary


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[LocalCluster]:
    """Two nodes with small object stores; the head does not outlive the last test of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        with LocalCluster(nodes=2, cpus=1, object_store_memory=80_000_000) as small:
            yield small


def test_a_full_object_store_changes_nothing_and_without_a_head_it_is_said_how_to_go_on(
    small_cluster: LocalCluster, call: Callable[..., Finished], run_folder: Path
) -> None:
    options = ["model.width=32", "rounds=12"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", **small_cluster.environment}
    command = [sys.executable, "-c", FILL_STORES, "160"]
    hog = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert hog.stdout is not None

    def fill() -> None:
        assert hog.stdout is not None
        assert hog.stdout.readline() == "2 full\n"

    def end_hog() -> None:
        hog.kill()
        hog.communicate()

    def lose_head() -> None:
        end_hog()  # which would try, and try again, to reach its head
        small_cluster.kill_node(0)

    began = time.monotonic()
    try:
        outcome = fedbench_run(
            run_folder,
            environment,
            *SMALL,
            *[*options, UNTRACKED, "output.directory=run", "runtime.checkpoint_every=2"],
            events={3: fill, 9: lose_head},
            standing_still={3, 9},
        )
    finally:
        end_hog()
    assert outcome.status == 1
    assert outcome.lines[-2].startswith("error: the head of the cluster is gone: nothing ")
    assert outcome.lines[-1] == f"go on with: fedbench resume {run_folder / 'run'}\n"
    assert time.monotonic() - began < 300

    resumed = call("resume", "run", "runtime.executor=inline")
    assert resumed.status == 0, resumed.stderr
    assert "round 8/" not in resumed.stderr, "rounds whose checkpoint is there are not run again"
    summary = load_run(run_folder / "run")[3]
    assert summary["rounds"] == 12
    assert summary["model_sha256"] == reference(run_folder, *options)["model_sha256"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of a given size cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_run_uses_a_node_that_comes_and_outlives_a_full_disk_and_the_loss_of_that_node(
    small_disk: Path, cluster: LocalCluster, on_cluster: dict[str, str], tmp_path: Path
) -> None:
    options = [*SGD, "algorithm=scaffold", "server=fedadam", "data.clients=8", "rounds=18"]
    filler = small_disk / "filler"
    added: list[int] = []
    working: list[int] = []

    def add_node() -> None:
        added.append(cluster.add_node(cpus=1))
        time.sleep(GROWTH_CHECK_INTERVAL)  # so that the run looks for nodes when it goes on

    def fill_disk() -> None:
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(4096))
            except OSError:
                pass

    def lose_node() -> None:
        working.extend(actors(cluster, "ray::ClientActor", node=added[0]))
        cluster.kill_node(added[0])

    try:
        outcome = fedbench_run(
            tmp_path,
            on_cluster,
            *SMALL,
            *[*options, UNTRACKED, "runtime.combine=node", "runtime.checkpoint_every=1"],
            f"output.directory={small_disk / 'run'}",
            events={2: add_node, 5: fill_disk, 9: filler.unlink, 13: lose_node},
            standing_still={2, 5, 9, 13},
        )
    finally:
        for index in added:
            cluster.kill_node(index)
    assert outcome.status == 0, outcome.text
    assert outcome.summary["rounds"] == 18
    assert working, "the new node was left idle"
    assert "went on from round 1" in outcome.text, "the node was lost in round 14, and its checkpoints were there"
    expected = reference(tmp_path, *options)
    for key in ("model_sha256", "uplink_bytes", "downlink_bytes", "client_flops", "final_accuracy"):
        assert outcome.summary[key] == expected[key], (key, outcome.text)
