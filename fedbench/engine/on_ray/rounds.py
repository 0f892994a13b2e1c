"""Rounds on a Ray cluster: the executor that synchronous experiments use."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from fedbench.checkpoints.files import Tree
from fedbench.config.runtime import RuntimeSection
from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.bookkeeping import accepted_clients, by_client, check_failures, leave_out, stale_parts
from fedbench.engine.interfaces import EvaluationPhase, RoundExecutor, TrainingPhase
from fedbench.engine.messages import (
    ClientReport,
    EvaluationReport,
    HostReport,
    HostSpec,
    RoundOutcome,
    RoundPlan,
    WorkOrder,
)
from fedbench.engine.on_ray.actors import Cluster, PoolServerActor, ServerActor
from fedbench.engine.on_ray.experiment_actors import OnCluster, own_error
from fedbench.engine.on_ray.node_sum import Combiner
from fedbench.engine.on_ray.placement import assign
from fedbench.engine.rounds.server import ServerSpec
from fedbench.errors import HangingClients, RunError
from fedbench.planning.deadlines import UNLIMITED, Limit
from fedbench.protocol.message import PartTable

INT64_BYTES = 8

HANG_GRACE = 30.0
"""Seconds, beyond their deadlines, after which clients that have not come back are given up with their actor."""


class CombinerActor(Combiner):
    """The combiner of a node in a process of its own."""


class RayExecutor(OnCluster, RoundExecutor):
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
        """Start the actors; arguments as for `OnCluster`."""
        kind = PoolServerActor if server.algorithm.rule().own_models else ServerActor
        self._sizes = [len(part) for part in rows]
        self._combines = server.algorithm.sums()
        self._combiners: dict[str, Any] = {}
        super().__init__(cluster, spec, data, rows, runtime, kind, server)

    def _start(self) -> None:
        super()._start()
        self._home: dict[int, int] = {}
        self._queues: tuple[tuple[int, ...], ...] = ()
        self._received: list[Any] = []
        self._versions: tuple[int, ...] = self._ask(self._server.versions.remote())
        self._held = [[-1] * len(self._versions) for _ in self._cluster.clients]
        if self._runtime.combine == "node":
            self._create_combiners()

    def _create_combiners(self) -> None:
        self._end_combiners()
        self._nodes: list[str] = self._ask([client.node.remote() for client in self._cluster.clients])
        self._combiners = {node: self._cluster.create_on(node, CombinerActor) for node in sorted(set(self._nodes))}

    def _end_combiners(self) -> None:
        for combiner in self._combiners.values():
            ray.kill(combiner)
        self._combiners = {}

    def close(self) -> None:
        if not self._patience.gone:
            self._end_combiners()
        super().close()

    def state(self) -> Tree:
        server = self._ask(self._server.state.remote())
        return {"server": server, "clients": self._client_states(), "held": self._held, "home": self._home}

    def restore(self, state: Tree) -> None:
        self._ask(self._server.restore.remote(state["server"]))
        self._versions = self._ask(self._server.versions.remote())
        self._held, self._home = self._placed(state)
        everything = tuple(range(len(self._versions)))
        self._put_client_states(state["clients"], self._home, self._server.payload.remote(everything))

    def plan(self, round_index: int) -> RoundPlan:
        plan: RoundPlan = self._ask(self._server.plan.remote(round_index))
        self._versions = plan.versions
        return plan

    def train(self, plan: RoundPlan, limit: Limit = UNLIMITED) -> TrainingPhase:
        trained, left_out = leave_out(plan.cohort, limit, self._sizes)
        self._queues = assign(trained, self._sizes, self._cluster.actors, self._home)
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
                combine=self._combines and (len(queue) > 1 or bool(self._combiners)),
                on_failure="continue" if self._runtime.max_failed_clients else "stop",
                arriving=tuple(arriving),
                seconds=limit.seconds,
            )
            payload = payloads.starts(queue, stale) if plan.own_starts else payloads.reference(stale)
            upload, report = (
                self._cluster.clients[actor].train.options(num_returns=2).remote(order, payload, *arriving.values())
            )
            orders[report] = (actor, upload, order)
        return self._collect(plan, orders, payloads, left_out)

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
        self,
        plan: RoundPlan,
        orders: dict[Any, tuple[int, Any, WorkOrder]],
        payloads: "Payloads",
        reports: list[ClientReport],
    ) -> TrainingPhase:
        hosts: list[HostReport] = []
        transport = payloads.bytes
        table = self._spec.table
        self._received = []
        summed: dict[str, list[int]] = {}
        for reference in self._as_completed(orders, plan.round):
            actor, upload, order = orders[reference]
            host = self._result(reference, f"the actor that trains clients {list(order.clients)} died", actor)
            hosts.append(host)
            reports += host.clients
            check_failures(reports, plan.round, self._runtime.max_failed_clients)
            sent = accepted_clients(host.clients)
            transport += host.state_bytes
            if self._combiners:
                self._received.append(self._combiners[self._nodes[actor]].add.remote(upload))
                summed.setdefault(self._nodes[actor], []).extend(sent)
                continue
            self._received.append(self._server.receive.remote(upload, sent))
            transport += message_bytes(table, order, sent)
        for node, sent_there in sorted(summed.items()):
            total = self._combiners[node].total.remote()
            self._received.append(self._server.receive.remote(total, tuple(sent_there)))
            transport += INT64_BYTES * table.values(table.uploaded(plan.active.groups))
        return TrainingPhase(
            reports=by_client(reports),
            transport_bytes=transport,
            load_seconds=max((host.load_seconds for host in hosts), default=0.0),
            busy_seconds=max((host.busy_seconds for host in hosts), default=0.0),
        )

    def _as_completed(self, orders: Mapping[Any, tuple[int, Any, WorkOrder]], round_index: int) -> Iterator[Any]:
        began, references = time.monotonic(), list(orders)
        last = {reference: began + patience(order) for reference, (_, _, order) in orders.items()}
        while references:
            until = min(began + self._runtime.round_timeout, *(last[reference] for reference in references))
            ready, references = self._patience.wait(references, max(0.0, until - time.monotonic()))
            if not ready:
                hanging = [reference for reference in references if last[reference] <= until]
                if hanging:
                    raise self._hang(round_index, [orders[reference] for reference in hanging])
                raise RunError(
                    f"round {round_index} took longer than runtime.round_timeout={self._runtime.round_timeout:g} s; "
                    f"{len(references)} of {self._cluster.actors} actors had not answered"
                )
            yield from ready

    def _hang(self, round_index: int, orders: Sequence[tuple[int, Any, WorkOrder]]) -> HangingClients:
        """End the actors that do not come back from their clients."""
        self._patience.hear()
        for actor, _, _ in orders:
            ray.kill(self._cluster.clients[actor])
        return HangingClients(round_index, tuple(client for _, _, order in orders for client in order.clients))

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
            state = self._client0_for(actor, self._home)
            calls.append(client.evaluate.remote(stale, payloads.reference(stale), batches, own, state))
        reports: list[EvaluationReport] = self._ask(calls)
        return EvaluationPhase(
            scores=tuple(score for report in reports for score in report.scores),
            client_accuracy={
                client: accuracy for report in reports for client, accuracy in report.client_accuracy.items()
            },
            transport_bytes=payloads.bytes,
        )

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

    def _result(self, reference: Any, what: str, actor: int) -> HostReport:
        try:
            report: HostReport = ray.get(reference)
        except RayError as error:
            raise own_error(error, what) from error
        return report


def patience(order: WorkOrder) -> float:
    """Seconds to wait for the answer to an order; its host looks at the time only between two minibatches."""
    return math.inf if order.seconds is None else order.seconds * len(order.clients) + HANG_GRACE


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
