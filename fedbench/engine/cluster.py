"""Client actors and the server actor on a Ray cluster: the executor that experiments use."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from fedbench.config import RuntimeSection
from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.client import ClientHost
from fedbench.engine.executor import (
    EvaluationPhase,
    Executor,
    TrainingPhase,
    accepted_clients,
    check_failures,
    stale_parts,
)
from fedbench.engine.memory import keep_freed_memory
from fedbench.engine.messages import (
    ClientReport,
    EvaluationReport,
    HostReport,
    HostSpec,
    RoundOutcome,
    RoundPlan,
    WorkOrder,
)
from fedbench.engine.placement import assign, count_actors
from fedbench.engine.pool import PoolServer
from fedbench.engine.server import Server, ServerSpec
from fedbench.errors import FedbenchError, RunError
from fedbench.parameters import Vector
from fedbench.parts import PartTable
from fedbench.training.scores import batch_borders

START_TIMEOUT = 120.0
"""Seconds to wait for actors that the cluster has room for."""

DEFAULT_GPU_FRACTION = 0.25
INT64_BYTES = 8


class ClientActor(ClientHost):
    """A client host in a process of its own."""

    def __init__(self) -> None:
        keep_freed_memory()


class ServerActor(Server):
    """The server in a process of its own."""


class PoolServerActor(PoolServer):
    """A server with a pool of models, in a process of its own."""


class Cluster:
    """A connection to Ray and the actors of one experiment, which start while the data is still being read.

    Attributes:
        actors: number of client actors.
        gpus_each: fraction of a GPU that each holds; 0 on CPUs.
    """

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
        try:
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
            default = DEFAULT_GPU_FRACTION if gpus else 0.0
            self.gpus_each = default if runtime.gpus_per_client is None else runtime.gpus_per_client
            self.actors = count_actors(
                cohort=cohort,
                actors=runtime.actors,
                clients_per_actor=runtime.clients_per_actor,
                cpus_each=runtime.cpus_per_client,
                gpus_each=self.gpus_each,
                cpus=cpus,
                gpus=gpus,
            )
            self.clients = self._create_clients(runtime.cpus_per_client)
        except BaseException:
            self.close()
            raise

    def _create_clients(self, cpus_each: float) -> list[Any]:
        # All or nothing: two experiments that took actors one by one could wait for each other for ever.
        bundle = {"CPU": cpus_each} | ({"GPU": self.gpus_each} if self.gpus_each else {})
        self._group = placement_group([bundle] * self.actors)
        if not self._group.wait(START_TIMEOUT):
            raise RunError(
                f"{self.actors} actors of {bundle} found no place within {START_TIMEOUT:g} s: "
                "is another experiment using the cluster?"
            )
        actor: Any = ray.remote(ClientActor)
        return [
            actor.options(
                num_cpus=cpus_each,
                num_gpus=self.gpus_each,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=index),
            ).remote()
            for index in range(self.actors)
        ]

    def close(self) -> None:
        """Give the actors' resources back, and end a Ray that was started here."""
        if self._group is not None and ray.is_initialized():
            remove_placement_group(self._group)
        self._group = None
        if self._owns_ray:
            ray.shutdown()


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
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise RunError(f"runtime.address={where}: no Ray cluster answers ({str(error).splitlines()[0]})") from None


class RayExecutor(Executor):
    """Rounds on a cluster: one call per actor and round, parameters by reference through the object store."""

    def __init__(
        self,
        cluster: Cluster,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        server: ServerSpec,
        runtime: RuntimeSection,
    ) -> None:
        """Args:
        spec: given to every client actor, with its own GPU fraction.
        rows: rows of each client of the population.
        server: what the server actor is made from.
        """
        self._cluster = cluster
        self._spec = spec
        self._runtime = runtime
        self._sizes = [len(part) for part in rows]
        self._borders = batch_borders(len(data.test), spec.evaluation_batch_size)
        self._home: dict[int, int] = {}
        self._queues: tuple[tuple[int, ...], ...] = ()
        self._received: list[Any] = []
        self._combines = not (server.algorithm.rule().individual or server.algorithm.has_pool())
        actor: Any = ray.remote(PoolServerActor if server.algorithm.has_pool() else ServerActor)
        self._server = actor.options(num_cpus=0).remote(server)
        shared = [ray.put(spec), ray.put(data), ray.put(list(rows))]
        try:
            self.devices: list[str] = ray.get(
                [client.prepare.remote(*shared) for client in cluster.clients], timeout=START_TIMEOUT
            )
            versions = ray.get(self._server.versions.remote(), timeout=START_TIMEOUT)
        except (RayError, GetTimeoutError) as error:
            raise _own_error(error, "the actors did not start") from error
        self._versions: tuple[int, ...] = versions
        self._held = [[-1] * len(versions) for _ in cluster.clients]

    def plan(self, round_index: int) -> RoundPlan:
        plan: RoundPlan = self._ask(self._server.plan.remote(round_index))
        self._versions = plan.versions
        return plan

    def train(self, plan: RoundPlan) -> TrainingPhase:
        self._queues = assign(plan.cohort, self._sizes, self._cluster.actors, self._home)
        payloads = Payloads(self._server, self._spec.table)
        orders: dict[Any, tuple[int, Any, WorkOrder]] = {}
        for actor, queue in enumerate(self._queues):
            if not queue:
                continue
            stale = self._start_parts(actor) if plan.own_starts else self._bring_up_to_date(actor)
            arriving = self._arriving(actor, queue)
            order = plan.order(
                queue,
                stale=stale,
                combine=self._combines and len(queue) > 1,
                on_failure="continue" if self._runtime.max_failed_clients else "stop",
                arriving=tuple(arriving),
            )
            payload = payloads.starts(queue, stale) if plan.own_starts else payloads.reference(stale)
            upload, report = (
                self._cluster.clients[actor].train.options(num_returns=2).remote(order, payload, *arriving.values())
            )
            orders[report] = (actor, upload, order)
        return self._collect(plan, orders, payloads)

    def _arriving(self, actor: int, queue: Sequence[int]) -> dict[int, Any]:
        """The states of clients that were last trained elsewhere, on their way from there."""
        moved = {}
        for client in queue:
            home = self._home.get(client, actor)
            if self._spec.stateful and home != actor:
                moved[client] = self._cluster.clients[home].take_state.remote(client)
            self._home[client] = actor
        return moved

    def _collect(
        self, plan: RoundPlan, orders: dict[Any, tuple[int, Any, WorkOrder]], payloads: "Payloads"
    ) -> TrainingPhase:
        reports: list[ClientReport] = []
        hosts: list[HostReport] = []
        transport = payloads.bytes
        table = self._spec.table
        self._received = []
        for reference in self._as_completed(list(orders), plan.round):
            actor, upload, order = orders[reference]
            host = self._result(reference, f"the actor that trains clients {list(order.clients)} died", actor)
            hosts.append(host)
            reports += host.clients
            check_failures(reports, plan.round, self._runtime.max_failed_clients)
            sent = accepted_clients(host.clients)
            self._received.append(self._server.receive.remote(upload, sent))
            transport += host.state_bytes + message_bytes(table, order, sent)
        return TrainingPhase(
            reports=tuple(sorted(reports, key=lambda report: report.client)),
            transport_bytes=transport,
            load_seconds=max(host.load_seconds for host in hosts),
            busy_seconds=max(host.busy_seconds for host in hosts),
        )

    def _as_completed(self, references: list[Any], round_index: int) -> Iterator[Any]:
        deadline = time.monotonic() + self._runtime.round_timeout
        while references:
            ready, references = ray.wait(references, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RunError(
                    f"round {round_index} took longer than runtime.round_timeout={self._runtime.round_timeout:g} s; "
                    f"{len(references)} of {self._cluster.actors} actors had not answered"
                )
            yield from ready

    def finish(self) -> RoundOutcome:
        self._ask(self._received)
        outcome: RoundOutcome = self._ask(self._server.finish.remote())
        self._versions = outcome.versions
        return outcome

    def evaluate(self, clients: Sequence[int]) -> EvaluationPhase:
        actors = self._cluster.actors
        payloads = Payloads(self._server, self._spec.table)
        bounds = [len(self._borders) * actor // actors for actor in range(actors + 1)]
        asked = set(clients)
        calls = []
        for actor, client in enumerate(self._cluster.clients):
            batches = self._borders[bounds[actor] : bounds[actor + 1]]
            own = [client for client in self._queues[actor] if client in asked]
            if not batches and not own:
                continue
            stale = self._bring_up_to_date(actor)
            state = self._client0_for(actor)
            calls.append(client.evaluate.remote(stale, payloads.reference(stale), batches, own, state))
        reports: list[EvaluationReport] = self._ask(calls)
        return EvaluationPhase(
            scores=tuple(score for report in reports for score in report.scores),
            client_accuracy={
                client: accuracy for report in reports for client, accuracy in report.client_accuracy.items()
            },
            transport_bytes=payloads.bytes,
        )

    def _client0_for(self, actor: int) -> Any:
        home = self._home.get(0, actor)
        if self._spec.evaluation_statistics != "client0" or home == actor:
            return None
        return self._cluster.clients[home].copy_state.remote(0)

    def _start_parts(self, actor: int) -> tuple[int, ...]:
        """What models of one's own consist of; the host no longer holds the global values of these."""
        parts: tuple[int, ...] = self._ask(self._server.start_parts.remote())
        for part in parts:
            self._held[actor][part] = -1
        return parts

    def _bring_up_to_date(self, actor: int) -> tuple[int, ...]:
        stale = stale_parts(self._held[actor], self._versions)
        self._held[actor] = list(self._versions)
        return stale

    def model(self) -> tuple[Vector, Vector]:
        model: tuple[Vector, Vector] = self._ask(self._server.model.remote())
        return model

    def peak_memory(self) -> list[int]:
        peaks: list[int] = self._ask([client.peak_memory.remote() for client in self._cluster.clients])
        return peaks

    def close(self) -> None:
        ray.kill(self._server)
        self._cluster.close()

    def _ask(self, references: Any) -> Any:
        try:
            return ray.get(references, timeout=self._runtime.round_timeout)
        except (RayError, GetTimeoutError) as error:
            raise _own_error(error, "an actor died") from error

    def _result(self, reference: Any, what: str, actor: int) -> HostReport:
        try:
            report: HostReport = ray.get(reference)
        except RayError as error:
            raise _own_error(error, what) from error
        return report


class Payloads:
    """One object in the store for each distinct set of stale parts, however many actors need it."""

    def __init__(self, server: Any, table: PartTable) -> None:
        self._server = server
        self._table = table
        self._references: dict[tuple[int, ...], Any] = {}
        self.bytes = 0

    def reference(self, parts: tuple[int, ...]) -> Any:
        """A reference to the global values of `parts`; counts their bytes once per call."""
        if parts not in self._references:
            self._references[parts] = self._server.payload.remote(parts)
        self.bytes += self._table.nbytes(parts)
        return self._references[parts]

    def starts(self, clients: tuple[int, ...], parts: tuple[int, ...]) -> Any:
        """A reference to the models that `clients` start from, one after the other."""
        self.bytes += self._table.nbytes(parts) * len(clients)
        return self._server.starts.remote(clients)


def message_bytes(table: PartTable, order: WorkOrder, sent: Sequence[int]) -> int:
    """Bytes of a host's answer: one exact sum, or the messages of the clients whose updates it sent."""
    if order.combine:
        return INT64_BYTES * table.values(table.uploaded(order.union))
    groups = dict(zip(order.clients, order.groups, strict=True))
    return sum(table.nbytes(table.uploaded(groups[client])) for client in sent)


def _own_error(error: Exception, what: str) -> FedbenchError:
    """What to raise for a Ray error: the error that fedbench raised over there, or one line of its own."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, FedbenchError):
        return error.cause
    if isinstance(error, GetTimeoutError):
        return RunError(f"{what}: no answer in time")
    if isinstance(error, RayActorError):
        return RunError(f"{what}: {str(error).splitlines()[0]}")
    return RunError(f"{what}: {type(error).__name__}: {str(error).strip().splitlines()[-1]}")
