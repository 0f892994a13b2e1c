"""A local Ray is started with the daemons that run actors, and with no other; its node ends all that it has started."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fedbench.engine.on_ray import idle_agent
from fedbench.engine.on_ray.daemons import without_agents

PROGRAM = """
import sys
from contextlib import suppress
import psutil
import ray
from fedbench.engine.on_ray.connection import connect, disconnect
from fedbench.engine.on_ray.lifetime import ray_kept

before = (ray._private.parameter.RayParams, ray._private.services.start_ray_process)
if "kept" in sys.argv:
    with ray_kept():
        connect(None)
else:
    connect(None)
assert (ray._private.parameter.RayParams, ray._private.services.start_ray_process) == before

@ray.remote
class Counter:
    def add(self, value):
        return value + 1

assert ray.get(Counter.remote().add.remote(1)) == 2
if "kept" in sys.argv:
    asked = ray.remote(lambda: __import__("os").environ["SEEN"]).options(runtime_env={"env_vars": {"SEEN": "yes"}})
    assert ray.get(asked.remote()) == "yes"
family = psutil.Process().children(recursive=True)
for process in family:
    with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
        print(" ".join(process.cmdline()).replace("\\n", " "))
print("aiohttp.web" in sys.modules, flush=True)
disconnect()
alive = 0
for process in family:
    with suppress(psutil.NoSuchProcess):
        alive += process.is_running() and process.status() != psutil.STATUS_ZOMBIE
print(alive)
"""

KINDS = {
    "gcs_server": "gcs/gcs_server",
    "raylet": "raylet/raylet",
    "idle": idle_agent.__file__,
    "environments": "RuntimeEnvAgent",
    "dashboard": "DashboardAgent",
    "monitor": "monitor",
    "worker": "ray::",
}


def started(*arguments: str) -> tuple[set[str], str, str]:
    """What a local Ray consists of while an actor is at work, whether the driver loaded the agents' web server, and how
    many processes were left behind."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    *lines, loaded, left = ended.stdout.splitlines() or [ended.stderr] * 2
    assert ended.returncode == 0, ended.stderr
    # A daemon's command names others in its options: what it is itself comes first.
    firsts = [" ".join(line.split()[:5]) for line in lines]
    kinds = {next((kind for kind, name in KINDS.items() if name in first), first) for first in firsts}
    return kinds, loaded, left


@pytest.mark.slow
def test_a_local_ray_is_its_node_and_its_workers_and_leaves_nothing_behind() -> None:
    assert started() == ({"gcs_server", "raylet", "worker", "idle"}, "False", "0")


@pytest.mark.slow
def test_a_ray_that_is_kept_makes_runtime_environments() -> None:
    assert started("kept") == ({"gcs_server", "raylet", "worker", "idle", "environments"}, "False", "0")


@pytest.mark.slow
def test_an_idle_agent_ends_with_the_process_that_started_it() -> None:
    starter = subprocess.Popen(
        ["sh", "-c", f"{sys.executable} -S -E {idle_agent.__file__} & echo $!; read line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert starter.stdout is not None
    agent = psutil.Process(int(starter.stdout.readline()))
    time.sleep(2 * idle_agent.LOOK_EVERY)
    assert agent.is_running()
    starter.communicate("\n")
    agent.wait(20 * idle_agent.LOOK_EVERY)


@pytest.mark.parametrize("has_environments", [False, True])
def test_agents_are_replaced_and_their_ports_are_said_to_be_unused(tmp_path: Path, has_environments: bool) -> None:
    node = "0" * 56
    command = [
        "raylet", f"--session_dir={tmp_path}", f"--node_id={node}",
        "--dashboard_agent_command=python agent.py --port=0", "--runtime_env_agent_command=python main.py --port=0",
        '--labels={"a": "b=c"}', "--head",
    ]  # fmt: skip
    changed = without_agents(command, has_environments)
    idle = f"{sys.executable} -S -E {idle_agent.__file__}"
    environments = command[4] if has_environments else f"--runtime_env_agent_command={idle}"
    assert changed == [*command[:3], f"--dashboard_agent_command={idle}", environments, *command[5:]]
    ports = {file.name.removesuffix(f"_{node}"): file.read_text() for file in tmp_path.iterdir()}
    unused = {"metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"}
    assert ports == dict.fromkeys(unused if has_environments else {*unused, "runtime_env_agent_port"}, "-1")


def test_the_command_of_an_unknown_version_of_ray_stays_as_it_is(tmp_path: Path) -> None:
    command = ["raylet", f"--session_dir={tmp_path}", "--agents=python agent.py"]
    assert without_agents(command, has_environments=False) == command
    nameless = ["raylet", "--dashboard_agent_command=python agent.py", "--runtime_env_agent_command=python main.py"]
    assert without_agents(nameless, has_environments=False) == nameless
