"""A Ray cluster and the actors of one experiment on it; who works for rounds and for arrivals builds on this."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.arrival_host import ArrivalHost
from fedbench.engine.memory import keep_freed_memory
from fedbench.engine.messages import HostSpec
from fedbench.engine.placement import count_actors, fitting_on_node
from fedbench.engine.pool import PoolServer
from fedbench.engine.server import Server
from fedbench.engine.waiting import Patience
from fedbench.errors import ConfigError, FedbenchError, LostActor, RunError
from fedbench.parameters import Vector
from fedbench.runtime import RuntimeSection
from fedbench.snapshots import Tree
from fedbench.training.scores import batch_borders
from fedbench.training.state import ClientState

START_TIMEOUT = 120.0
"""Seconds to wait for actors that the cluster has room for."""

RESERVE_TIMEOUT = 5.0
"""Seconds to wait for places after a loss, before the nodes are counted again."""

LOOK_INTERVAL = 10.0
"""Seconds between two looks at whether the cluster has grown."""

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
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own there, which ends the process at once
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise RunError(f"runtime.address={where}: no Ray cluster answers ({str(error).splitlines()[0]})") from None


class OnCluster:
    """The server actor and the client actors of one experiment, set up and asked."""

    def __init__(
        self,
        cluster: Cluster,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        runtime: RuntimeSection,
        server_class: type,
        server: Any,
    ) -> None:
        """Args:
        spec: given to every client actor, with its own GPU fraction.
        rows: rows of each client of the population.
        server: what the server actor is made from.
        """
        self._cluster = cluster
        self._spec = spec
        self._runtime = runtime
        self._server_class, self._server_spec = server_class, server
        self._borders = batch_borders(len(data.test), spec.evaluation_batch_size)
        self._next_look = time.monotonic() + LOOK_INTERVAL
        self._patience = Patience()
        self._shared = [ray.put(spec), ray.put(data), ray.put(list(rows))]
        self._start()

    def _start(self) -> None:
        """Create the server and set the clients up; everything is as before the first round."""
        self._server, served = self._cluster.serve(self._server_class, self._server_spec)
        try:
            self.devices: list[str] = self._patience.get(
                [client.prepare.remote(*self._shared) for client in self._cluster.clients], timeout=START_TIMEOUT
            )
            self._patience.get(served, timeout=START_TIMEOUT)
        except (RayError, GetTimeoutError) as error:
            raise own_error(error, "the actors did not start") from error

    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and running statistics."""
        model: tuple[Vector, Vector] = self._ask(self._server.model.remote())
        return model

    def peak_memory(self) -> list[int]:
        """Bytes, one entry per process that trains."""
        peaks: list[int] = self._ask([client.peak_memory.remote() for client in self._cluster.clients])
        return peaks

    def close(self) -> None:
        """Release everything; may be called twice."""
        if self._patience.gone:
            return
        self._cluster.release()

    def rebuild(self) -> None:
        """Start all actors anew, as many as the cluster has room for now.

        Raises:
            RunError: they do not start.
        """
        self._patience.hear()
        self._cluster.end_servers()
        self._cluster.recreate()
        self._start()

    def could_grow(self) -> bool:
        """Whether nodes have come that would let more actors work; looked at now and then."""
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK_INTERVAL
        self._patience.hear()
        return self._cluster.could_grow()

    def _placed(self, state: Tree) -> tuple[list[list[int]], dict[int, int]]:
        """What each actor holds and where each client is, of a state; from scratch for another number of actors."""
        actors, parts = self._cluster.actors, len(self._spec.table.parts)
        if len(state["held"]) == actors:
            home = state.get("home", {})
            return state["held"], home | {client: client % actors for client in state["clients"] if client not in home}
        return [[-1] * parts for _ in range(actors)], {client: client % actors for client in state["clients"]}

    def _client_states(self) -> dict[int, ClientState]:
        """Of all clients, wherever they are."""
        states: dict[int, ClientState] = {}
        if self._spec.stateful:
            for own in self._ask([client.all_states.remote() for client in self._cluster.clients]):
                states |= own
        return states

    def _put_client_states(self, states: dict[int, ClientState], home: Mapping[int, int], payload: Any) -> None:
        """Give every actor its clients, and the current parameters, which count as nothing sent.

        Args:
            payload: a reference to all parts.
        """
        calls = []
        everything = tuple(range(len(self._spec.table.parts)))
        for actor, client in enumerate(self._cluster.clients):
            calls.append(client.load.remote(everything, payload))
            own = {number: state for number, state in states.items() if home.get(number) == actor}
            if own:
                calls.append(client.put_states.remote(own))
        self._ask(calls)

    def _ask(self, references: Any) -> Any:
        try:
            return self._patience.get(references, timeout=self._runtime.round_timeout)
        except (RayError, GetTimeoutError) as error:
            raise own_error(error, "an actor died") from error


LOSSES = (RayActorError, ObjectLostError, ObjectStoreFullError, OutOfDiskError)
"""What Ray raises when a process or a node is gone, or has no room for what it should hold."""


def is_loss(error: BaseException) -> bool:
    """Whether a process or a node, or what it held, is gone."""
    return isinstance(error, LOSSES) or (isinstance(error, RayTaskError) and isinstance(error.cause, LOSSES))


def own_error(error: Exception, what: str) -> FedbenchError:
    """What to raise for a Ray error: the error that fedbench raised over there, or one line of its own."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, FedbenchError):
        return error.cause
    if isinstance(error, GetTimeoutError):
        return RunError(f"{what}: no answer in time")
    if is_loss(error):
        loss = error.cause if isinstance(error, RayTaskError) else error
        return LostActor(f"{what}: {str(loss).strip().splitlines()[0]}")
    return RunError(f"{what}: {type(error).__name__}: {str(error).strip().splitlines()[-1]}")
