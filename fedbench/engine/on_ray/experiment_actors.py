"""The common base of the executors on a Ray cluster: sets actors up, waits for their results, moves client states."""

import time
from collections.abc import Sequence
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
from fedbench.components.named_code import Shipment
from fedbench.config.runtime import RuntimeSection
from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.messages import DeviceRecord, HostSpec
from fedbench.engine.on_ray.actors import ActorCluster, start_timeout
from fedbench.engine.on_ray.liveness import ResultWaiter
from fedbench.errors import FedbenchError, LostActor, RunError
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.layout import Vector
from fedbench.training.scores import EvaluationBatch, evaluation_batches

PEAK_TIMEOUT = 4.0
"""Seconds in which an actor must say how much memory it has taken."""

GROWTH_CHECK_INTERVAL = 10.0
"""Seconds between two checks of whether the cluster has grown."""


class ActorExecutor:
    """Base of the executors on a Ray cluster: owns the server actor and the client actors of one experiment."""

    def __init__(
        self,
        cluster: ActorCluster,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        runtime: RuntimeSection,
        server_class: type,
        server: Any,
        test_rows: Sequence[IntArray] = (),
    ) -> None:
        """Set the actors up.

        Args:
            cluster: the actors.
            spec: settings of every client host.
            data: the data set, put into the object store once.
            rows: for each client of the population, its rows of the training split.
            runtime: timeouts and retries.
            server_class: class of the server actor.
            server: what the server actor is made from.
            test_rows: for each client, its held-out rows of the training split; (): none are held out.

        Raises:
            RunError: the actors do not start.
        """
        self._cluster = cluster
        self._spec = spec
        self._runtime = runtime
        self._server_class, self._server_spec = server_class, server
        self._batches = evaluation_batches(data.scored_rows, spec.evaluation_batch_size)
        self._next_look = time.monotonic() + GROWTH_CHECK_INTERVAL
        self._waiter = ResultWaiter()
        self._shared = [ray.put(Shipment(spec)), ray.put(Shipment(data)), ray.put(list(rows)), ray.put(list(test_rows))]
        self._start()

    def _start(self) -> None:
        """Create the server and set the clients up, in the state before the first round.

        Sets `_home`, {client: index of the actor that holds its state}, and `_held`, for each actor the versions of the
        parts that it holds (-1: none).
        """
        self._home: dict[int, int] = {}
        self._held = [[-1] * len(self._spec.table.parts) for _ in self._cluster.client_actors]
        timeout = start_timeout(self._cluster.actor_count)
        self._server, server_ready = self._cluster.start_server(
            self._server_class, self._server_spec, self._fetch, self._put
        )
        try:
            self._devices: list[DeviceRecord] = self._waiter.get(
                [client.prepare.remote(*self._shared) for client in self._cluster.client_actors], timeout
            )
            self._waiter.get(server_ready, timeout)
        except (RayError, GetTimeoutError) as error:
            raise as_fedbench_error(error, "the actors did not start") from error

    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and the global running statistics, both float32."""
        model: tuple[Vector, Vector] = self._server.ask("model")
        return model

    def devices(self) -> list[DeviceRecord]:
        """The device of each client actor."""
        return self._devices

    def peak_memory(self) -> list[int]:
        """Peak memory in bytes, one entry for each client actor that is still alive."""
        peaks: list[int] = []
        for reference in [client.peak_memory.remote() for client in self._cluster.client_actors]:
            # The model is complete, whatever has befallen the cluster: nothing needs to be computed again.
            with suppress(RunError, RayError, GetTimeoutError):
                peaks.append(self._waiter.get(reference, PEAK_TIMEOUT))
        return peaks

    def close(self) -> None:
        """Release all resources; may be called twice."""
        self._cluster.release()
        # The two refer to each other: models and data would stay until Python next looks for such circles.
        vars(self).pop("_server", None)
        self._shared = []

    def rebuild(self) -> None:
        """Have all actors, as many as the cluster has room for now, in the state before the first round.

        Raises:
            RunError: they do not start.
        """
        self._waiter.wait_for_head()
        self._cluster.recreate()
        self._start()

    def could_grow(self) -> bool:
        """Whether new nodes have brought room for more actors; checked every `GROWTH_CHECK_INTERVAL` seconds."""
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + GROWTH_CHECK_INTERVAL
        self._waiter.wait_for_head()
        return self._cluster.could_grow()

    def _restored_places(self, state: Tree) -> tuple[list[list[int]], dict[int, int]]:
        """The places of parts and client states, according to a restored state.

        Where the state was taken with another number of actors, no actor holds any part, and clients are dealt out
        evenly.

        Returns:
            For each actor, the versions of the parts that it holds (-1: none); and {client: actor with its state}.
        """
        actors, parts = self._cluster.actor_count, len(self._spec.table.parts)
        if len(state["held"]) == actors:
            home = state.get("home", {})
            return state["held"], home | {client: client % actors for client in state["clients"] if client not in home}
        return [[-1] * parts for _ in range(actors)], {client: client % actors for client in state["clients"]}

    def _client_states(self) -> dict[int, ClientState]:
        """States of all clients, collected from all actors; empty where clients keep none."""
        states: dict[int, ClientState] = {}
        if self._spec.stateful:
            for actor_states in self._ask([client.all_states.remote() for client in self._cluster.client_actors]):
                states |= actor_states
        return states

    def _put_client_states(self, states: dict[int, ClientState], payload: Any) -> None:
        """Give every actor its clients' states and the current parameters; neither counts as transport bytes.

        Args:
            states: {client: state}; each goes to the client's home.
            payload: reference to the values of all parts.
        """
        calls = []
        everything = tuple(range(len(self._spec.table.parts)))
        for actor, client in enumerate(self._cluster.client_actors):
            calls.append(client.load.remote(everything, payload))
            actor_states = {number: state for number, state in states.items() if self._home.get(number) == actor}
            if actor_states:
                calls.append(client.put_states.remote(actor_states))
        self._ask(calls)

    def _move_home(self, client: int, actor: int) -> Any:
        """Make `actor` the home of a client.

        Returns:
            Reference to the client's state, which its former home gives up; None where clients keep no state, or where
            the actor holds it already.
        """
        former = self._home.get(client, actor)
        self._home[client] = actor
        if not self._spec.stateful or former == actor:
            return None
        return self._cluster.client_actors[former].take_state.remote(client)

    def _client0_for(self, actor: int) -> Any:
        """Reference to client 0's state, for an actor that evaluates with its running statistics and lacks them.

        Returns:
            None where the actor does not need it or holds it itself.
        """
        holder = self._home.get(0, actor)
        if self._spec.evaluation_statistics != "client0" or holder == actor:
            return None
        return self._cluster.client_actors[holder].copy_state.remote(0)

    def _batches_for(self, actor: int) -> tuple[EvaluationBatch, ...]:
        """The evaluation minibatches that an actor scores, a consecutive share of all of them."""
        batches, actors = len(self._batches), self._cluster.actor_count
        return self._batches[batches * actor // actors : batches * (actor + 1) // actors]

    def _fetch(self, references: Any) -> Any:
        """What `_ask` returns, of values that may lie in Ray's object store, which ends with Ray's daemon."""
        self._waiter.check_daemon()
        return self._ask(references)

    def _put(self, value: Any) -> Any:
        """Put a value into Ray's object store; returns a reference to it.

        Raises:
            FedbenchError: there is no room for it, or the store is gone.
        """
        self._waiter.check_daemon()
        try:
            return ray.put(value)
        except RayError as error:
            raise as_fedbench_error(error, "what the server sends could not be stored") from error

    def _ask(self, references: Any) -> Any:
        """Results of one or several actor calls, waited for up to `runtime.round_timeout` seconds.

        Raises:
            FedbenchError: a call failed, took too long, or its actor died.
        """
        try:
            return self._waiter.get(references, timeout=self._runtime.round_timeout)
        except GetTimeoutError:
            limit = self._runtime.round_timeout
            raise RunError(f"no answer of the actors within runtime.round_timeout={limit:g} s; raise it") from None
        except RayError as error:
            raise as_fedbench_error(error, "an actor died") from error


LOSS_ERRORS = (RayActorError, ObjectLostError, ObjectStoreFullError, OutOfDiskError)
"""Errors that Ray raises when a process or a node is gone, or has no room for an object that it should hold."""


def is_loss(error: BaseException) -> bool:
    """Whether a process, a node or an object is lost, so that the run has to go back to a checkpoint."""
    return isinstance(error, LOSS_ERRORS) or (isinstance(error, RayTaskError) and isinstance(error.cause, LOSS_ERRORS))


def as_fedbench_error(error: Exception, what: str) -> FedbenchError:
    """The `FedbenchError` to raise in place of a Ray error.

    Args:
        error: the error that Ray raised here.
        what: begins the message: what went wrong, or what was being done.

    Returns:
        The error that fedbench code raised in the actor, where it did; else a `LostActor` where an actor, a node or an
        object is lost, or a `RunError`.
    """
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
