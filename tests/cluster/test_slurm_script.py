"""cluster/slurm.sh with real Ray processes, and stand-ins for Slurm's commands that run everything here."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from process_trees import all_processes, environment_of, is_alive
from unobserved import UNOBSERVED

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm.sh"

SCONTROL = """#!/bin/sh
test "$1 $2 $3" = "show hostnames nodes[1-2]" && printf 'node1\\nnode2\\n'
"""

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do
    [[ $1 == --nodelist=node? ]] && echo "${1#*=} $$" >>"$STEPS"
    shift
done
exec "$@"
"""

SCANCEL = """#!/bin/bash
test "$*" = "--signal=TERM $SLURM_JOB_ID" && while read -r _ step; do kill "$step"; done <"$STEPS"
"""


def left_of(job: str) -> list[int]:
    entry = f"SLURM_JOB_ID={job}".encode()
    return [pid for pid in all_processes() if entry in environment_of(pid) and is_alive(pid)]


def command(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.mark.slow
def test_two_nodes_come_up_run_and_go_down(tmp_path: Path) -> None:
    commands, result = tmp_path / "commands", tmp_path / "result"
    commands.mkdir()
    command(commands, "scontrol", SCONTROL)
    command(commands, "srun", SRUN)
    command(commands, "scancel", SCANCEL)
    job = str(os.getpid())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "STEPS": str(tmp_path / "steps"),
        "TMPDIR": "/tmp",
        "FEDBENCH_ENV": str(Path(sys.executable).parents[1]),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "nodes[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
        **UNOBSERVED,
    }
    small = ["rounds=1", "runtime.actors=2", "data.clients=2", "data.samples_per_client=40", "model.width=4"]
    run = ["fedavg-digits", *small, "tracking.enabled=false", f"output.directory={result}"]
    done = subprocess.run(
        ["bash", SCRIPT, *run], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 nodes, 2 CPUs" in done.stdout
    assert (tmp_path / "steps").read_text().split()[::2] == ["node1", "node1", "node2"]  # its address, Ray on both
    assert json.loads((result / "summary.json").read_text())["status"] == "finished"
    assert not list(tmp_path.glob(".fedbench-token-*"))
    assert not list(Path("/tmp").glob(f"ray-{job}-*"))
    end = time.monotonic() + 20  # agents notice a moment later that their raylet is gone
    while left := left_of(job):
        assert time.monotonic() < end, left
        time.sleep(0.1)
