"""A node that goes for good in the middle of a run: its clients move, and the model is that of the undisturbed run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from local_cluster import LocalCluster

RUN = (
    "fedavg-digits", "algorithm=scaffold", "server=fedadam", "data.clients=6", "data.samples_per_client=20",
    "model.width=4", "local.batch_size=10", "local.optimizer=sgd", "rounds=30", "tracking.enabled=false",
    "runtime.checkpoint_every=2",
)  # fmt: skip


@pytest.mark.slow
def test_a_node_gone_for_good_leaves_its_clients_to_the_others(
    cluster: LocalCluster, on_cluster: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "fedbench", "run", *RUN]
    options = ["output.directory=run", "runtime.max_retries=5", "--json"]
    process = subprocess.Popen(
        [*command, *options], cwd=tmp_path, env=on_cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("round 8/"):
            cluster.kill_node(max(index for index, node in enumerate(cluster.nodes) if not node.killed))
    assert process.stdout is not None
    stdout = process.stdout.read()
    assert process.wait() == 0, "".join(seen)
    cluster.add_node(cpus=1, resources={"right": 1})
    plain = [*command, "output.directory=plain", "runtime.executor=inline", "--json"]
    undisturbed = subprocess.run(plain, cwd=tmp_path, env=on_cluster, check=True, capture_output=True, text=True)
    ours, theirs = json.loads(stdout), json.loads(undisturbed.stdout)
    assert ours["rounds"] == 30
    assert ours["model_sha256"] == theirs["model_sha256"]
    assert any("went on from round" in line for line in seen), "".join(seen)
