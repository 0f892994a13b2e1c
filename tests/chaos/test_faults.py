"""Full disks, and nodes that come and go: real ones."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disturbed import SGD, SMALL, UNTRACKED, actors, fedbench_run, marked_by, undisturbed
from local_cluster import LocalCluster
from process_trees import is_alive

from fedbench.engine.on_ray.experiment_actors import GROWTH_CHECK_INTERVAL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flops_counted_once", "no_figures")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 4 MB; None where nothing can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_run_uses_a_node_that_comes_and_outlives_a_full_disk_and_the_loss_of_that_node(
    small_disk: Path | None, cluster: LocalCluster, on_cluster: dict[str, str], tmp_path: Path
) -> None:
    options = [*SGD, "algorithm=scaffold", "server=fedadam", "data.clients=8", "rounds=13"]
    filler = (small_disk or tmp_path) / "filler"
    cluster.wait_alive(2)
    before = cluster.alive()
    added: list[int] = []
    working: list[int] = []

    def add_node() -> None:
        """The run looks for nodes when it goes on."""
        looks = time.monotonic() + GROWTH_CHECK_INTERVAL
        added.append(cluster.add_node(cpus=1))
        time.sleep(max(0.0, looks - time.monotonic()))

    def fill_disk() -> None:
        if small_disk is None:
            return
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
            f"output.directory={(small_disk or tmp_path) / 'run'}",
            events={2: add_node, 4: fill_disk, 7: lambda: filler.unlink(missing_ok=True), 11: lose_node},
            standing_still={2, 4, 7, 11},
        )
    finally:
        for index in added:
            cluster.kill_node(index)
    assert outcome.status == 0, outcome.text
    assert outcome.summary["rounds"] == 13
    assert working, "the new node was left idle"
    assert "went on from round 1" in outcome.text, "the node was lost in round 12, and its checkpoints were there"
    expected = undisturbed(tmp_path, *options)
    for key in ("model_sha256", "uplink_bytes", "downlink_bytes", "client_flops", "final_accuracy"):
        assert outcome.summary[key] == expected[key], (key, outcome.text)

    new = cluster.nodes[added[0]]
    assert new.address not in [node.address for node in cluster.nodes if node is not new]
    assert not is_alive(new.process.pid)
    assert not marked_by(new.mark)
    cluster.wait_alive(2, timeout=30)
    assert sorted(cluster.alive()) == sorted(before), "a node that was killed is gone for good"
