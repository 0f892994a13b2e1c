"""Full stores and disks, trackers away, nodes that come, heads that go: real ones."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disturbed import PRESET, SMALL, actors, fedbench_run, kill_at_work
from local_cluster import LocalCluster
from mlflow_server import MlflowServer

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.on_ray.experiment_actors import GROWTH_CHECK_INTERVAL
from fedbench.experiment.run import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flops_counted_once", "digits_read_once", "no_figures")]

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


def test_a_node_that_comes_is_used(cluster: LocalCluster, on_cluster: dict[str, str], tmp_path: Path) -> None:
    added: list[int] = []
    working: list[int] = []

    def add() -> None:
        added.append(cluster.add_node(cpus=1))
        time.sleep(GROWTH_CHECK_INTERVAL)  # so that the run looks for nodes when it goes on

    def look() -> None:
        working.extend(actors(cluster, "ray::ClientActor", node=added[0]))

    outcome = fedbench_run(
        tmp_path,
        on_cluster,
        *SMALL,
        *["data.clients=8", "rounds=30", UNTRACKED, "output.directory=run"],
        events={3: add, 30: look},
        standing_still={3},
    )
    cluster.kill_node(added[0])
    assert outcome.status == 0, outcome.text
    assert working, "the new node was left idle"
    assert outcome.summary["model_sha256"] == reference(tmp_path, "data.clients=8", "rounds=30")


def test_a_full_object_store_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["model.width=64", "rounds=8"]
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with LocalCluster(nodes=2, cpus=1, object_store_memory=80_000_000) as small:
        environment = {**os.environ, **small.environment}
        hog: list[subprocess.Popen[str]] = []

        def fill() -> None:
            command = [sys.executable, "-c", FILL_STORES, "300"]
            hog.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert hog[0].stdout is not None
            assert hog[0].stdout.readline() == "full\n"

        outcome = fedbench_run(
            tmp_path, environment, *SMALL, *options, UNTRACKED, "output.directory=run", events={3: fill}
        )
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


def test_a_full_disk_costs_checkpoints_and_not_the_run(
    small_disk: Path, cluster: LocalCluster, on_cluster: dict[str, str], tmp_path: Path
) -> None:
    filler = small_disk / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(4096))
            except OSError:
                pass

    outcome = fedbench_run(
        tmp_path,
        on_cluster,
        *SMALL,
        *["rounds=30", UNTRACKED, f"output.directory={small_disk / 'run'}", "runtime.checkpoint_every=1"],
        events={5: fill, 20: filler.unlink},
    )
    assert outcome.status == 0, outcome.text
    assert outcome.summary["model_sha256"] == reference(tmp_path, "rounds=30")
    assert outcome.summary["rounds"] == 30


def test_what_mlflow_missed_arrives_later_and_once(
    cluster: LocalCluster, on_cluster: dict[str, str], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    rounds, server = 60, MlflowServer(tmp_path)
    server.start()
    client = MlflowClient(server.uri)

    def kill_once_in_use() -> None:
        while client.get_experiment_by_name("fedbench") is None:
            time.sleep(0.2)
        server.kill()

    try:
        outcome = fedbench_run(
            tmp_path,
            on_cluster,
            *SMALL,
            *[f"rounds={rounds}", f"tracking.mlflow_uri={server.uri}", "output.directory=run"],
            events={10: kill_once_in_use, 40: server.start},
            standing_still={40},
        )
        found = client.search_runs([client.get_experiment_by_name("fedbench").experiment_id])
        points = client.get_metric_history(found[0].info.run_id, "test/accuracy")
    finally:
        server.kill()
    assert outcome.status == 0, outcome.text
    assert [point.step for point in sorted(points, key=lambda point: point.step)] == list(range(1, rounds + 1))
    assert len(found) == 1
    assert found[0].info.status == "FINISHED"


def test_without_a_head_it_is_said_what_happened_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with LocalCluster(nodes=2, cpus=1) as doomed:
        environment = {**os.environ, **doomed.environment}
        began = time.monotonic()
        outcome = fedbench_run(
            tmp_path,
            environment,
            *SMALL,
            *["rounds=5000", UNTRACKED, "output.directory=run", "runtime.checkpoint_every=2"],
            events={8: lambda: doomed.kill_node(0)},
        )
    assert outcome.status == 1
    assert outcome.lines[-2].startswith("error: the head of the cluster is gone: nothing has answered at ")
    assert outcome.lines[-1] == f"go on with: fedbench resume {tmp_path / 'run'}\n"
    assert time.monotonic() - began < 300


def test_retries_used_up_end_the_run_with_exit_status_1(
    cluster: LocalCluster, on_cluster: dict[str, str], tmp_path: Path
) -> None:
    outcome = fedbench_run(
        tmp_path,
        on_cluster,
        *SMALL,
        *["rounds=30", UNTRACKED, "output.directory=run", "runtime.max_retries=1", "runtime.checkpoint_every=2"],
        events={number: lambda: kill_at_work(cluster, "ray::ClientActor") for number in (5, 15)},
    )
    assert outcome.status == 1
    assert "runtime.max_retries=1" in outcome.lines[-2]
    assert outcome.lines[-1] == f"go on with: fedbench resume {tmp_path / 'run'}\n"
