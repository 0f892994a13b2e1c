"""What a run does whose cluster loses its head: the last test on its cluster."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Finished
from disturbed import SMALL, UNTRACKED, fedbench_run, undisturbed
from local_cluster import LocalCluster

from fedbench.records.reader import load_run

FILL_STORES = """
import sys, numpy, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init(log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=0)
class Hog:
    def fill(self, megabytes):
        self.kept = [ray.put(numpy.full(10_000_000, fill, numpy.uint8)) for fill in range(megabytes // 10)]

alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
hogs = [Hog.options(scheduling_strategy=On(node, soft=False)).remote() for node in alive]
ray.get([hog.fill.remote(int(sys.argv[1])) for hog in hogs])
print(len(hogs), "full", flush=True)
sys.stdin.read()
"""
"""Fills the object stores of all nodes, says of how many, and keeps them full until its standard input ends."""


@pytest.mark.slow
@pytest.mark.usefixtures("flops_counted_once", "no_figures")
def test_a_full_object_store_changes_nothing_and_without_a_head_it_is_said_how_to_go_on(
    cluster: LocalCluster, on_cluster: dict[str, str], call: Callable[..., Finished], run_folder: Path
) -> None:
    options = ["model.width=32", "rounds=12"]
    nodes = len(cluster.alive())
    command = [sys.executable, "-c", FILL_STORES, "160"]
    hog = subprocess.Popen(command, env=on_cluster, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert hog.stdout is not None

    def fill() -> None:
        assert hog.stdout is not None
        assert hog.stdout.readline() == f"{nodes} full\n"

    def end_hog() -> None:
        hog.kill()
        hog.communicate()

    def lose_head() -> None:
        end_hog()  # which would try, and try again, to reach its head
        cluster.kill_node(0)

    began = time.monotonic()
    try:
        outcome = fedbench_run(
            run_folder,
            on_cluster,
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
    assert summary["model_sha256"] == undisturbed(run_folder, *options)["model_sha256"]
