"""Synchronous rounds: plan, train, combine, score, record."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fedbench.accounting.costs import CostModel
from fedbench.accounting.totals import Costs
from fedbench.deadlines import DROPPED, Drops
from fedbench.engine.executor import EvaluationPhase, RoundExecutor, TrainingPhase
from fedbench.engine.messages import ClientReport, RoundPlan
from fedbench.records import ArrivalRecord, ClientRecord, RoundRecord
from fedbench.snapshots import Tree
from fedbench.training.scores import total_score


@dataclass(frozen=True)
class FinishedRound:
    """A round's records.

    Attributes:
        arrivals: of an asynchronous run.
        full: what the same arrivals would have cost as full updates.
    """

    record: RoundRecord
    clients: tuple[ClientRecord, ...]
    arrivals: tuple[ArrivalRecord, ...] = ()
    full: Costs | None = None


class Rounds:
    """Synchronous rounds, one after the other; keeps the books of what is cumulative."""

    def __init__(
        self,
        executor: RoundExecutor,
        costs: CostModel,
        *,
        rounds: int,
        evaluate_clients: bool = False,
        drops: Drops | None = None,
    ) -> None:
        """Args:
        drops: who was dropped in rounds that are done again; None: nobody is, ever.
        """
        self._executor = executor
        self._costs = costs
        self._rounds = rounds
        self._evaluate_clients = evaluate_clients
        self._drops = drops or Drops()
        self._next_round = 0
        self._comm_gb = self._comp_tflop = 0.0

    def state(self) -> Tree:
        """All that is kept between two rounds."""
        return {"next_round": self._next_round, "paper": [self._comm_gb, self._comp_tflop]}

    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave."""
        self._next_round = state["next_round"]
        self._comm_gb, self._comp_tflop = state["paper"]

    def accuracy(self) -> float:
        """Of the model as it is, in 0..1."""
        return total_score(self._executor.evaluate(()).scores)[1]

    def rounds(self, evaluate_every: int, should_stop: Callable[[], bool]) -> Iterator[FinishedRound]:
        """Run rounds until the end, or until `should_stop` says so at the end of one.

        What the consumer does with a record between two rounds is timed as `tracking_seconds` of the next.

        Raises:
            RunError: a client, an actor or a whole round failed.
        """
        executor, costs, tracking_seconds = self._executor, self._costs, 0.0
        for index in range(self._next_round, self._rounds):
            clock = Stopwatch()
            plan = executor.plan(index)
            dispatch_seconds = clock.lap()
            training = executor.train(plan, self._drops.limit(index))
            training_wall = clock.lap()
            outcome = executor.finish()
            aggregation_seconds = clock.lap()
            stopping = should_stop()
            due = (index + 1) % evaluate_every == 0 or index + 1 == self._rounds
            accepted = [report.client for report in training.reports if report.status == "ok"]
            evaluation = executor.evaluate(accepted if self._evaluate_clients else ()) if due else None
            evaluation_seconds = clock.lap()
            comm, comp = costs.paper(plan.cohort, plan.groups, plan.active.partial)
            self._comm_gb, self._comp_tflop = self._comm_gb + comm, self._comp_tflop + comp
            self._next_round = index + 1
            self._drops.done(index, (report.client for report in training.reports if report.status == DROPPED))
            clients = client_records(plan, training, evaluation, costs)
            test_loss, test_accuracy = total_score(evaluation.scores) if evaluation else (None, None)
            yield FinishedRound(
                RoundRecord(
                    round=index,
                    phase=plan.active.phase,
                    group=plan.active.label,
                    clients=len(plan.cohort),
                    train_loss=mean_loss(training.reports),
                    test_loss=test_loss,
                    test_accuracy=test_accuracy,
                    uplink_bytes=sum(client.uplink_bytes for client in clients),
                    downlink_bytes=sum(client.downlink_bytes for client in clients),
                    transport_bytes=training.transport_bytes + (evaluation.transport_bytes if evaluation else 0),
                    client_flops=sum(client.flops for client in clients),
                    paper_comm_gb=self._comm_gb,
                    paper_comp_tflop=self._comp_tflop,
                    update_norm=outcome.update_norm,
                    wall_seconds=clock.total() + tracking_seconds,
                    virtual_seconds=None,
                    rejected_clients=sum(client.status == "rejected" for client in clients),
                    dispatch_seconds=dispatch_seconds,
                    transfer_seconds=training.load_seconds + max(0.0, training_wall - training.busy_seconds),
                    training_seconds=training.busy_seconds - training.load_seconds,
                    aggregation_seconds=aggregation_seconds,
                    evaluation_seconds=evaluation_seconds,
                    tracking_seconds=tracking_seconds,
                    dropped_clients=sum(client.status == DROPPED for client in clients),
                ),
                clients,
            )
            tracking_seconds = clock.lap()
            if stopping or should_stop():
                return


SENT_NOTHING = ("failed", DROPPED)


class Stopwatch:
    """Wall-clock seconds, by laps."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start


def client_records(
    plan: RoundPlan, training: TrainingPhase, evaluation: EvaluationPhase | None, costs: CostModel
) -> tuple[ClientRecord, ...]:
    """One record for each participant that was begun.

    A client that failed or was dropped has received its download; it sent nothing, and the work that it did before is
    not counted.
    """
    place = {client: index for index, client in enumerate(plan.cohort)}
    accuracy = evaluation.client_accuracy if evaluation else {}
    return tuple(
        ClientRecord(
            round=plan.round,
            client=report.client,
            status=report.status,
            samples=report.samples,
            steps=report.steps,
            train_loss=report.loss,
            local_accuracy=accuracy.get(report.client),
            uplink_bytes=0 if report.status in SENT_NOTHING else plan.uplink_bytes[place[report.client]],
            downlink_bytes=plan.downlink_bytes[place[report.client]],
            flops=0
            if report.status in SENT_NOTHING
            else costs.client_flops(plan.groups[place[report.client]], report.client, report.passes),
            seconds=report.seconds,
        )
        for report in training.reports
    )


def mean_loss(reports: Sequence[ClientReport]) -> float:
    """Mean training loss over the samples of the accepted clients; NaN when there are none."""
    counted = [report for report in reports if report.status == "ok"]
    samples = sum(report.samples for report in counted)
    return sum(report.loss * report.samples for report in counted) / samples if samples else math.nan
