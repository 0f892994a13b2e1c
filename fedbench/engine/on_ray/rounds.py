"""Synchronous rounds on a Ray cluster: one actor call per actor and round, parameters passed by reference."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from fedbench.checkpoints.state import Tree
from fedbench.config.runtime import RuntimeSection
from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.bookkeeping import (
    accepted_clients,
    accepted_losses,
    accepted_norms,
    by_client,
    check_failures,
    leave_out,
    stale_parts,
)
from fedbench.engine.client_scoring import ClientScoringPhase
from fedbench.engine.interfaces import EvaluationPhase, RoundExecutor, TrainingPhase
from fedbench.engine.messages import (
    ClientReport,
    EvaluationReport,
    HostOrder,
    HostReport,
    HostSpec,
    RoundOutcome,
    RoundPlan,
)
from fedbench.engine.on_ray.actors import ActorCluster
from fedbench.engine.on_ray.experiment_actors import ActorExecutor, as_fedbench_error
from fedbench.engine.on_ray.liveness import ray_answers
from fedbench.engine.on_ray.node_sum import NodeSumActor
from fedbench.engine.on_ray.placement import assign, deal_tests
from fedbench.engine.on_ray.server_actors import PoolServerActor, ServerActor
from fedbench.engine.on_ray.servers import ServerLink
from fedbench.engine.own_models import mean_model
from fedbench.engine.probing import ClientProbe
from fedbench.engine.rounds.server_spec import ServerSpec
from fedbench.errors import HangingClients, RunError
from fedbench.planning.deadlines import UNLIMITED, Limit
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PartTable

INT64_BYTES = 8

HANG_GRACE = 30.0
"""Seconds beyond their deadline after which clients that have not returned are given up, and their actor is ended."""


class RayRoundExecutor(ActorExecutor, RoundExecutor):
    """Runs synchronous rounds on client actors, each of which trains its share of the cohort in one call."""

    def __init__(
        self,
        cluster: ActorCluster,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        server: ServerSpec,
        runtime: RuntimeSection,
        test_rows: Sequence[IntArray] = (),
    ) -> None:
        """Set the actors up; arguments and errors as for `ActorExecutor`."""
        kind = PoolServerActor if server.algorithm.rule().own_models else ServerActor
        self._sizes = [len(part) for part in rows]
        self._sums_updates = server.sums_updates
        self._node_sums: dict[str, Any] = {}
        self._test_sizes = [len(part) for part in test_rows]
        super().__init__(cluster, spec, data, rows, runtime, kind, server, test_rows)

    def _start(self) -> None:
        super()._start()
        self._queues: tuple[tuple[int, ...], ...] = ()
        self._summed_on_node: frozenset[int] = frozenset()
        self._added: list[Any] = []
        self._losses: dict[int, float] = {}
        self._norms: dict[int, tuple[float, ...]] = {}
        self._versions: tuple[int, ...] = self._server.ask("versions")
        if self._runtime.combine == "node":
            self._create_node_sums()

    def _create_node_sums(self) -> None:
        self._end_node_sums()
        self._nodes: list[str] = self._ask([client.node.remote() for client in self._cluster.client_actors])
        self._node_sums = {node: self._cluster.create_on(node, NodeSumActor) for node in sorted(set(self._nodes))}

    def _end_node_sums(self) -> None:
        for combiner in self._node_sums.values():
            ray.kill(combiner)
        self._node_sums = {}

    def close(self) -> None:
        if ray_answers():
            self._end_node_sums()
        super().close()

    def state(self) -> Tree:
        server = self._server.ask("state")
        return {"server": server, "clients": self._client_states(), "held": self._held, "home": self._home}

    def restore(self, state: Tree) -> None:
        self._server.ask("restore", state["server"])
        self._versions = self._server.ask("versions")
        self._held, self._home = self._restored_places(state)
        everything = tuple(range(len(self._versions)))
        self._put_client_states(state["clients"], self._server.publish("payload", everything))

    def plan(self, round_index: int, available: Sequence[int] | None = None) -> RoundPlan:
        plan: RoundPlan = self._server.ask("plan", round_index, available)
        self._versions = plan.versions
        return plan

    def train(self, plan: RoundPlan, limit: Limit = UNLIMITED) -> TrainingPhase:
        trained, left_out = leave_out(plan.cohort, limit, self._sizes)
        self._queues = assign(trained, self._sizes, self._cluster.actor_count, self._home)
        self._summed_on_node = self._through_node_sums([actor for actor, queue in enumerate(self._queues) if queue])
        payloads = Payloads(self._server, self._spec.table)
        orders: dict[Any, tuple[int, Any, HostOrder]] = {}
        for actor, queue in enumerate(self._queues):
            if not queue:
                continue
            stale = self._start_parts(actor) if plan.own_starts else self._bring_up_to_date(actor)
            arriving = self._arriving(actor, queue)
            order = plan.order(
                queue,
                stale=stale,
                # A sum is twice as long as a message: an actor with one client answers the server with the message.
                combine=self._sums_updates and (len(queue) > 1 or actor in self._summed_on_node),
                on_failure="continue" if self._runtime.max_failed_clients else "stop",
                arriving=tuple(arriving),
                seconds=limit.seconds,
            )
            payload = payloads.starts(queue, stale) if plan.own_starts else payloads.reference(stale)
            upload, report = (
                self._cluster.client_actors[actor]
                .train.options(num_returns=2)
                .remote(order, payload, *arriving.values())
            )
            orders[report] = (actor, upload, order)
        return self._collect(plan, orders, payloads, left_out)

    def _through_node_sums(self, actors: Sequence[int]) -> frozenset[int]:
        """The actors whose answers are summed on their node: those that share a node with another of `actors`."""
        if not self._node_sums:
            return frozenset()
        counts = Counter(self._nodes[actor] for actor in actors)
        return frozenset(actor for actor in actors if counts[self._nodes[actor]] > 1)

    def _arriving(self, actor: int, queue: Sequence[int]) -> dict[int, Any]:
        """{client: reference to its state}, for the clients of a queue whose state another actor holds."""
        states = {client: self._move_home(client, actor) for client in queue}
        return {client: state for client, state in states.items() if state is not None}

    def _collect(
        self,
        plan: RoundPlan,
        orders: dict[Any, tuple[int, Any, HostOrder]],
        payloads: "Payloads",
        reports: list[ClientReport],
    ) -> TrainingPhase:
        """Wait for the actors' answers and pass their uploads on to the server.

        Args:
            plan: the round's plan.
            orders: {reference to an actor's report: (actor, reference to its upload, its order)}.
            payloads: has counted the bytes sent to the actors.
            reports: reports of the clients that are not trained, to which the others are added.

        Raises:
            ClientFailure: more clients have failed than the run's budget allows.
            FedbenchError: an actor died, hangs, or the round took too long.
        """
        hosts: list[HostReport] = []
        transport = payloads.bytes
        table = self._spec.table
        self._added = []
        summed_clients: dict[str, list[int]] = {}
        for reference in self._as_completed(orders, plan.round):
            actor, upload, order = orders[reference]
            host = self._result(reference, f"the actor that trains clients {list(order.clients)} died", actor)
            hosts.append(host)
            reports += host.clients
            check_failures(reports, plan.round, self._runtime.max_failed_clients)
            sent = accepted_clients(host.clients)
            transport += host.state_bytes + sum(message.update.nbytes for message in host.kept)
            if actor in self._summed_on_node:
                self._added.append(self._node_sums[self._nodes[actor]].add.remote(upload))
                summed_clients.setdefault(self._nodes[actor], []).extend(sent)
                continue
            self._server.tell("receive", upload, sent)
            transport += message_bytes(table, order, sent)
        for node, clients in sorted(summed_clients.items()):
            total = self._node_sums[node].total.remote()
            self._server.tell("receive", total, tuple(clients))
            transport += INT64_BYTES * table.values(table.uploaded(plan.combined))
        self._losses, self._norms = accepted_losses(reports), accepted_norms(reports)
        return TrainingPhase(
            reports=by_client(reports),
            transport_bytes=transport,
            load_seconds=max((host.load_seconds for host in hosts), default=0.0),
            busy_seconds=max((host.busy_seconds for host in hosts), default=0.0),
            kept=tuple(message for host in hosts for message in host.kept),
            scoring_seconds=max((host.scoring_seconds for host in hosts), default=0.0),
            remarks=tuple(remark for host in hosts for remark in host.remarks),
        )

    def _as_completed(self, orders: Mapping[Any, tuple[int, Any, HostOrder]], round_index: int) -> Iterator[Any]:
        """Yield the references in `orders` as their results arrive.

        Raises:
            HangingClients: an actor has not answered long after its clients' deadlines.
            RunError: the round took longer than `runtime.round_timeout`.
        """
        began, references = time.monotonic(), list(orders)
        scores = self._spec.client_scoring.is_due(round_index)  # takes time that no deadline is for
        deadlines = {
            reference: began + (math.inf if scores else answer_timeout(order))
            for reference, (_, _, order) in orders.items()
        }
        while references:
            until = min(began + self._runtime.round_timeout, *(deadlines[reference] for reference in references))
            ready, references = self._waiter.wait(references, max(0.0, until - time.monotonic()))
            if not ready:
                hanging = [reference for reference in references if deadlines[reference] <= until]
                if hanging:
                    raise self._end_hanging(round_index, [orders[reference] for reference in hanging])
                raise RunError(
                    f"round {round_index + 1} took longer than runtime.round_timeout={self._runtime.round_timeout:g} s"
                    f"; {len(references)} of {self._cluster.actor_count} actors had not answered"
                )
            yield from ready

    def _end_hanging(self, round_index: int, orders: Sequence[tuple[int, Any, HostOrder]]) -> HangingClients:
        """End the actors that hang in their clients' training; returns the error to raise."""
        self._waiter.wait_for_head()
        for actor, _, _ in orders:
            ray.kill(self._cluster.client_actors[actor])
        return HangingClients(round_index, tuple(client for _, _, order in orders for client in order.clients))

    def finish(self) -> RoundOutcome:
        self._ask(self._added)
        self._server.settle()
        outcome: RoundOutcome = self._server.ask("finish", self._losses, self._norms)
        self._versions = outcome.versions
        return outcome

    def probe(self) -> tuple[tuple[ClientProbe, ...], int]:
        payloads = Payloads(self._server, self._spec.table)
        calls = []
        for actor, client in enumerate(self._cluster.client_actors):
            if self._queues[actor]:
                stale = self._bring_up_to_date(actor)
                calls.append(client.probe.remote(stale, payloads.reference(stale)))
        probes = [probe for of_actor in self._ask(calls) for probe in of_actor]
        return tuple(sorted(probes, key=lambda probe: probe.client)), payloads.bytes

    def evaluate(self, clients: Sequence[int]) -> EvaluationPhase:
        payloads = Payloads(self._server, self._spec.table)
        to_score = set(clients)
        calls = []
        for actor, client in enumerate(self._cluster.client_actors):
            batches = self._batches_for(actor)
            scored = [client for client in self._queues[actor] if client in to_score]
            if not batches and not scored:
                continue
            stale = self._bring_up_to_date(actor)
            state = self._client0_for(actor)
            calls.append(client.evaluate.remote(stale, payloads.reference(stale), batches, scored, state))
        reports: list[EvaluationReport] = self._ask(calls)
        return EvaluationPhase(
            scores=tuple(score for report in reports for score in report.scores),
            client_scores={client: score for report in reports for client, score in report.client_scores.items()},
            transport_bytes=payloads.bytes,
        )

    def score_clients(self) -> ClientScoringPhase:
        payloads = Payloads(self._server, self._spec.table)
        # A client that keeps running statistics, or a model, of its own is scored where they are.
        bound = self._home if self._spec.keeps_statistics or not self._spec.has_global_model else {}
        calls = []
        for actor, clients in enumerate(deal_tests(self._test_sizes, self._cluster.actor_count, bound)):
            if clients:
                stale, state = self._bring_up_to_date(actor), self._client0_for(actor)
                call = self._cluster.client_actors[actor].score_clients
                calls.append(call.remote(stale, payloads.reference(stale), clients, state))
        scores = {client: score for of_actor in self._ask(calls) for client, score in of_actor.items()}
        return ClientScoringPhase(scores, payloads.bytes)

    def evaluate_own(self, clients: Sequence[int]) -> EvaluationPhase:
        payloads, actors = Payloads(self._server, self._spec.table), self._cluster.actor_count
        calls = []
        for actor, host in enumerate(self._cluster.client_actors):
            here = [client for client in clients if self._home.get(client, client % actors) == actor]
            if here:
                stale = self._bring_up_to_date(actor)
                calls.append(host.evaluate_own.remote(stale, payloads.reference(stale), here, self._batches))
        scores = {client: scores for of_actor in self._ask(calls) for client, scores in of_actor.items()}
        return EvaluationPhase.of_own_models(scores, payloads.bytes)

    def model(self) -> tuple[Vector, Vector]:
        model = super().model()
        return model if self._spec.has_global_model else mean_model(model, self._client_states(), len(self._sizes))

    def _start_parts(self, actor: int) -> tuple[int, ...]:
        """Parts of a pool model; the actor then no longer holds the global values of these."""
        parts: tuple[int, ...] = self._server.ask("start_parts")
        for part in parts:
            self._held[actor][part] = -1
        return parts

    def _bring_up_to_date(self, actor: int) -> tuple[int, ...]:
        """The parts that an actor has to load now; they count as loaded from here on."""
        stale = stale_parts(self._held[actor], self._versions)
        self._held[actor] = list(self._versions)
        return stale

    def _result(self, reference: Any, what: str, actor: int) -> HostReport:
        try:
            report: HostReport = ray.get(reference)
        except RayError as error:
            raise as_fedbench_error(error, what) from error
        return report


def answer_timeout(order: HostOrder) -> float:
    """Seconds to wait for the answer to an order; infinity where its clients have no time limit.

    A host looks at the time only between two minibatches, so that it may take `HANG_GRACE` seconds longer.
    """
    return math.inf if order.seconds is None else order.seconds * len(order.clients) + HANG_GRACE


class Payloads:
    """Puts each distinct set of stale parts into the object store once, however many actors need it.

    Attributes:
        bytes: bytes sent to actors so far, one copy counted for each actor.
    """

    def __init__(self, server: ServerLink, table: PartTable) -> None:
        self._server = server
        self._table = table
        self._references: dict[tuple[int, ...], Any] = {}
        self.bytes = 0

    def reference(self, parts: tuple[int, ...]) -> Any:
        """Reference to the global values of `parts`; each call counts their bytes."""
        if parts not in self._references:
            self._references[parts] = self._server.publish("payload", parts)
        self.bytes += self._table.nbytes(parts)
        return self._references[parts]

    def starts(self, clients: tuple[int, ...], parts: tuple[int, ...]) -> Any:
        """Reference to the models that `clients` start from, one after the other, each made of `parts`."""
        self.bytes += self._table.nbytes(parts) * len(clients)
        return self._server.publish("starts", clients)


def message_bytes(table: PartTable, order: HostOrder, sent: Sequence[int]) -> int:
    """Bytes of a host's answer to an order.

    Args:
        table: the parts of a transfer.
        order: where it asks for one exact sum, the answer's size does not depend on the clients.
        sent: clients whose messages are in the answer otherwise.
    """
    if order.combine:
        return INT64_BYTES * table.values(table.uploaded(order.union))
    groups = dict(zip(order.clients, order.sent, strict=True))
    return sum(table.nbytes(table.uploaded(groups[client])) for client in sent)
