"""cluster/local.py: nodes of their own, a loss that is final, and nothing left behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import local
import pytest
from disturbed import marked_by
from local_cluster import MARK, ClusterError, LocalCluster
from network_namespaces import Bridge, NoNamespacesError
from process_trees import environment_of, is_alive, kill_all
from unobserved import UNOBSERVED
from waiting import wait_until

SCRIPT = Path(__file__).parents[2] / "cluster" / "local.py"
OWN = [sys.executable, str(SCRIPT), "--cpus=1", "--dashboard-port=0"]

WHERE_TASKS_RUN = """
import json, ray
ray.init(log_to_driver=False, logging_level="ERROR")
where = ray.remote(ray.util.get_node_ip_address)
print(json.dumps([ray.get(where.options(resources={name: 1}).remote()) for name in ("left", "right")]))
"""


@pytest.mark.slow
def test_nodes_have_addresses_and_resources_of_their_own(cluster: LocalCluster, on_cluster: dict[str, str]) -> None:
    cluster.wait_alive(2)
    addresses = {node.address for node in cluster.nodes if not node.killed}
    said = subprocess.run(
        [sys.executable, "-c", WHERE_TASKS_RUN], env=on_cluster, check=True, capture_output=True, text=True
    )
    assert set(json.loads(said.stdout)) == addresses
    assert len(addresses) == 2


@pytest.mark.slow
def test_dashboard_asks_for_the_token_and_listens_on_loopback_alone(cluster: LocalCluster) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{cluster.job_address}/api/v0/nodes", timeout=10)
    port = int(cluster.job_address.rsplit(":", 1)[1])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((cluster.nodes[0].address, port), timeout=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status"), [("command -v fedbench && exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)]
)
def test_the_exit_code_of_a_command_is_carried(
    command: str,
    status: int,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """On a cluster that runs already, in place of the one that the program would start for itself."""
    on_it = f'test "$RAY_ADDRESS" = {cluster.address} && {command}'
    monkeypatch.setattr(sys, "argv", ["local.py", "--command", on_it])
    monkeypatch.setattr(local, "LocalCluster", lambda *arguments, **options: cluster)
    for begin_or_end in ("start", "stop"):
        monkeypatch.setattr(cluster, begin_or_end, lambda: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert local.main() == status
    assert f"{len(cluster.nodes)} nodes (loopback addresses)" in capfd.readouterr().err


@pytest.mark.slow
def test_sigterm_ends_the_command_and_leaves_no_process_no_namespace_and_no_file() -> None:
    command = 'test -n "$RAY_ADDRESS" && command -v fedbench && echo ready && sleep 1000'
    process = subprocess.Popen(
        [*OWN, "--nodes=2", "--command", command],
        env={**os.environ, **UNOBSERVED},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "ready\n" in iter(process.stdout.readline, "")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    entries = [entry.decode() for child in children for entry in environment_of(int(child))]
    marks = sorted({entry.split("=")[1] for entry in entries if entry.startswith(f"{MARK}=")})
    assert len(marks) == 2
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.startswith("2 nodes (")
    assert not [pid for mark in marks for pid in marked_by(mark)]
    if "namespaces of their own" in said:
        identity = marks[0].split("-")[0]
        assert identity not in subprocess.check_output(["ip", "netns", "list"], text=True)
        assert identity not in subprocess.check_output(["ip", "link"], text=True)


class InterruptedStart(subprocess.Popen):  # type: ignore[type-arg]
    """A process that has just been started when SIGTERM comes, and of which nobody knows yet."""

    started: "list[InterruptedStart]" = []  # noqa: RUF012

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.started.append(self)
        signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def interrupted_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[InterruptedStart]]:
    """The processes that are started; SIGTERM ends the program by an exception, as in cluster/local.py."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    monkeypatch.setattr(subprocess, "Popen", InterruptedStart)
    monkeypatch.setattr(InterruptedStart, "started", [])
    try:
        yield InterruptedStart.started
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_while_the_command_starts_ends_it(interrupted_start: list[InterruptedStart]) -> None:
    with pytest.raises(SystemExit) as ended:
        local.run_command("sleep 1000", {})
    (process,) = interrupted_start
    assert ended.value.code == 128 + signal.SIGTERM
    assert process.wait(timeout=30) == -signal.SIGKILL


def test_a_signal_while_a_node_starts_ends_it(interrupted_start: list[InterruptedStart]) -> None:
    with pytest.raises(SystemExit), LocalCluster(1, 1, namespaces="off"):
        pass
    (process,) = interrupted_start
    assert process.wait(timeout=30) == -signal.SIGKILL


ONE_IDLE_NODE = f"""
import os, signal, subprocess, sys, tempfile
from pathlib import Path
import local, local_cluster, process_trees

def start(cluster):
    cluster._folder, cluster._prefix = Path(tempfile.mkdtemp(prefix="fb-")), "127.9.9"
    mark = f"{{cluster._identity}}-0"
    process = subprocess.Popen(["sleep", "1000"], env=os.environ | {{"{MARK}": mark}}, start_new_session=True)
    cluster.nodes.append(local_cluster.Node(0, "127.9.9.1", process, mark, cluster._folder / "log"))
    print(process.pid, cluster._folder, flush=True)

local_cluster.LocalCluster.start = start
"""
"""A program with a cluster whose only node is a process that sleeps; it prints its id and the cluster's folder."""


def what_is_left(program: str) -> tuple[int, bool, bool]:
    """Its exit code, and whether the node and the folder of a program that begins with `ONE_IDLE_NODE` are left."""
    path = os.pathsep.join([str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    pid, folder = ended.stdout.split()
    try:
        return ended.returncode, is_alive(int(pid)), Path(folder).exists()
    finally:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_signal_while_the_cluster_is_being_ended_leaves_nothing() -> None:
    program = f"""{ONE_IDLE_NODE}
look = process_trees.all_processes
def interrupted_look():
    signal.raise_signal(signal.SIGINT)
    return look()
process_trees.all_processes = interrupted_look
sys.argv = ["local.py", "--command", "true"]
sys.exit(local.main())
"""
    assert what_is_left(program) == (128 + signal.SIGINT, False, False)


def test_the_end_of_the_terminal_ends_the_cluster_unless_nohup_is_used() -> None:
    program = f"""{ONE_IDLE_NODE}
sys.argv = ["local.py", "--command", f"kill -HUP {{os.getpid()}}; sleep 0.5; exit 5"]
sys.exit(local.main())
"""
    assert what_is_left(program) == (128 + signal.SIGHUP, False, False)
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    assert what_is_left(nohup + program) == (5, False, False)


def test_processes_that_left_the_tree_are_ended_too() -> None:
    mark = f"{MARK}=test-{os.getpid()}"
    name, value = mark.split("=")
    root = subprocess.Popen(["/bin/sh", "-c", "setsid sleep 100 & sleep 100 & wait"], env={**os.environ, name: value})
    wait_until(lambda: len(marked_by(value)) == 3, "a shell and two sleeping children")
    kill_all([root], [mark])
    assert not marked_by(value)


def test_bridged_namespaces_reach_each_other_and_go_away() -> None:
    try:
        bridge = Bridge.create("test")
    except NoNamespacesError as error:
        pytest.skip(str(error))
    try:
        namespace = bridge.add(1)
        ping = "import socket; socket.create_server(('', 5)).accept()[0].send(b'hello')"
        server = subprocess.Popen(["ip", "netns", "exec", namespace, sys.executable, "-c", ping])
        for _ in range(100):
            try:
                assert socket.create_connection((f"{bridge.prefix}.2", 5), timeout=5).recv(5) == b"hello"
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        assert server.wait(10) == 0
    finally:
        bridge.remove()
    assert bridge.name not in subprocess.check_output(["ip", "netns", "list"], text=True)


def test_resources_of_another_number_of_nodes_are_refused() -> None:
    with pytest.raises(ClusterError, match="3 nodes with the resources of 2"):
        LocalCluster(nodes=3, resources=[{"a": 1}, {}])
