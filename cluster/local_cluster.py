"""A Ray cluster of several nodes on one Linux machine.

Every node is a raylet of its own, started by `ray start`, with its own resources, object store, temporary folder and
address. The head and all drivers are in this machine's own network; the workers are either there, too, on loopback
addresses of their own, or in network namespaces of their own, joined by a bridge that leads nowhere else.

    with LocalCluster(nodes=3, cpus=2) as cluster:
        cluster.kill_node(2)                 # gone for good, with every process on it
        index = cluster.add_node(cpus=4)
"""

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from local_access import free_port, is_free, reachable, read_token, token_environment
from network_namespaces import Bridge, NoNamespacesError
from process_trees import kill_all, signals_later

Namespaces = Literal["auto", "on", "off"]
Resources = Mapping[str, float]

LOOPBACK = "127.0.0.1"
MARK = "FEDBENCH_LOCAL_NODE"
"""Environment variable by which processes of a node are known even if they have left its process tree."""

JOB_STOP = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "300"}
"""So that `ray job stop` lets a run end its round and leave a checkpoint."""

NOT_INHERITED = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", MARK)


class ClusterError(RuntimeError):
    """The cluster could not be started or changed; the text says why."""


@dataclass
class Node:
    """One node.

    Attributes:
        index: 0 is the head.
        address: its IP address.
        process: `ray start --block`, the root of its processes.
        namespace: its network namespace, None for the machine's own.
        killed: gone for good.
    """

    index: int
    address: str
    process: subprocess.Popen[bytes]
    mark: str
    log: Path
    namespace: str | None = None
    killed: bool = False


class LocalCluster:
    """A running cluster (a context manager); everything that it started is gone after `stop`.

    Attributes:
        nodes: all nodes that ever were, by index; see `Node.killed`.
        address: HOST:PORT for `ray.init(address=...)`, RAY_ADDRESS and `runtime.address`.
        job_address: URL for `ray job submit --address` and of the dashboard.
        environment: what a process needs in its environment, before it imports Ray, to reach the cluster.
    """

    def __init__(
        self,
        nodes: int = 3,
        cpus: int = 2,
        gpus: int = 0,
        resources: Resources | Sequence[Resources] | None = None,
        *,
        namespaces: Namespaces = "off",
        dashboard_port: int | None = None,
        object_store_memory: int = 200_000_000,
        timeout: float = 120.0,
    ) -> None:
        """Describe the cluster; `start`, or the `with` statement, starts it.

        Args:
            nodes: with the head.
            cpus: of each node, logical.
            gpus: of each node, logical: they need not exist.
            resources: further resources of each node, or one mapping per node.
            namespaces: whether the workers get network namespaces of their own (needs root and iproute2).
            dashboard_port: on 127.0.0.1; None: a free one.
            object_store_memory: of each node, in bytes.
            timeout: seconds that a start or `add_node` may take.
        """
        each = list(resources) if isinstance(resources, Sequence) else [resources or {}] * nodes
        if nodes < 1 or len(each) != nodes:
            raise ClusterError(
                f"{nodes} nodes with the resources of {len(each)}: need one mapping per node, or one for all"
            )
        self.nodes: list[Node] = []
        self.job_address = ""
        self.environment: dict[str, str] = {}
        self._resources: list[Resources] = each
        self._cpus = cpus
        self._gpus = gpus
        self._namespaces: Namespaces = namespaces
        self._dashboard_port = dashboard_port
        self._memory = object_store_memory
        self._timeout = timeout
        self._identity = secrets.token_hex(3)
        self._prefix = f"127.{random.randrange(64, 255)}.{random.randrange(255)}"
        self._port = 0
        self._bridge: Bridge | None = None
        self._folder: Path | None = None

    @property
    def address(self) -> str:
        return f"{self._prefix}.1:{self._port}"

    @property
    def namespaces(self) -> bool:
        """Whether the workers have network namespaces of their own."""
        return self._bridge is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all nodes and wait until they are alive.

        Raises:
            ClusterError: it did not come up; nothing is left of it.
        """
        deadline = time.monotonic() + self._timeout
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="fb-"))
            self._bridge = self._make_bridge()
            if self._bridge:
                self._prefix = self._bridge.prefix
            token = token_environment(self._folder)
            self._port = free_port()
            port = self._dashboard_port or free_port()
            if not is_free(port, LOOPBACK):
                raise ClusterError(f"port {port} for the dashboard is taken; name another with --dashboard-port")
            self.job_address = f"http://{LOOPBACK}:{port}"
            self.environment = {
                **token,
                "RAY_ADDRESS": self.address,
                "RAY_API_SERVER_ADDRESS": self.job_address,
            }
            head = ["--head", f"--port={self._port}", f"--dashboard-host={LOOPBACK}", f"--dashboard-port={port}"]
            self._start_node([*head, f"--ray-client-server-port={free_port()}"], self._resources[0])
            self._wait_until(lambda: reachable(f"{self._prefix}.1", self._port), deadline)
            for resources in self._resources[1:]:
                self._start_node([f"--address={self.address}"], resources)
            self._wait_until(lambda: len(self.alive()) == len(self._resources), deadline)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes, remove namespaces and files; may be called twice. Signals are heeded afterwards."""
        with signals_later() as come:
            for node in self.nodes:
                node.killed = True
            try:
                kill_all([node.process for node in self.nodes], [f"{MARK}={node.mark}" for node in self.nodes])
            finally:
                if self._bridge:
                    self._bridge.remove()
                    self._bridge = None
                if self._folder:
                    shutil.rmtree(self._folder, ignore_errors=True)
                    self._folder = None
        for number in come:
            signal.raise_signal(number)

    def add_node(self, cpus: int | None = None, gpus: int | None = None, resources: Resources | None = None) -> int:
        """Start one more node, wait until it is alive, and return its index.

        Args:
            cpus: None: as many as the others have.
            gpus: the same.
            resources: further resources.

        Raises:
            ClusterError: it did not come up.
        """
        node = self._start_node([f"--address={self.address}"], resources or {}, cpus, gpus)
        try:
            self._wait_until(lambda: node.address in self.alive(), time.monotonic() + self._timeout)
        except BaseException:
            self.kill_node(node.index)
            raise
        return node.index

    def kill_node(self, index: int) -> None:
        """SIGKILL for every process of a node: it is gone for good. Returns when they are.

        Ray notices after some 15 s, as with a machine that lost its power, or as RAY_health_check_period_ms and
        RAY_health_check_failure_threshold in the environment say.
        """
        node = self.nodes[index]
        node.killed = True
        kill_all([node.process], [f"{MARK}={node.mark}"])

    def alive(self) -> list[str]:
        """Addresses of the nodes that Ray holds for alive; none while it does not answer."""
        try:
            answer = self._get("/api/v0/nodes?limit=1000")
        except (OSError, ValueError):
            return []
        found = answer["data"]["result"]["result"]
        return [str(node["node_ip"]) for node in found if node["state"] == "ALIVE"]

    def wait_alive(self, count: int, timeout: float = 60.0) -> None:
        """Wait until Ray holds `count` nodes for alive.

        Raises:
            ClusterError: it did not within `timeout` seconds.
        """
        self._wait_until(lambda: len(self.alive()) == count, time.monotonic() + timeout)

    def _make_bridge(self) -> Bridge | None:
        if self._namespaces == "off":
            return None
        try:
            return Bridge.create(self._identity)
        except NoNamespacesError as error:
            if self._namespaces == "on":
                raise ClusterError(str(error)) from None
            return None

    def _start_node(
        self, arguments: list[str], resources: Resources, cpus: int | None = None, gpus: int | None = None
    ) -> Node:
        assert self._folder is not None
        index = len(self.nodes)
        address = f"{self._prefix}.{index + 1}"
        folder = self._folder / str(index)  # nodes that share one disturb each other's jobs
        folder.mkdir()
        namespace = self._bridge.add(index) if self._bridge and index else None
        mark = f"{self._identity}-{index}"
        command = [
            *(["ip", "netns", "exec", namespace] if namespace else []),
            *[sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments],
            f"--node-ip-address={address}",
            f"--temp-dir={folder}",
            f"--num-cpus={self._cpus if cpus is None else cpus}",
            f"--num-gpus={self._gpus if gpus is None else gpus}",
            f"--resources={json.dumps(dict(resources))}",
            f"--object-store-memory={self._memory}",
            # What has a fixed port, or a fixed range of them, would meet the other nodes' there.
            f"--dashboard-agent-listen-port={free_port()}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--disable-usage-stats",
        ]
        environment = JOB_STOP | {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        environment |= {name: value for name, value in self.environment.items() if name.startswith("RAY_AUTH")}
        environment |= {MARK: mark, "PATH": search_path()}
        log = folder / "start.log"
        with log.open("wb") as output, signals_later() as come:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this program, which then ends the nodes
            )
            node = Node(index, address, process, mark, log, namespace)
            self.nodes.append(node)
        for number in come:
            signal.raise_signal(number)
        return node

    def _wait_until(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition():
            for node in self.nodes:
                if not node.killed and node.process.poll() is not None:
                    raise ClusterError(f"node {node.index} ended:\n{last_lines(node.log)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"not in time; Ray holds for alive: {', '.join(self.alive()) or 'nothing'}")
            time.sleep(0.1)

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(self.job_address + path)
        token = read_token(self.environment)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=10) as answer:
            return json.load(answer)


def search_path() -> str:
    """PATH with this Python's own commands first, so that jobs find `fedbench` beside it."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a text file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
