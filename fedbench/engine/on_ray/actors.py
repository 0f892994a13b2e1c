"""The Ray actors of one experiment: how they are created, placed, replaced and ended."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from fedbench.components.named_code import Shipment
from fedbench.config.runtime import RuntimeSection
from fedbench.engine.on_ray.client_actor import ClientActor
from fedbench.engine.on_ray.connection import disconnect, is_local, join
from fedbench.engine.on_ray.liveness import ray_answers
from fedbench.engine.on_ray.placement import count_actors, fitting_on_node, gpu_share
from fedbench.engine.on_ray.servers import Put, ServerHere, ServerInActor, ServerLink, Wait
from fedbench.errors import ConfigError, LostDevice, RunError

START_TIMEOUT = 120.0
"""Seconds to wait for a placement group, or for one actor to start."""

START_TIMEOUT_PER_ACTOR = 10.0
"""Seconds to wait in addition for each further actor: actors of one machine slow each other down loading PyTorch."""

ANSWER_TIMEOUT = 2.0
"""Seconds in which an actor answers, after another was lost, to be kept: one that trains for longer is replaced."""

RESERVE_TIMEOUT = 5.0
"""Seconds to wait for a placement group after a node is lost, before the nodes are counted again."""

HEAD, HEAD_SHARE = "node:__internal_head__", 0.0001
"""Ray's own resource of the head node, and the amount of it that places an actor there."""


class ActorCluster:
    """A connection to Ray, and the client and server actors that one experiment runs on.

    Client actors are created at once, so that they start while the data is still being read.

    Attributes:
        actor_count: number of client actors.
        client_actors: handles of the client actors.
        gpus_each: fraction of a GPU that each client actor holds; 0 on CPUs.
        keep_on_release: whether `release` leaves the actors running for the next experiment.
    """

    keep_on_release = False

    def __init__(self, runtime: RuntimeSection, cohort: int, *, owns_ray: bool = False) -> None:
        """Connect to Ray, or start a local one, and create the client actors.

        Args:
            runtime: address, number of actors and what each of them takes.
            cohort: participants of a round; there are at most so many actors, unless the configuration says.
            owns_ray: whether Ray was joined for this object alone, which then leaves it when it closes.

        Raises:
            ConfigError: the cluster has no room for the actors that the configuration asks for.
            RunError: no Ray answers at `runtime.address`, or the actors find no place in time.
        """
        self._owns_ray = join(runtime.address) or owns_ray
        self._group: PlacementGroup | None = None
        self._servers: dict[type, Any] = {}
        try:
            self._runtime = runtime
            self._strategy = runtime.placement.upper()
            self.actor_count = self._count(runtime, cohort)
            self._most_actors = self.actor_count if runtime.actors or runtime.clients_per_actor else cohort
            self.client_actors = self._create_clients()
        except BaseException:
            self.close()
            raise

    def _count(self, runtime: RuntimeSection, cohort: int) -> int:
        """Number of client actors that are asked for; waits up to `runtime.wait_for_nodes` until they have room.

        Raises:
            ConfigError: there is no room for them in time.
        """
        deadline, announced = time.monotonic() + runtime.wait_for_nodes, False
        while True:
            nodes = node_resources()
            present = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in set().union(*nodes)}
            try:
                self.gpus_each = gpu_share(runtime, int(present.get("GPU", 0)), cohort)
                return count_actors(
                    cohort=cohort,
                    actors=runtime.actors,
                    clients_per_actor=runtime.clients_per_actor,
                    each=self._resources_per_actor(),
                    present=present,
                    room=self._capacity(),
                )
            except ConfigError as error:
                if time.monotonic() >= deadline:
                    raise
                if not announced:
                    sys.stderr.write(f"waiting up to {runtime.wait_for_nodes:g} s for nodes: {error}\n")
                    announced = True
                time.sleep(1.0)

    def _create_clients(self) -> list[Any]:
        if not self._reserve(START_TIMEOUT):
            raise RunError(
                f"{self.actor_count} actors of {self._resources_per_actor()} found no place within "
                f"{START_TIMEOUT:g} s: is another experiment using the cluster?"
            )
        return [self._create_client(index) for index in range(self.actor_count)]

    def _resources_per_actor(self) -> dict[str, float]:
        """Resources that one client actor takes, by Ray's names."""
        gpus = {"GPU": self.gpus_each} if self.gpus_each else {}
        return {"CPU": self._runtime.cpus_per_client} | gpus | self._runtime.resources

    def _reserve(self, timeout: float) -> bool:
        """Reserve one bundle for each client actor; whether all are reserved within `timeout` seconds."""
        # All or nothing: two experiments that reserved actors one by one could wait for each other for ever.
        if self._group is not None:
            remove_placement_group(self._group)
        self._group = placement_group([self._resources_per_actor()] * self.actor_count, strategy=self._strategy)
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
        """Create a server actor, which takes no resources, at the place that `runtime.server` says.

        Args:
            kind: its class.
            spec: argument of its constructor.
        """
        actor: Any = ray.remote(kind)
        if self._runtime.server == "clients":
            return actor.options(num_cpus=0, scheduling_strategy=self._in_bundle(0)).remote(Shipment(spec))
        return actor.options(num_cpus=0, resources={HEAD: HEAD_SHARE}).remote(Shipment(spec))

    def create_on(self, node: str, kind: type, *arguments: Any) -> Any:
        """Create an actor that takes no resources on the node with the id `node`.

        Args:
            node: Ray's id of the node.
            kind: class of the actor.
            arguments: arguments of its constructor.
        """
        actor: Any = ray.remote(kind)
        return actor.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            *arguments
        )

    def replace_client(self, index: int) -> Any:
        """End client actor `index`, which may have died already, and create a new one in its bundle."""
        ray.kill(self.client_actors[index])
        self.client_actors[index] = self._create_client(index)
        return self.client_actors[index]

    def is_placed(self) -> bool:
        """Whether every client actor has its bundle; False once a node of theirs is gone."""
        return bool(placement_group_table(self._group)["state"] == "CREATED")

    def recreate(self) -> None:
        """Replace the actors that are lost or busy; where a node is lost or has come, create all client actors again.

        There are then as many client actors as were asked for, or fewer where there is less room now.

        Raises:
            RunError: there is no room for a single actor within `START_TIMEOUT` seconds.
        """
        if silent(list(self._servers.values()), ANSWER_TIMEOUT):
            self.end_servers()
        if self._revive():
            return
        self.end_servers()
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self.actor_count = min(self._most_actors, self._capacity())
            # Ray counts a node that is gone for some seconds more, and cannot place actors there.
            if self.actor_count and self._reserve(RESERVE_TIMEOUT):
                break
            if time.monotonic() > deadline:
                raise RunError(f"the cluster has lost its nodes: no place for an actor within {START_TIMEOUT:g} s")
            time.sleep(1.0)
        self.client_actors = [self._create_client(index) for index in range(self.actor_count)]

    def _revive(self) -> bool:
        """Create the client actors again that do not answer, each in its bundle; whether all of them answer then.

        Starting an actor takes longer than many rounds, and a lost process is more frequent than a lost node.
        """
        if not self.is_placed() or self.could_grow():
            return False
        for index in silent(self.client_actors, ANSWER_TIMEOUT):
            self.replace_client(index)
        deadline = time.monotonic() + start_timeout(self.actor_count)
        while silent(self.client_actors, 1.0):
            if not self.is_placed() or time.monotonic() > deadline:
                return False
        return True

    def could_grow(self) -> bool:
        """Whether new nodes have brought room for more of the actors that were asked for."""
        return self.actor_count < min(self._most_actors, self._capacity())

    def _capacity(self) -> int:
        """Number of client actors that fit on the nodes, counting resources in use as free."""
        each = self._resources_per_actor()
        return sum(fitting_on_node(node, each) for node in node_resources())

    def start_server(self, kind: type, spec: Any, wait: Wait, put: Put) -> tuple[ServerLink, list[Any]]:
        """Create a server from `spec` at the place that `runtime.server` says; its actor may be there already.

        Args:
            kind: class of the server's actor.
            spec: argument of its constructor.
            wait, put: as for `ServerHere`.

        Returns:
            The server, and references that become ready when it is.
        """
        if self.server_is_here():
            return ServerHere(kind, spec, wait, put), []
        if kind in self._servers:
            actor = self._servers[kind]
            return ServerInActor(actor, wait), [actor.reset.remote(Shipment(spec))]
        self._servers[kind] = actor = self.create_server(kind, spec)
        return ServerInActor(actor, wait), [actor.__ray_ready__.remote()]

    def server_is_here(self) -> bool:
        """Whether the server of a run is in this process: where that is asked for, or this process has started Ray."""
        return self._runtime.server == "driver" or (self._runtime.server == "auto" and is_local())

    def all_actors(self) -> list[Any]:
        """Handles of all client and server actors."""
        return [*self.client_actors, *self._servers.values()]

    def end_servers(self) -> None:
        """End all server actors."""
        while self._servers:
            ray.kill(self._servers.popitem()[1])

    def release(self) -> None:
        """End the experiment's use of the actors: close, unless `keep_on_release` leaves them to the next one."""
        if not self.keep_on_release:
            self.close()

    def close(self) -> None:
        """End all actors, give their resources back, and end a local Ray that this object has started.

        Of a Ray that does not answer any more nothing is asked.
        """
        if ray_answers():
            self.end_servers()
            if self._group is not None:
                remove_placement_group(self._group)
        self._servers.clear()
        self._group = None
        if self._owns_ray:
            disconnect()


def silent(actors: Sequence[Any], timeout: float) -> list[int]:
    """Indices of the actors that have died, have lost their GPU, or do not answer within `timeout` seconds."""
    references = [actor.__ray_call__.remote(check_usable) for actor in actors]
    if not references:
        return []
    ready, _ = ray.wait(references, num_returns=len(references), timeout=timeout)
    answered = set()
    for reference in ready:
        with suppress(RayError):
            ray.get(reference)
            answered.add(reference)
    return [index for index, reference in enumerate(references) if reference not in answered]


def check_usable(actor: object) -> None:
    """To be called in an actor's process.

    Raises:
        LostDevice: it has lost its GPU.
    """
    if lost := getattr(actor, "lost_device", ""):
        raise LostDevice(lost)


def start_timeout(actors: int) -> float:
    """Seconds to wait until `actors` actors have started."""
    return START_TIMEOUT + START_TIMEOUT_PER_ACTOR * (actors - 1)


def node_resources() -> list[dict[str, float]]:
    """Total resources of each living node, by Ray's names."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]
