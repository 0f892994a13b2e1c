"""Synchronous rounds: plan, train, combine, score, record."""

from collections.abc import Callable, Iterator

from fedbench.accounting.costs import CostModel
from fedbench.checkpoints.state import Tree
from fedbench.engine.bookkeeping import FinishedRound, Stopwatch, client_records, mean_loss
from fedbench.engine.interfaces import RoundExecutor
from fedbench.planning.deadlines import Drops
from fedbench.records.schema import DROPPED, RoundRecord
from fedbench.training.scores import total_score


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
