"""cluster/slurm.sh under Slurm itself: a controller and two nodes on this machine, where its daemons are installed."""

import getpass
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from process_trees import all_processes, environment_of, is_alive
from waiting import wait_until

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm.sh"
DAEMONS = ("munged", "slurmctld", "slurmd")

# Nodes on one host with ports of their own, and more processors than it may have. The script's ports and folders go by
# the job's number, so the first is one that no other Slurm here is likely to be at.
CONFIGURATION = """
ClusterName=rehearsal
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=64000
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=64000
PartitionName=all Nodes=node1,node2 Default=YES State=UP
"""


def unused_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [held.getsockname()[1] for held in sockets]


class Slurm:
    """Slurm's commands, for the controller of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))
        }
        self.environment |= {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "FEDBENCH_ENV": str(Path(sys.executable).parents[1]),
            "TMPDIR": "/tmp",
        }

    def say(self, *command: str | Path) -> str:
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, check=True, capture_output=True, text=True, timeout=60
        ).stdout.strip()

    def submit(self, *arguments: str | Path, export: str = "ALL") -> str:
        """The number of a job of two nodes."""
        asked = ("--nodes=2", "--cpus-per-task=1", "--gpus-per-node=0", "--mem=1G", "--time=20", f"--export={export}")
        return self.say("sbatch", "--parsable", *asked, SCRIPT, *arguments)

    def log(self, job: str) -> str:
        path = self.folder / f"fedbench-{job}.log"
        return path.read_text() if path.exists() else ""

    def state(self, job: str) -> str:
        """As in `COMPLETED 0:0`."""
        said = dict(entry.split("=", 1) for entry in self.say("scontrol", "show", "job", job).split() if "=" in entry)
        return f"{said['JobState']} {said['ExitCode']}"

    def wait_for(self, text: str, job: str) -> None:
        wait_until(lambda: text in self.log(job) or not self.is_on(job), f"no {text!r}:\n{self.log(job)}")
        assert text in self.log(job), self.log(job)

    def is_on(self, job: str) -> bool:
        return self.state(job).split()[0] in {"PENDING", "RUNNING", "COMPLETING"}

    def wait_for_end(self, job: str) -> str:
        wait_until(lambda: not self.is_on(job), f"job {job} does not end")
        return self.state(job)

    def left_of(self, job: str) -> list[str]:
        """Processes and files of a job that has ended."""
        entry = f"SLURM_JOB_ID={job}".encode()
        processes = [str(pid) for pid in all_processes() if entry in environment_of(pid) and is_alive(pid)]
        files = [*self.folder.glob(".fedbench-token-*"), *Path("/tmp").glob(f"ray-{job}-*")]
        return processes + [str(path) for path in files]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Two nodes that wait for jobs."""
    if missing := [name for name in DAEMONS if not shutil.which(name)]:
        pytest.skip(f"no Slurm: {', '.join(missing)} not found (Debian: slurmctld, slurmd, munge)")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "key").touch(0o600)
    (folder / "key").write_bytes(secrets.token_bytes(128))
    text = CONFIGURATION.format(
        folder=folder,
        first_job=1000 * (os.getpid() % 1000) + secrets.randbelow(900),
        user=getpass.getuser(),
        host=socket.gethostname(),
        ports=unused_ports(3),
    )
    (folder / "slurm.conf").write_text(text)
    # --force: munged wants a folder for its socket that all users can enter.
    files = {"key-file": "key", "socket": "munge", "pid-file": "pid", "seed-file": "seed", "log-file": "munge.log"}
    munged = ["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in files.items())]
    daemons = [munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "node1"], ["slurmd", "-D", "-N", "node2"]]
    slurm = Slurm(folder)
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "daemons.log").open("wb") as log:
            for command in daemons:
                started.append(subprocess.Popen(command, env=slurm.environment, stdout=log, stderr=log))
                wait_until((folder / "munge").exists, "no munged")
        wait_until(lambda: slurm.say("sinfo", "--noheader", "--format=%D %t") == "2 idle", "no idle nodes")
        yield slurm
        slurm.say("scancel", f"--user={getpass.getuser()}")
        wait_until(lambda: not slurm.say("squeue", "--noheader"), "jobs do not end")
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(20)


DIGITS = ("fedavg-digits", "runtime.actors=2", "tracking.enabled=false")


@pytest.mark.slow
def test_a_job_told_to_stop_goes_on_in_a_second_one(slurm: Slurm) -> None:
    result = slurm.folder / "result"
    first = slurm.submit(*DIGITS, "rounds=500", f"output.directory={result}")
    slurm.wait_for("round 2/500", first)
    assert "2 nodes, 2 CPUs, 0 GPUs" in slurm.log(first)
    slurm.say("scancel", "--signal=INT", "--batch", first)  # as --signal=B:INT@300 does before the time limit
    assert slurm.wait_for_end(first) == "FAILED 130:0", slurm.log(first)
    assert not slurm.left_of(first)
    done = json.loads((result / "summary.json").read_text())["rounds"]
    assert f"go on with: fedbench resume {result}" in slurm.log(first)
    second = slurm.submit("resume", result)
    slurm.wait_for(f"round {done + 1}/500", second)
    slurm.say("scancel", "--signal=INT", "--batch", second)
    slurm.wait_for_end(second)
    assert "round 1/500" not in slurm.log(second)


@pytest.mark.slow
def test_a_cancelled_job_leaves_nothing(slurm: Slurm) -> None:
    job = slurm.submit(*DIGITS, "rounds=500", f"output.directory={slurm.folder / 'cancelled'}")
    slurm.wait_for("round 1/500", job)
    assert slurm.left_of(job)
    slurm.say("scancel", job)
    assert slurm.wait_for_end(job).startswith("CANCELLED"), slurm.log(job)
    assert not slurm.left_of(job)


@pytest.mark.slow
def test_a_job_without_its_submitters_environment_fails_as_its_run_does(slurm: Slurm) -> None:
    (slurm.folder / ".venv").symlink_to(slurm.environment["FEDBENCH_ENV"])
    job = slurm.submit("fedavg-digit", export="NONE")
    assert slurm.wait_for_end(job) == "FAILED 2:0", slurm.log(job)
    assert "2 nodes, 2 CPUs, 0 GPUs" in slurm.log(job)
    assert "did you mean 'fedavg-digits'" in slurm.log(job)
    assert not slurm.left_of(job)
