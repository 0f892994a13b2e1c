"""The loop of a synchronous run: plan, train, combine, score and record, round after round."""

from collections.abc import Callable, Iterator, Sequence

from fedbench.accounting.costs import CostModel
from fedbench.accounting.totals import added
from fedbench.checkpoints.state import Tree
from fedbench.engine.bookkeeping import (
    FinishedRound,
    Stopwatch,
    client_records,
    mean_loss,
    scored_rows,
    updates_by_group,
)
from fedbench.engine.client_scoring import NO_CLIENT_SCORES, NOT_SCORED, ClientScoring
from fedbench.engine.divergence import check_accepted, check_finite
from fedbench.engine.interfaces import EvaluationPhase, RoundExecutor
from fedbench.engine.probing import NOT_PROBED, Probing
from fedbench.engine.rounds.virtual_rounds import VirtualRounds
from fedbench.planning.deadlines import DroppedClients
from fedbench.records.client_scores import by_file, client_score_figures
from fedbench.records.measured import round_figures, round_rows
from fedbench.records.schema import DROPPED, RoundRecord
from fedbench.training.scores import Metrics, Scores


class RoundLoop:
    """Runs synchronous rounds one after the other and records their costs, the cumulative ones included."""

    def __init__(
        self,
        executor: RoundExecutor,
        costs: CostModel,
        *,
        rounds: int,
        evaluate_clients: bool = False,
        drops: DroppedClients | None = None,
        remedy: str = "lower local.optimizer.lr",
        records_divergence: bool = False,
        probing: Probing = NOT_PROBED,
        attackers: frozenset[int] = frozenset(),
        client_scoring: ClientScoring = NOT_SCORED,
        own_models_of: Sequence[int] = (),
        metrics: Metrics | None = None,
        virtual: VirtualRounds | None = None,
    ) -> None:
        """Args:
        executor: trains and scores.
        costs: counts FLOPs, and the paper's costs.
        rounds: number of rounds of the run.
        evaluate_clients: whether an evaluation scores each accepted client as well.
        drops: the round deadline, and the clients dropped so far; None: no deadline.
        remedy: what to do where the run diverges, for error messages.
        records_divergence: whether the divergence of the updates is recorded, where the server looks at it.
        probing: after which rounds the clients' models are compared with the global one.
        attackers: the Byzantine clients.
        client_scoring: in which rounds clients are scored on their held-out rows.
        own_models_of: the clients whose own models are scored in place of a global one; (): there is one.
        metrics: puts the further metrics of an evaluation together; None: there are none.
        virtual: the virtual clock, by which participants may be dropped; None: there is none.
        """
        self._virtual = virtual
        self._own_models_of = own_models_of
        self._executor = executor
        self._costs = costs
        self._rounds = rounds
        self._evaluate_clients = evaluate_clients
        self._dropped_clients = drops or DroppedClients()
        self._remedy = remedy
        self._records_divergence = records_divergence
        self._probing = probing
        self._attackers = attackers
        self._client_scoring = client_scoring
        self._metrics = metrics
        self._next_round = 0
        self._comm_gb: float | None = 0.0
        self._comp_tflop = 0.0

    def state(self) -> Tree:
        """Everything that the loop keeps between two rounds, for a checkpoint."""
        clock = {} if self._virtual is None else {"virtual": self._virtual.state()}
        return {"next_round": self._next_round, "paper": [self._comm_gb, self._comp_tflop]} | clock

    def restore(self, state: Tree) -> None:
        """Continue from a state that `state` returned."""
        self._next_round = state["next_round"]
        self._comm_gb, self._comp_tflop = state["paper"]
        if self._virtual is not None:
            self._virtual.restore(state["virtual"])

    @property
    def next_round(self) -> int:
        """The round that comes next, from 0."""
        return self._next_round

    def scores(self) -> Scores:
        """The scores of the current global model."""
        return Scores.of(self._evaluate(()).scores, self._metrics)

    def _evaluate(self, accepted: Sequence[int]) -> EvaluationPhase:
        """Score the global model, or clients' own; and the former on the training rows of the accepted clients."""
        if self._own_models_of:
            return self._executor.evaluate_own(self._own_models_of)
        return self._executor.evaluate(accepted if self._evaluate_clients else ())

    def rounds(self, evaluate_every: int, should_stop: Callable[[], bool]) -> Iterator[FinishedRound]:
        """Run the remaining rounds and yield the records of each.

        The time that the consumer takes for a record is the `tracking_seconds` of the next round.

        Args:
            evaluate_every: rounds between two evaluations; the last round is always evaluated.
            should_stop: asked at the end of each round; True ends the run there.

        Raises:
            RunError: a client, an actor or a whole round failed, or the model or a loss is not finite.
        """
        executor, costs, tracking_seconds = self._executor, self._costs, 0.0
        for index in range(self._next_round, self._rounds):
            clock = Stopwatch()
            virtual = self._virtual
            opening = None if virtual is None else virtual.open(index)
            plan = executor.plan(index, None if opening is None else opening.available)
            times = None if virtual is None or opening is None else virtual.times(plan, opening)
            dispatch_seconds = clock.lap()
            limit = self._dropped_clients.limit(index)
            if virtual is not None and times is not None:
                limit = virtual.limit(times)
            training = executor.train(plan, limit)
            check_accepted(index, training.reports, self._remedy, limit)
            training_wall = clock.lap()
            outcome = executor.finish()
            probes, probe_bytes = executor.probe() if self._probing.is_due(index) else ((), 0)
            aggregation_seconds = clock.lap()
            stopping = should_stop()
            due = (index + 1) % evaluate_every == 0 or index + 1 == self._rounds
            accepted = [report.client for report in training.reports if report.status == "ok"]
            evaluation = self._evaluate(accepted) if due else None
            scored = executor.score_clients() if self._client_scoring.is_due(index) else NO_CLIENT_SCORES
            client_scores = scored_rows(index, scored, training.reports)
            evaluation_seconds = clock.lap() + training.scoring_seconds
            comm, comp = costs.paper(plan.cohort, plan.sent, plan.active.partial)
            self._comm_gb, self._comp_tflop = added(self._comm_gb, comm), self._comp_tflop + comp
            if virtual is not None and times is not None:
                times = virtual.close(times, plan, training.reports)
            of_clients = None if times is None else times.clients
            clients = client_records(plan, training, evaluation, costs, self._attackers, of_clients)
            scores = Scores.of(evaluation.scores if evaluation else (), self._metrics)
            norms = [report.step_norms for report in training.reports if report.step_norms and report.status == "ok"]
            divergences = outcome.divergences if self._records_divergence else ()
            finished = FinishedRound(
                RoundRecord(
                    round=index,
                    phase=plan.active.phase,
                    group=plan.active.label,
                    clients=len(plan.cohort),
                    train_loss=mean_loss(training.reports),
                    test_loss=scores.test_loss,
                    test_accuracy=scores.test_accuracy,
                    uplink_bytes=sum(client.uplink_bytes for client in clients),
                    downlink_bytes=sum(client.downlink_bytes for client in clients),
                    transport_bytes=training.transport_bytes
                    + probe_bytes
                    + scored.transport_bytes
                    + (evaluation.transport_bytes if evaluation else 0),
                    client_flops=sum(client.flops for client in clients),
                    paper_comm_gb=self._comm_gb,
                    paper_comp_tflop=self._comp_tflop,
                    update_norm=outcome.update_norm,
                    wall_seconds=clock.total() + tracking_seconds,
                    virtual_seconds=None if times is None else times.end,
                    joules=None if times is None else times.joules,
                    waited_seconds=None if opening is None else opening.waited,
                    rejected_clients=sum(client.status == "rejected" for client in clients),
                    dispatch_seconds=dispatch_seconds,
                    transfer_seconds=training.load_seconds + max(0.0, training_wall - training.busy_seconds),
                    training_seconds=training.busy_seconds - training.load_seconds - training.scoring_seconds,
                    aggregation_seconds=aggregation_seconds,
                    evaluation_seconds=evaluation_seconds,
                    tracking_seconds=tracking_seconds,
                    dropped_clients=sum(client.status == DROPPED for client in clients),
                    validation_loss=scores.validation_loss,
                    validation_accuracy=scores.validation_accuracy,
                    group_clients=updates_by_group(
                        costs.layout.groups,
                        (groups for client, groups in zip(plan.cohort, plan.sent, strict=True) if client in accepted),
                    ),
                    **round_figures(norms, divergences, probes),
                    **client_score_figures(client_scores, self._client_scoring.task),
                    **scores.figures,
                ),
                clients,
                kept=training.kept,
                remarks=training.remarks,
                measured=round_rows(index, norms, divergences, probes) | by_file(client_scores),
            )
            check_finite(finished.record, len(accepted), self._remedy)
            self._next_round = index + 1
            self._dropped_clients.record(
                index, (report.client for report in training.reports if report.status == DROPPED)
            )
            yield finished
            tracking_seconds = clock.lap()
            if stopping or should_stop():
                return
