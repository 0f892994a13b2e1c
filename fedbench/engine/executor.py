"""What runs the rounds: the interface that the coordination is written against, and its plain form without Ray."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedbench.data.base import FederatedData, IntArray
from fedbench.deadlines import UNLIMITED, Limit
from fedbench.engine.client import ClientHost, dropped_report
from fedbench.engine.messages import ArrivalOrder, ClientReport, HostSpec, RoundOutcome, RoundPlan
from fedbench.engine.pool import PoolServer
from fedbench.engine.server import Server, ServerSpec
from fedbench.errors import ClientFailure, RunError
from fedbench.parameters import Vector
from fedbench.snapshots import Tree
from fedbench.training.scores import BatchScore, batch_borders


@dataclass(frozen=True)
class TrainingPhase:
    """What a round's training came to.

    Attributes:
        reports: one per participant that was begun, ascending by client.
        transport_bytes: moved between processes: parameters, updates, client states.
        load_seconds, busy_seconds: of the host that took longest.
    """

    reports: tuple[ClientReport, ...]
    transport_bytes: int
    load_seconds: float
    busy_seconds: float


@dataclass(frozen=True)
class EvaluationPhase:
    """Scores of the whole test split, in order, and of single clients on their own rows."""

    scores: tuple[BatchScore, ...]
    client_accuracy: dict[int, float]
    transport_bytes: int


class Executor(ABC):
    """Where an experiment runs."""

    @abstractmethod
    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and running statistics."""

    @abstractmethod
    def peak_memory(self) -> list[int]:
        """Bytes, one entry per process that trains."""

    @abstractmethod
    def state(self) -> Tree:
        """All that server and clients keep between two rounds; works in flight are waited for."""

    @abstractmethod
    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave, with as many processes or more or fewer."""

    def could_grow(self) -> bool:
        """Whether more processes could work than do."""
        return False

    def rebuild(self) -> None:
        """Start all processes anew, as before the first round.

        Raises:
            RunError: there are none, or they do not start.
        """
        raise RunError("there is no process to start anew")

    @abstractmethod
    def close(self) -> None:
        """Release everything; may be called twice."""


class RoundExecutor(Executor):
    """Runs rounds, step by step: plan, train, finish, evaluate."""

    @abstractmethod
    def plan(self, round_index: int) -> RoundPlan:
        """Open a round."""

    @abstractmethod
    def train(self, plan: RoundPlan, limit: Limit = UNLIMITED) -> TrainingPhase:
        """Train the cohort and hand its updates to the server.

        Args:
            limit: what to do with slow participants.

        Raises:
            ClientFailure: as soon as more clients have failed than the run's budget allows.
            RunError: an actor died, or the round took too long.
        """

    @abstractmethod
    def finish(self) -> RoundOutcome:
        """Close the round: combine what arrived."""

    @abstractmethod
    def evaluate(self, clients: Sequence[int]) -> EvaluationPhase:
        """Score the global model on the test split, and on the own rows of `clients`."""


class Works(ABC):
    """Does works that are given out one at a time, and applies them in the order in which it is told to.

    The first argument of most is the number of the work.
    """

    @abstractmethod
    def dispatch(self, order: ArrivalOrder, versions: tuple[int, ...]) -> None:
        """Begin a work on the current parameters.

        Args:
            versions: of each part, as the ledger counts them; a host is sent what it holds an older version of.
        """

    @abstractmethod
    def ready(self, timeout: float) -> int | None:
        """The number of a finished work that was not collected, the earliest dispatched of several.

        Args:
            timeout: seconds to wait at most; inf: until there is one.

        Returns:
            None when there is none in time.

        Raises:
            RunError: no work was finished within `runtime.round_timeout`.
        """

    @abstractmethod
    def collect(self, number: int, round_index: int) -> ClientReport:
        """Wait for a work, which arrives in round `round_index`. Its update stays until `apply` or `discard`.

        Raises:
            ClientFailure: in the plain loop, at the failing client.
            RunError: it took too long, or its actor died too often.
        """

    @abstractmethod
    def apply(self, number: int, lr: float, steps: int) -> None:
        """Apply a collected update of so many local steps; `lr` is the factor on it."""

    @abstractmethod
    def discard(self, number: int) -> None:
        """Forget a collected work that sends nothing."""

    @abstractmethod
    def evaluate(self, versions: tuple[int, ...]) -> EvaluationPhase:
        """Score the global model on the test split."""

    @abstractmethod
    def end_round(self) -> tuple[float, int]:
        """L2 norm of the parameters' change, and bytes moved between processes, since the last call."""


class ArrivalExecutor(Works, Executor):
    """Does the works of an asynchronous run."""


class InlineExecutor(RoundExecutor):
    """A plain loop in this process: one client after the other, each update handed to the server by itself.

    It stops at the failing client, with the exception as it was raised: for debugging, for tests, and as the
    independent statement that the Ray engine is compared with.
    """

    def __init__(
        self,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        server: ServerSpec,
        max_failed_clients: int,
    ) -> None:
        self._spec = spec
        self._max_failed = max_failed_clients
        self._sizes = [len(part) for part in rows]
        self._server = make_server(server)
        self._threads = torch.get_num_threads()
        self._host = ClientHost()
        self._host.prepare(spec, data, rows)
        self._held = [-1] * len(self._server.versions())
        self._borders = batch_borders(len(data.test), spec.evaluation_batch_size)

    def plan(self, round_index: int) -> RoundPlan:
        return self._server.plan(round_index)

    def train(self, plan: RoundPlan, limit: Limit = UNLIMITED) -> TrainingPhase:
        trained, reports = leave_out(plan.cohort, limit, self._sizes)
        load_seconds = busy_seconds = 0.0
        for client in trained:
            stale = self._start_parts() if plan.own_starts else self._bring_up_to_date()
            order = plan.order(
                (client,),
                stale=stale,
                combine=False,
                on_failure="continue" if self._max_failed else "raise",
                seconds=limit.seconds,
            )
            payload = self._server.starts((client,)) if plan.own_starts else self._server.payload(stale)
            try:
                upload, report = self._host.train(order, payload)
            except Exception as error:
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise ClientFailure(client, plan.round, text, "") from error
            reports += report.clients
            check_failures(reports, plan.round, self._max_failed)
            self._server.receive(upload, accepted_clients(report.clients))
            load_seconds += report.load_seconds
            busy_seconds += report.busy_seconds
        return TrainingPhase(by_client(reports), 0, load_seconds, busy_seconds)

    def finish(self) -> RoundOutcome:
        return self._server.finish()

    def evaluate(self, clients: Sequence[int]) -> EvaluationPhase:
        stale = self._bring_up_to_date()
        report = self._host.evaluate(stale, self._server.payload(stale), self._borders, clients)
        return EvaluationPhase(report.scores, report.client_accuracy, 0)

    def _start_parts(self) -> tuple[int, ...]:
        parts = self._server.start_parts()
        for part in parts:
            self._held[part] = -1
        return parts

    def _bring_up_to_date(self) -> tuple[int, ...]:
        stale = stale_parts(self._held, self._server.versions())
        self._held = list(self._server.versions())
        return stale

    def state(self) -> Tree:
        return {"server": self._server.state(), "clients": self._host.all_states(), "held": [self._held]}

    def restore(self, state: Tree) -> None:
        self._server.restore(state["server"])
        self._host.put_states(state["clients"])
        everything = tuple(range(len(self._held)))
        self._host.load(everything, self._server.payload(everything))
        self._held = state["held"][0] if len(state["held"]) == 1 else [-1] * len(self._held)

    def model(self) -> tuple[Vector, Vector]:
        return self._server.model()

    def peak_memory(self) -> list[int]:
        return [self._host.peak_memory()]

    def close(self) -> None:
        torch.set_num_threads(self._threads)


def make_server(spec: ServerSpec) -> Server:
    """The kind of server that the method asks for."""
    return PoolServer(spec) if spec.algorithm.has_pool() else Server(spec)


def stale_parts(held: Sequence[int], current: Sequence[int]) -> tuple[int, ...]:
    """The parts whose held version is behind."""
    return tuple(part for part, (own, new) in enumerate(zip(held, current, strict=True)) if own < new)


def accepted_clients(reports: Sequence[ClientReport]) -> tuple[int, ...]:
    """The clients whose updates a host has sent."""
    return tuple(report.client for report in reports if report.status == "ok")


def leave_out(cohort: Sequence[int], limit: Limit, sizes: Sequence[int]) -> tuple[tuple[int, ...], list[ClientReport]]:
    """(those who are trained, the reports of those who are not)."""
    trained = tuple(client for client in cohort if client not in limit.dropped)
    return trained, [dropped_report(client, sizes[client], 0.0) for client in cohort if client in limit.dropped]


def by_client(reports: Sequence[ClientReport]) -> tuple[ClientReport, ...]:
    """In the order of a round's records."""
    return tuple(sorted(reports, key=lambda report: report.client))


def check_failures(reports: Sequence[ClientReport], round_index: int, budget: int) -> None:
    """Raise the first failure once there are more than `budget`.

    Raises:
        ClientFailure: with the client's own traceback.
    """
    failed = [report for report in reports if report.status == "failed"]
    if len(failed) > budget:
        first = failed[0]
        raise ClientFailure(first.client, round_index, first.error, first.traceback)
