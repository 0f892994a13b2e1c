"""Full stores and disks, trackers away, nodes that come, heads that go: real ones."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disturbed import PRESET, SMALL, actors, fedbench_run
from local_cluster import LocalCluster
from mlflow_server import MlflowServer

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.on_ray.experiment_actors import GROWTH_CHECK_INTERVAL
from fedbench.experiment.run import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flops_counted_once", "no_figures")]

UNTRACKED = "tracking.enabled=false"
FILL_STORES = """
import sys, numpy, ray
ray.init(log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=0, scheduling_strategy="SPREAD")
class Hog:
    def fill(self, megabytes):
        self.kept = [ray.put(numpy.full(10_000_000, fill, numpy.uint8)) for fill in range(megabytes // 10)]

hogs = [Hog.remote() for _ in range(4)]
ray.get([hog.fill.remote(int(sys.argv[1])) for hog in hogs])
print("full", flush=True)
sys.stdin.read()
"""


def reference(folder: Path, *overrides: str) -> str:
    """The model of the undisturbed run."""
    config = ExperimentConfig.load(
        PRESET,
        [*SMALL, *overrides, UNTRACKED, "runtime.executor=inline", f"output.directory={folder / 'undisturbed'}"],
    )
    return str(run(config).summary["model_sha256"])


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[LocalCluster]:
    """Two nodes with small object stores; the head does not outlive the last test of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        with LocalCluster(nodes=2, cpus=1, object_store_memory=80_000_000) as small:
            yield small


def test_a_full_object_store_changes_nothing(small_cluster: LocalCluster, tmp_path: Path) -> None:
    options = ["model.width=64", "rounds=8"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", **small_cluster.environment}
    hog: list[subprocess.Popen[str]] = []

    def fill() -> None:
        command = [sys.executable, "-c", FILL_STORES, "300"]
        hog.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert hog[0].stdout is not None
        assert hog[0].stdout.readline() == "full\n"

    outcome = fedbench_run(tmp_path, environment, *SMALL, *options, UNTRACKED, "output.directory=run", events={3: fill})
    hog[0].communicate("")
    assert outcome.status == 0, outcome.text
    assert outcome.summary["model_sha256"] == reference(tmp_path, *options)


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


def test_a_run_outlives_a_full_disk_and_a_tracker_that_is_away_and_uses_a_node_that_comes(
    small_disk: Path, cluster: LocalCluster, on_cluster: dict[str, str], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    rounds, server, filler = 60, MlflowServer(tmp_path), small_disk / "filler"
    server.start()
    client = MlflowClient(server.uri)
    added: list[int] = []
    working: list[int] = []

    def fill_disk() -> None:
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(4096))
            except OSError:
                pass

    def kill_once_in_use() -> None:
        while client.get_experiment_by_name("fedbench") is None:
            time.sleep(0.2)
        server.kill()

    def add_node() -> None:
        added.append(cluster.add_node(cpus=1))
        time.sleep(GROWTH_CHECK_INTERVAL)  # so that the run looks for nodes when it goes on

    try:
        outcome = fedbench_run(
            tmp_path,
            on_cluster,
            *SMALL,
            *["data.clients=8", f"rounds={rounds}", f"tracking.mlflow_uri={server.uri}"],
            *[f"output.directory={small_disk / 'run'}", "runtime.checkpoint_every=1"],
            events={
                3: add_node,
                8: fill_disk,
                12: kill_once_in_use,
                30: lambda: working.extend(actors(cluster, "ray::ClientActor", node=added[0])),
                35: filler.unlink,
                45: server.start,
            },
            standing_still={3, 45},
        )
        found = client.search_runs([client.get_experiment_by_name("fedbench").experiment_id])
        points = client.get_metric_history(found[0].info.run_id, "test/accuracy")
    finally:
        server.kill()
        for index in added:
            cluster.kill_node(index)
    assert outcome.status == 0, outcome.text
    assert outcome.summary["rounds"] == rounds
    assert outcome.summary["model_sha256"] == reference(tmp_path, "data.clients=8", f"rounds={rounds}")
    assert working, "the new node was left idle"
    # What MLflow missed has arrived later, and once.
    assert [point.step for point in sorted(points, key=lambda point: point.step)] == list(range(1, rounds + 1))
    assert [run.info.status for run in found] == ["FINISHED"]


def test_without_a_head_it_is_said_what_happened_and_how_to_go_on(small_cluster: LocalCluster, tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "token", **small_cluster.environment}
    began = time.monotonic()
    outcome = fedbench_run(
        tmp_path,
        environment,
        *SMALL,
        *["rounds=5000", UNTRACKED, "output.directory=run", "runtime.checkpoint_every=2"],
        events={8: lambda: small_cluster.kill_node(0)},
    )
    assert outcome.status == 1
    assert outcome.lines[-2].startswith("error: the head of the cluster is gone: nothing ")
    assert outcome.lines[-1] == f"go on with: fedbench resume {tmp_path / 'run'}\n"
    assert time.monotonic() - began < 300
