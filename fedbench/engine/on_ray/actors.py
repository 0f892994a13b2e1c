"""A Ray cluster and the actors of one experiment on it; who works for rounds and for arrivals builds on this."""

import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from fedbench.config.runtime import RuntimeSection
from fedbench.engine.arrivals.client_host import ArrivalHost
from fedbench.engine.on_ray.allocator import keep_freed_memory
from fedbench.engine.on_ray.placement import count_actors, fitting_on_node
from fedbench.engine.rounds.pool_server import PoolServer
from fedbench.engine.rounds.server import Server
from fedbench.errors import ConfigError, RunError

START_TIMEOUT = 120.0
"""Seconds to wait for a place in the cluster, or for one actor to start."""

START_SHARE = 10.0
"""Seconds more for each further actor: those of one machine load PyTorch in each other's way."""

RESERVE_TIMEOUT = 5.0
"""Seconds to wait for places after a loss, before the nodes are counted again."""

DEFAULT_GPU_FRACTION = 0.25

HEAD, HEAD_SHARE = "node:__internal_head__", 0.0001
"""Ray's own resource, of which the head node alone has 1: taking any of it is being there."""


class ClientActor(ArrivalHost):
    """A client host in a process of its own."""

    def __init__(self) -> None:
        keep_freed_memory()

    def node(self) -> str:
        """The id of the node that it is on."""
        node: str = ray.get_runtime_context().get_node_id()
        return node


class Renewable:
    """A server whose process may serve one experiment after the other."""

    def renew(self, spec: Any) -> None:
        """Be as if just made from `spec`."""
        vars(self).clear()
        self.__init__(spec)  # type: ignore[misc]


class ServerActor(Renewable, Server):
    """The server in a process of its own."""


class PoolServerActor(Renewable, PoolServer):
    """A server with a pool of models, in a process of its own."""


class Cluster:
    """A connection to Ray and the actors of one experiment, which start while the data is still being read.

    Attributes:
        actors: number of client actors.
        gpus_each: fraction of a GPU that each holds; 0 on CPUs.
        kept: `release` leaves the actors to the next experiment.
    """

    kept = False

    def __init__(self, runtime: RuntimeSection, cohort: int) -> None:
        """Connect (or start a local Ray) and create the actors.

        Args:
            cohort: participants of a round.

        Raises:
            ConfigError: the cluster cannot place what is asked for.
            RunError: no Ray at `runtime.address`.
        """
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            connect(runtime.address)
        self._group: PlacementGroup | None = None
        self._servers: dict[type, Any] = {}
        try:
            self._runtime = runtime
            self._strategy = runtime.placement.upper()
            self.actors = self._count(runtime, cohort)
            self._most = self.actors if runtime.actors or runtime.clients_per_actor else cohort
            self.clients = self._create_clients()
        except BaseException:
            self.close()
            raise

    def _count(self, runtime: RuntimeSection, cohort: int) -> int:
        """Actors that are asked for and have room, now or within `runtime.wait_for_nodes`."""
        deadline, told = time.monotonic() + runtime.wait_for_nodes, False
        while True:
            nodes = node_resources()
            present = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in set().union(*nodes)}
            default = DEFAULT_GPU_FRACTION if present.get("GPU") else 0.0
            self.gpus_each = default if runtime.gpus_per_client is None else runtime.gpus_per_client
            try:
                return count_actors(
                    cohort=cohort,
                    actors=runtime.actors,
                    clients_per_actor=runtime.clients_per_actor,
                    each=self._each(),
                    present=present,
                    room=self._room(),
                )
            except ConfigError as error:
                if time.monotonic() >= deadline:
                    raise
                if not told:
                    sys.stderr.write(f"waiting up to {runtime.wait_for_nodes:g} s for nodes: {error}\n")
                    told = True
                time.sleep(1.0)

    def _create_clients(self) -> list[Any]:
        if not self._reserve(START_TIMEOUT):
            raise RunError(
                f"{self.actors} actors of {self._each()} found no place within {START_TIMEOUT:g} s: "
                "is another experiment using the cluster?"
            )
        return [self._create_client(index) for index in range(self.actors)]

    def _each(self) -> dict[str, float]:
        """What one client actor takes."""
        gpus = {"GPU": self.gpus_each} if self.gpus_each else {}
        return {"CPU": self._runtime.cpus_per_client} | gpus | self._runtime.resources

    def _reserve(self, timeout: float) -> bool:
        """A place for each actor; whether they were to be had in time."""
        # All or nothing: two experiments that took actors one by one could wait for each other for ever.
        if self._group is not None:
            remove_placement_group(self._group)
        self._group = placement_group([self._each()] * self.actors, strategy=self._strategy)
        return bool(self._group.wait(timeout))

    def _create_client(self, index: int) -> Any:
        assert self._group is not None
        actor: Any = ray.remote(ClientActor)
        return actor.options(
            num_cpus=self._runtime.cpus_per_client,
            num_gpus=self.gpus_each,
            resources=self._runtime.resources,
            scheduling_strategy=self._in_bundle(index),
        ).remote()

    def _in_bundle(self, index: int) -> PlacementGroupSchedulingStrategy:
        assert self._group is not None
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index)

    def create_server(self, kind: type, spec: Any) -> Any:
        """The server's actor, which takes no resources, where `runtime.server` says.

        Args:
            kind: its class.
            spec: what it is made from.
        """
        actor: Any = ray.remote(kind)
        if self._runtime.server == "clients":
            return actor.options(num_cpus=0, scheduling_strategy=self._in_bundle(0)).remote(spec)
        return actor.options(num_cpus=0, resources={HEAD: HEAD_SHARE}).remote(spec)

    def create_on(self, node: str, kind: type, *arguments: Any) -> Any:
        """An actor that takes no resources, on the node of this id.

        Args:
            kind: its class; arguments: of its constructor.
        """
        actor: Any = ray.remote(kind)
        return actor.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            *arguments
        )

    def replace_client(self, index: int) -> Any:
        """A new actor in the place of one that died."""
        ray.kill(self.clients[index])
        self.clients[index] = self._create_client(index)
        return self.clients[index]

    def is_placed(self) -> bool:
        """Whether every actor has its place; not so once a node is gone."""
        return bool(placement_group_table(self._group)["state"] == "CREATED")

    def recreate(self) -> None:
        """All client actors anew: as many as were asked for, or as there is room for now, if that is less.

        Raises:
            RunError: there is no room for a single one, and none comes.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self.actors = min(self._most, self._room())
            # A node that is gone is counted for some seconds more, and has no place to give.
            if self.actors and self._reserve(RESERVE_TIMEOUT):
                break
            if time.monotonic() > deadline:
                raise RunError(f"the cluster has lost its nodes: no place for an actor within {START_TIMEOUT:g} s")
            time.sleep(1.0)
        self.clients = [self._create_client(index) for index in range(self.actors)]

    def could_grow(self) -> bool:
        """Whether nodes have come that would let more actors work."""
        return self.actors < min(self._most, self._room())

    def _room(self) -> int:
        """Actors that the nodes have room for, all their resources counted."""
        each = self._each()
        return sum(fitting_on_node(node, each) for node in node_resources())

    def serve(self, kind: type, spec: Any) -> tuple[Any, Any]:
        """A server actor made from `spec`, and a reference that is ready when it is."""
        if kind in self._servers:
            return self._servers[kind], self._servers[kind].renew.remote(spec)
        self._servers[kind] = server = self.create_server(kind, spec)
        return server, server.__ray_ready__.remote()

    def everyone(self) -> list[Any]:
        """All actors that there are."""
        return [*self.clients, *self._servers.values()]

    def end_servers(self) -> None:
        """End all server actors."""
        while self._servers:
            ray.kill(self._servers.popitem()[1])

    def release(self) -> None:
        """The experiment has ended: close, unless the actors are kept for the next one."""
        if not self.kept:
            self.close()

    def close(self) -> None:
        """Give the actors' resources back, and end a Ray that was started here."""
        if ray.is_initialized():
            self.end_servers()
        if self._group is not None and ray.is_initialized():
            remove_placement_group(self._group)
        self._group = None
        if self._owns_ray:
            ray.shutdown()


def start_timeout(actors: int) -> float:
    """Seconds to wait for so many actors to start."""
    return START_TIMEOUT + START_SHARE * (actors - 1)


def node_resources() -> list[dict[str, float]]:
    """What each living node has in all."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def connect(address: str | None) -> None:
    """Join the cluster at `address` (or of RAY_ADDRESS), or start a local Ray without dashboard.

    Raises:
        RunError: nothing answers there.
    """
    local = address is None and "RAY_ADDRESS" not in os.environ
    options: dict[str, Any] = {"include_dashboard": False} if local else {"address": address}
    if local:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray guards a local cluster with a token by itself, and would say so every time.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    # What Ray has to say of calls whose results nobody waits for any more would follow fedbench's own last line.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own there, which ends the process at once
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise RunError(f"runtime.address={where}: no Ray cluster answers ({str(error).splitlines()[0]})") from None
