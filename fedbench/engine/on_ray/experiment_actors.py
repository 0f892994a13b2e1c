"""The actors of one experiment on a cluster, set up and asked: what rounds and arrivals have in common."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from fedbench.checkpoints.state import Tree
from fedbench.config.runtime import RuntimeSection
from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.messages import HostSpec
from fedbench.engine.on_ray.actors import Cluster, start_timeout
from fedbench.engine.on_ray.liveness import Patience
from fedbench.errors import FedbenchError, LostActor, RunError
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.layout import Vector
from fedbench.training.scores import batch_borders

LOOK_INTERVAL = 10.0
"""Seconds between two looks at whether the cluster has grown."""


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
        timeout = start_timeout(self._cluster.actors)
        self._server, served = self._cluster.serve(self._server_class, self._server_spec)
        try:
            self.devices: list[str] = self._patience.get(
                [client.prepare.remote(*self._shared) for client in self._cluster.clients], timeout
            )
            self._patience.get(served, timeout)
        except (RayError, GetTimeoutError) as error:
            raise own_error(error, "the actors did not start") from error

    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and running statistics."""
        model: tuple[Vector, Vector] = self._ask(self._server.model.remote())
        return model

    def peak_memory(self) -> list[int]:
        """Bytes, one entry per process that trains and is still there."""
        peaks: list[int] = []
        for answer in [client.peak_memory.remote() for client in self._cluster.clients]:
            with suppress(LostActor):  # the model is complete: not worth doing anything again
                peaks.append(self._ask(answer))
        return peaks

    def close(self) -> None:
        """Release everything; may be called twice."""
        if not self._patience.gone:
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

    def _client0_for(self, actor: int, home: Mapping[int, int]) -> Any:
        """Client 0's state for an actor that scores with it and does not have it.

        Args:
            home: the actor at which a client is.
        """
        where = home.get(0, actor)
        if self._spec.evaluation_statistics != "client0" or where == actor:
            return None
        return self._cluster.clients[where].copy_state.remote(0)

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
    if isinstance(error, OutOfMemoryError):
        return RunError(f"{what}: a node has run out of memory; set runtime.actors to fewer")
    if is_loss(error):
        loss = error.cause if isinstance(error, RayTaskError) else error
        return LostActor(f"{what}: {str(loss).strip().splitlines()[0]}")
    return RunError(f"{what}: {type(error).__name__}: {str(error).strip().splitlines()[-1]}")
