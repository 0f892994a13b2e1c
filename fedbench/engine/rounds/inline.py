"""Synchronous rounds in this process: a plain loop over the clients, without Ray."""

from collections.abc import Sequence

from fedbench.checkpoints.state import Tree
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
from fedbench.engine.client_host import ClientHost
from fedbench.engine.client_reports import one_line
from fedbench.engine.client_scoring import ClientScoringPhase, scored_clients
from fedbench.engine.device import TorchSettings
from fedbench.engine.interfaces import EvaluationPhase, RoundExecutor, TrainingPhase
from fedbench.engine.messages import DeviceRecord, HostSpec, KeptMessage, RoundOutcome, RoundPlan
from fedbench.engine.own_models import mean_model
from fedbench.engine.probing import ClientProbe
from fedbench.engine.rounds.pool_server import PoolServer
from fedbench.engine.rounds.server import Server
from fedbench.engine.rounds.server_spec import ServerSpec
from fedbench.errors import ClientFailure
from fedbench.planning.deadlines import UNLIMITED, Limit
from fedbench.protocol.layout import Vector
from fedbench.training.scores import evaluation_batches


class InlineRoundExecutor(RoundExecutor):
    """Runs synchronous rounds in this process: one client after the other, each update handed to the server alone.

    With `runtime.max_failed_clients=0` it stops at the failing client and chains the exception as it was raised. It
    serves debugging and tests, and is the reference that the Ray engine is compared with.
    """

    def __init__(
        self,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        server: ServerSpec,
        max_failed_clients: int,
        test_rows: Sequence[IntArray] = (),
    ) -> None:
        self._spec = spec
        self._max_failed = max_failed_clients
        self._sizes = [len(part) for part in rows]
        self._data, self._rows, self._test_rows, self._server_spec = data, rows, test_rows, server
        self._settings = TorchSettings()
        self.rebuild()
        self._batches = evaluation_batches(data.scored_rows, spec.evaluation_batch_size)

    def rebuild(self) -> None:
        self._server = make_server(self._server_spec)
        self._host = ClientHost()
        self._device = self._host.prepare(self._spec, self._data, self._rows, self._test_rows)
        self._held = [-1] * len(self._server.versions())
        self._losses: dict[int, float] = {}
        self._norms: dict[int, tuple[float, ...]] = {}

    def plan(self, round_index: int, available: Sequence[int] | None = None) -> RoundPlan:
        return self._server.plan(round_index, available)

    def train(self, plan: RoundPlan, limit: Limit = UNLIMITED) -> TrainingPhase:
        trained, reports = leave_out(plan.cohort, limit, self._sizes)
        kept: list[KeptMessage] = []
        remarks: list[str] = []
        load_seconds = busy_seconds = scoring_seconds = 0.0
        together = self._spec.slots > 1
        for clients in [tuple(trained)] if together else [(client,) for client in trained]:
            stale = self._start_parts() if plan.own_starts else self._bring_up_to_date()
            order = plan.order(
                clients,
                stale=stale,
                combine=False,
                on_failure="continue" if self._max_failed else "stop" if together else "raise",
                seconds=limit.seconds,
            )
            payload = self._server.starts(clients) if plan.own_starts else self._server.payload(stale)
            try:
                upload, report = self._host.train(order, payload)
            except Exception as error:
                raise ClientFailure(clients[0], plan.round, one_line(error), "") from error
            reports += report.clients
            check_failures(reports, plan.round, self._max_failed)
            self._server.receive(upload, accepted_clients(report.clients))
            kept += report.kept
            remarks += report.remarks
            load_seconds += report.load_seconds
            busy_seconds += report.busy_seconds
            scoring_seconds += report.scoring_seconds
        self._losses, self._norms = accepted_losses(reports), accepted_norms(reports)
        return TrainingPhase(
            by_client(reports), 0, load_seconds, busy_seconds, tuple(kept), scoring_seconds, tuple(remarks)
        )

    def finish(self) -> RoundOutcome:
        return self._server.finish(self._losses, self._norms)

    def probe(self) -> tuple[tuple[ClientProbe, ...], int]:
        stale = self._bring_up_to_date()
        return self._host.probe(stale, self._server.payload(stale)), 0

    def evaluate(self, clients: Sequence[int]) -> EvaluationPhase:
        stale = self._bring_up_to_date()
        report = self._host.evaluate(stale, self._server.payload(stale), self._batches, clients)
        return EvaluationPhase(report.scores, report.client_scores, 0)

    def score_clients(self) -> ClientScoringPhase:
        stale = self._bring_up_to_date()
        clients = scored_clients(self._test_rows)
        return ClientScoringPhase(self._host.score_clients(stale, self._server.payload(stale), clients), 0)

    def evaluate_own(self, clients: Sequence[int]) -> EvaluationPhase:
        stale = self._bring_up_to_date()
        scores = self._host.evaluate_own(stale, self._server.payload(stale), clients, self._batches)
        return EvaluationPhase.of_own_models(scores, 0)

    def _start_parts(self) -> tuple[int, ...]:
        """The parts of a pool model; the host then no longer holds the global values of these."""
        parts = self._server.start_parts()
        for part in parts:
            self._held[part] = -1
        return parts

    def _bring_up_to_date(self) -> tuple[int, ...]:
        """The parts that the host has to load now; they count as loaded from here on."""
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
        model = self._server.model()
        return model if self._spec.has_global_model else mean_model(model, self._host.all_states(), len(self._sizes))

    def devices(self) -> list[DeviceRecord]:
        return [self._device]

    def peak_memory(self) -> list[int]:
        return [self._host.peak_memory()]

    def close(self) -> None:
        self._settings.restore()


def make_server(spec: ServerSpec) -> Server:
    """A `PoolServer` for a rule that gives each participant its own model, else a `Server`."""
    return PoolServer(spec) if spec.algorithm.rule().own_models else Server(spec)
