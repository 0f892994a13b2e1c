"""Asynchronous runs: K works in flight, each applied as it arrives; who works next, and what all of it costs."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from fedbench.accounting.costs import CostModel
from fedbench.accounting.ledger import TransferLedger
from fedbench.accounting.totals import Costs
from fedbench.checkpoints.state import Tree
from fedbench.engine.arrivals.clocks import NEVER, Clock, Due
from fedbench.engine.arrivals.plan import ArrivalPlan
from fedbench.engine.bookkeeping import FinishedRound, Stopwatch, check_failures, mean_loss
from fedbench.engine.interfaces import EvaluationPhase, Works
from fedbench.engine.messages import ArrivalOrder, ClientReport
from fedbench.errors import RunError
from fedbench.planning.schedules import ActiveGroups, Feedback
from fedbench.randomness import generator
from fedbench.records.schema import ArrivalRecord, ClientRecord, RoundRecord
from fedbench.training.scores import total_score

KEPT = (
    "_next_round",
    "_step_round",
    "_updates",
    "_visits",
    "_idle",
    "_free",
    "_waiting",
    "_flying",
    "_dispatched",
    "_arrived",
    "_applied",
    "_now",
    "_samples",
    "_comm_gb",
    "_comp_tflop",
)
"""What `Arrivals` keeps between two rounds."""


@dataclass(frozen=True)
class Flight:
    """A work that was given out.

    Attributes:
        index: updates applied until then; seconds: of the clock, then.
        active: what the schedule had active; full: what a full update would cost instead.
        expected: whether anything will come of it.
    """

    order: ArrivalOrder
    index: int
    seconds: float
    active: ActiveGroups
    downlink_bytes: int
    uplink_bytes: int
    full: Costs
    expected: bool


@dataclass
class Row:
    """A round as it fills up."""

    round: int
    clients: list[ClientRecord] = field(default_factory=list)
    arrivals: list[ArrivalRecord] = field(default_factory=list)
    reports: list[ClientReport] = field(default_factory=list)
    downlink_bytes: int = 0
    full: Costs = field(default_factory=Costs)
    waited: float = 0.0

    @property
    def accepted(self) -> list[ArrivalRecord]:
        """The updates that were applied."""
        return [arrival for arrival in self.arrivals if arrival.status == "ok"]

    @property
    def group(self) -> int:
        """The one group that all of them trained; -1 otherwise."""
        groups = {arrival.group for arrival in self.accepted}
        return groups.pop() if len(groups) == 1 else -1


class Arrivals:
    """Gives works to free slots, takes what arrives in the clock's order, keeps the books.

    What is in flight when the run ends is in no figure: neither its download nor its computation.
    """

    def __init__(
        self, plan: ArrivalPlan, executor: Works, clock: Clock, costs: CostModel, max_failed_clients: int = 0
    ) -> None:
        self._plan = plan
        self._executor = executor
        self._clock = clock
        self._costs = costs
        self._max_failed = max_failed_clients
        clients = len(plan.sizes)
        self._ledger = TransferLedger(costs.table, clients)
        self._full_ledger = TransferLedger(costs.table, clients)
        self._groups = costs.layout.all_groups
        self._feedback = Feedback.none(costs.layout)
        self._period = plan.method.period(plan.workers)
        self._updates = dict.fromkeys(self._groups, 0)
        self._visits: Counter[int] = Counter()
        self._idle = sorted(range(clients))
        self._free = list(range(plan.workers))
        self._waiting: list[int] = []
        self._flying: dict[int, Flight] = {}
        self._next_round = self._step_round = 0
        self._dispatched = self._arrived = self._applied = 0
        self._now = 0.0
        self._samples = 0.0
        self._comm_gb = self._comp_tflop = 0.0
        self._full_share = sum(self._flops(self._groups, client) for client in range(clients)) / clients
        self._watch = Stopwatch()

    def accuracy(self) -> float:
        """Of the model as it is, in 0..1."""
        return total_score(self._executor.evaluate(self._ledger.versions).scores)[1]

    def rounds(self, evaluate_every: int, should_stop: Callable[[], bool]) -> Iterator[FinishedRound]:
        """Run until the end, or until `should_stop` says so at the end of a round.

        Raises:
            RunError: a client failed, an actor could not be brought back, or a whole round came to nothing.
        """
        plan, tracking_seconds = self._plan, 0.0
        for index in range(self._next_round, plan.rounds):
            clock = Stopwatch()
            row = Row(index)
            self._fill(row)
            training_seconds = clock.lap()
            stopping = should_stop()
            due = (index + 1) % evaluate_every == 0 or index + 1 == plan.rounds
            evaluation = self._executor.evaluate(self._ledger.versions) if due else None
            evaluation_seconds = clock.lap()
            norm, transport_bytes = self._executor.end_round()
            record = replace(
                self._record(row, evaluation, norm, transport_bytes),
                dispatch_seconds=training_seconds - row.waited,
                training_seconds=row.waited,
                aggregation_seconds=clock.lap(),
                evaluation_seconds=evaluation_seconds,
                tracking_seconds=tracking_seconds,
                wall_seconds=clock.total() + tracking_seconds,
            )
            self._next_round = index + 1
            yield FinishedRound(record, tuple(row.clients), tuple(row.arrivals), row.full)
            tracking_seconds = clock.lap()
            if stopping or should_stop():
                return

    def state(self) -> Tree:
        """All that is kept between two rounds, the clock's state with it."""
        kept = {name: getattr(self, name) for name in KEPT}
        ledgers = [self._ledger.state(), self._full_ledger.state()]
        return {"kept": kept, "ledgers": ledgers, "clock": self._clock.state()}

    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave."""
        for name in KEPT:
            setattr(self, name, state["kept"][name])
        for ledger, own in zip((self._ledger, self._full_ledger), state["ledgers"], strict=True):
            ledger.restore(own)
        self._clock.restore(state["clock"])

    def _fill(self, row: Row) -> None:
        plan = self._plan
        until = NEVER if plan.seconds_per_round is None else (row.round + 1) * plan.seconds_per_round
        goal = plan.arrivals_per_round if plan.seconds_per_round is None else None
        while goal is None or len(row.reports) < goal:
            if not plan.method.barrier or len(self._free) == plan.workers:
                self._step_round = row.round
            for slot in self._free:
                self._dispatch(slot, self._step_round)
            self._free = []
            due = self._clock.next(until)
            if due is None:
                self._now = until
                break
            self._arrive(due, row)
        if row.reports and not row.accepted:
            raise RunError(
                f"round {row.round}: none of the {len(row.reports)} updates that arrived could be applied; "
                "lower local.optimizer.lr, or look at clients.parquet for who failed"
            )

    def _dispatch(self, slot: int, round_index: int) -> None:
        plan, layout = self._plan, self._costs.layout
        client = self._draw(slot)
        active = plan.schedule.active(round_index, layout.groups, plan.seed, self._feedback)
        groups = plan.schedule.client_groups(client, round_index, layout.groups, active)
        order = ArrivalOrder(
            number=self._dispatched,
            worker=slot,
            client=client,
            visit=self._visits[client],
            groups=groups,
            stale=(),
            lr_factor=plan.learning_rate.factor(round_index, plan.rounds),
            gradient=plan.gradient,
        )
        self._dispatched += 1
        self._visits[client] += 1
        own = groups if plan.method.estimates else ()
        self._ledger.invalidate(client, own)
        down, up = self._ledger.download((client,))[0], self._costs.uplink_bytes(groups)
        self._ledger.invalidate(client, own)
        whole = self._costs.uplink_bytes(self._groups)
        self._full_ledger.invalidate(client, self._groups if plan.method.estimates else ())
        full = Costs(whole, self._full_ledger.download((client,))[0], self._flops(self._groups, client, order.visit))
        share = self._flops(groups, client, order.visit) / self._full_share
        expected = self._clock.dispatched(order, self._now, share, down + up)
        self._flying[order.number] = Flight(order, self._applied, self._now, active, down, up, full, expected)
        if expected:
            self._executor.dispatch(order, self._ledger.versions)

    def _draw(self, slot: int) -> int:
        """A client that is not at work, uniformly; the slot's own where there are as many as slots."""
        if len(self._plan.sizes) == self._plan.workers:
            return slot
        place = int(generator(self._plan.seed, "dispatch", self._dispatched).integers(len(self._idle)))
        return self._idle.pop(place)

    def _arrive(self, due: Due, row: Row) -> None:
        flight = self._flying.pop(due.number)
        order, self._now = flight.order, due.seconds
        if len(self._plan.sizes) != self._plan.workers:
            self._idle = sorted([*self._idle, order.client])
        waited = Stopwatch()
        report = None if due.lost else self._executor.collect(order.number, row.round)
        row.waited += waited.total()
        status = "lost" if report is None else report.status
        row.arrivals.append(
            ArrivalRecord(
                arrival=self._arrived,
                round=row.round,
                worker=order.worker,
                client=order.client,
                status=status,
                group=_label(order.groups, flight.active),
                index=flight.index,
                staleness=self._applied - flight.index,
                dispatched_seconds=flight.seconds,
                arrived_seconds=due.seconds,
                wall_seconds=self._watch.total(),
                uplink_bytes=flight.uplink_bytes if status in ("ok", "rejected") else 0,
                downlink_bytes=flight.downlink_bytes,
            )
        )
        self._arrived += 1
        row.downlink_bytes += flight.downlink_bytes
        row.full += Costs(downlink_bytes=flight.full.downlink_bytes)
        if report is not None:
            self._take(flight, report, row)
        self._release(order.worker, status)

    def _take(self, flight: Flight, report: ClientReport, row: Row) -> None:
        """What arrived: into the books, and to the server if it can be applied."""
        plan, order, costs = self._plan, flight.order, self._costs
        row.reports.append(report)
        failed = report.status == "failed"
        if failed:
            check_failures(row.reports, row.round, self._max_failed)
        passed = report.samples * (1.0 if plan.gradient else plan.local.passes(report.samples))
        row.clients.append(
            ClientRecord(
                round=row.round,
                client=report.client,
                status=report.status,
                samples=report.samples,
                steps=report.steps,
                train_loss=report.loss,
                local_accuracy=None,
                uplink_bytes=row.arrivals[-1].uplink_bytes,
                downlink_bytes=flight.downlink_bytes,
                flops=0 if failed else self._flops(order.groups, order.client, order.visit, report.passes),
                seconds=report.seconds,
            )
        )
        if not failed:
            self._samples += passed
            comm, comp = costs.paper_arrival(order.groups, passed, flight.active.partial, plan.workers)
            self._comm_gb, self._comp_tflop = self._comm_gb + comm, self._comp_tflop + comp
            comm, comp = costs.paper_arrival(self._groups, passed, False, plan.workers)
            row.full += replace(flight.full, downlink_bytes=0, paper_comm_gb=comm, paper_comp_tflop=comp)
        if report.status != "ok":
            self._executor.discard(order.number)
            return
        factor = plan.learning_rate.factor(row.round, plan.rounds)
        self._executor.apply(order.number, plan.lr * factor if plan.gradient else 1.0, report.steps)
        self._applied += 1
        changed = []
        for group in order.groups:
            self._updates[group] += 1
            if self._updates[group] % self._period == 0:
                changed.append(group)
        self._ledger.changed(costs.table.uploaded(changed), self._applied)
        whole = self._groups if self._applied % self._period == 0 else ()
        self._full_ledger.changed(costs.table.uploaded(whole), self._applied)

    def _release(self, slot: int, status: str) -> None:
        """A slot is free; in lock-step it waits for the others, unless it has nothing to show yet.

        Then it works again on what the others have trained, whatever the schedule has reached meanwhile.
        """
        if not self._plan.method.barrier or status != "ok":
            self._free.append(slot)
            return
        self._waiting.append(slot)
        if len(self._waiting) == self._plan.workers:
            self._free, self._waiting = sorted(self._waiting), []

    def _flops(self, groups: tuple[int, ...], client: int, visit: int = 0, passes: int | None = None) -> int:
        """Of one work, as it is foreseen (`passes` None) or as it was."""
        if self._plan.gradient:
            sizes = self._plan.local.epoch(self._plan.sizes[client])
            return self._costs.minibatch_flops(groups, sizes[visit % len(sizes)])
        foreseen = self._costs.extra_passes(groups) if visit else 0
        return self._costs.client_flops(groups, client, foreseen if passes is None else passes)

    def _record(self, row: Row, evaluation: EvaluationPhase | None, norm: float, transport_bytes: int) -> RoundRecord:
        staleness = [arrival.staleness for arrival in row.accepted]
        loss, accuracy = total_score(evaluation.scores) if evaluation else (None, None)
        return RoundRecord(
            round=row.round,
            phase="async",
            group=row.group,
            clients=len(row.reports),
            train_loss=mean_loss(row.reports),
            test_loss=loss,
            test_accuracy=accuracy,
            uplink_bytes=sum(client.uplink_bytes for client in row.clients),
            downlink_bytes=row.downlink_bytes,
            transport_bytes=transport_bytes,
            client_flops=sum(client.flops for client in row.clients),
            paper_comm_gb=self._comm_gb,
            paper_comp_tflop=self._comp_tflop,
            update_norm=norm,
            wall_seconds=0.0,
            virtual_seconds=self._now,
            rejected_clients=sum(report.status == "rejected" for report in row.reports),
            epochs=self._samples / sum(self._plan.sizes),
            staleness_mean=sum(staleness) / len(staleness) if staleness else None,
            staleness_max=max(staleness, default=None),
        )


def _label(groups: tuple[int, ...], active: ActiveGroups) -> int:
    return groups[0] if active.partial and len(groups) == 1 else -1
