"""The loop of an asynchronous run: K tasks in flight, each applied as it arrives; who computes next, at what cost."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from fedbench.accounting.costs import CostModel
from fedbench.accounting.ledger import TransferLedger
from fedbench.accounting.totals import Costs, added
from fedbench.checkpoints.state import Tree
from fedbench.engine.arrivals.candidates import Candidates
from fedbench.engine.arrivals.clocks import NEVER, Clock, TaskEnd
from fedbench.engine.arrivals.plan import ArrivalPlan
from fedbench.engine.arrivals.progress import DispatchedTask, RoundInProgress
from fedbench.engine.bookkeeping import (
    FinishedRound,
    Stopwatch,
    check_failures,
    mean_loss,
    updates_by_group,
    virtual_figures,
)
from fedbench.engine.divergence import check_accepted, check_finite, remedy
from fedbench.engine.interfaces import EvaluationPhase, TaskExecutor
from fedbench.engine.messages import ClientReport, TaskOrder
from fedbench.errors import RunError
from fedbench.planning.checked_groups import checked_groups
from fedbench.planning.schedules import ActiveGroups, Feedback
from fedbench.planning.worlds import Work, total_joules
from fedbench.records.schema import ArrivalRecord, ClientRecord, RoundRecord
from fedbench.training.scores import Metrics, Scores

SAVED_ATTRIBUTES = (
    "_next_round",
    "_step_round",
    "_updates",
    "_visits",
    "_idle_clients",
    "_free_slots",
    "_waiting_slots",
    "_in_flight",
    "_dispatched",
    "_arrived",
    "_applied",
    "_now",
    "_samples_passed",
    "_comm_gb",
    "_comp_tflop",
)
"""Attributes of `ArrivalLoop` that a checkpoint holds."""


MOST_LOST_IN_A_ROW = 10_000
"""Lost tasks without an update between them, after which nothing is expected to arrive any more."""


class ArrivalLoop:
    """Dispatches tasks to free slots, applies their updates in the order of the clock, and records the costs.

    Tasks that are still in flight when the run ends count in no figure, neither their downloads nor their FLOPs.
    """

    def __init__(
        self,
        plan: ArrivalPlan,
        executor: TaskExecutor,
        clock: Clock,
        costs: CostModel,
        max_failed_clients: int = 0,
        metrics: Metrics | None = None,
    ) -> None:
        """Args:
        plan: what is computed, and how many arrivals make a round.
        executor: runs the tasks, or pretends to (`DryRun`).
        clock: decides which task ends next.
        costs: counts bytes and FLOPs.
        max_failed_clients: failed tasks that the run tolerates in a round.
        metrics: puts the further metrics of an evaluation together; None: there are none.
        """
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
        self._period = plan.method.period(plan.method.count_workers(plan.workers, clients))
        self._updates = dict.fromkeys(self._groups, 0)
        self._visits: Counter[int] = Counter()
        self._idle_clients = sorted(range(clients))
        self._free_slots = list(range(plan.workers))
        self._waiting_slots: list[int] = []
        self._in_flight: dict[int, DispatchedTask] = {}
        self._next_round = self._step_round = 0
        self._dispatched = self._arrived = self._applied = 0
        self._now = 0.0
        self._candidates = Candidates(plan)
        self._samples_passed = 0.0
        self._comm_gb: float | None = 0.0
        self._comp_tflop = 0.0
        self._mean_full_flops = sum(self._flops(self._groups, client) for client in range(clients)) / clients
        self._watch = Stopwatch()
        self._remedy = remedy(plan.method)
        self._metrics = metrics

    @property
    def next_round(self) -> int:
        """The round that comes next, from 0."""
        return self._next_round

    def scores(self) -> Scores:
        """The scores of the current global model."""
        return Scores.of(self._executor.evaluate(self._ledger.versions).scores, self._metrics)

    def rounds(self, evaluate_every: int, should_stop: Callable[[], bool]) -> Iterator[FinishedRound]:
        """Run the remaining rounds and yield the records of each.

        Args:
            evaluate_every: rounds between two evaluations; the last round is always evaluated.
            should_stop: asked at the end of each round; True ends the run there.

        Raises:
            RunError: a client failed, an actor could not be replaced, no update of a round could be applied, or the
                model or a loss is not finite.
        """
        plan, tracking_seconds = self._plan, 0.0
        for index in range(self._next_round, plan.rounds):
            clock = Stopwatch()
            progress = RoundInProgress(index)
            self._fill(progress)
            training_seconds = clock.lap()
            stopping = should_stop()
            due = (index + 1) % evaluate_every == 0 or index + 1 == plan.rounds
            evaluation = self._executor.evaluate(self._ledger.versions) if due else None
            evaluation_seconds = clock.lap()
            norm, transport_bytes = self._executor.end_round()
            record = replace(
                self._record(progress, evaluation, norm, transport_bytes),
                dispatch_seconds=training_seconds - progress.waited,
                training_seconds=progress.waited,
                aggregation_seconds=clock.lap(),
                evaluation_seconds=evaluation_seconds,
                tracking_seconds=tracking_seconds,
                wall_seconds=clock.total() + tracking_seconds,
            )
            check_finite(record, len(progress.accepted), self._remedy)
            self._next_round = index + 1
            yield FinishedRound(record, tuple(progress.clients), tuple(progress.arrivals), progress.full)
            tracking_seconds = clock.lap()
            if stopping or should_stop():
                return

    def state(self) -> Tree:
        """Everything that the loop and its clock keep between two rounds, for a checkpoint."""
        saved = {name: getattr(self, name) for name in SAVED_ATTRIBUTES}
        ledgers = [self._ledger.state(), self._full_ledger.state()]
        return {"kept": saved, "ledgers": ledgers, "clock": self._clock.state()}

    def restore(self, state: Tree) -> None:
        """Continue from a state that `state` returned."""
        for name in SAVED_ATTRIBUTES:
            setattr(self, name, state["kept"][name])
        for ledger, ledger_state in zip((self._ledger, self._full_ledger), state["ledgers"], strict=True):
            ledger.restore(ledger_state)
        self._clock.restore(state["clock"])

    def _fill(self, progress: RoundInProgress) -> None:
        """Dispatch tasks and take arrivals until the round is complete.

        Raises:
            RunError: reports arrived, and none of their updates could be applied.
        """
        plan = self._plan
        until = NEVER if plan.seconds_per_round is None else (progress.round + 1) * plan.seconds_per_round
        goal = plan.arrivals_per_round if plan.seconds_per_round is None else None
        while goal is None or len(progress.reports) < goal:
            if not plan.method.barrier or len(self._free_slots) == plan.workers:
                self._step_round = progress.round
            self._free_slots = [slot for slot in self._free_slots if not self._dispatch(slot, self._step_round)]
            comes = self._candidates.next_coming(
                self._free_slots, self._idle_clients, self._now, progress.round, in_flight=bool(self._in_flight)
            )
            end = self._clock.next(min(until, comes))
            if end is None and comes < NEVER and comes <= until:
                self._now = comes
                continue
            if end is None:
                self._now = until
                if not self._arrived and progress.round + 1 == plan.rounds:
                    raise RunError(
                        f"no task ended in {plan.rounds} rounds of {plan.seconds_per_round:g} s; raise "
                        "delays.seconds_per_round"
                    )
                break
            self._arrive(end, progress)
        if progress.reports:
            check_accepted(progress.round, progress.reports, self._remedy)

    def _dispatch(self, slot: int, round_index: int) -> bool:
        """Give a free slot its next task, with the layer groups and the learning rate of round `round_index`.

        Returns:
            Whether there was a client for it: False where those that it could go to are off.
        """
        plan, layout = self._plan, self._costs.layout
        client = self._candidates.draw(slot, self._idle_clients, self._dispatched, self._now)
        if client is None:
            return False
        if not self._candidates.own_client:
            self._idle_clients.remove(client)
        active, (groups,) = checked_groups(
            plan.schedule, round_index, layout.groups, plan.seed, self._feedback, (client,), RunError
        )
        order = TaskOrder(
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
        # An estimate is made for this task alone: the client downloads it anew, and afterwards holds no server version.
        estimated = groups if plan.method.estimates else ()
        self._ledger.invalidate(client, estimated)
        down, up = self._ledger.download((client,))[0], self._costs.uplink_bytes(groups)
        self._ledger.invalidate(client, estimated)
        self._full_ledger.invalidate(client, self._groups if plan.method.estimates else ())
        full = Costs(
            uplink_bytes=self._costs.uplink_bytes(self._groups),
            downlink_bytes=self._full_ledger.download((client,))[0],
            client_flops=self._flops(self._groups, client, order.visit),
        )
        share = self._flops(groups, client, order.visit) / self._mean_full_flops
        times = None
        if plan.world is not None:
            times = plan.world.task(client, self._now, Work(self._flops(groups, client, order.visit), down, up))
        due = self._clock.dispatched(order, self._now, share, down + up, times)
        self._in_flight[order.number] = DispatchedTask(
            order, self._applied, self._now, active, down, up, full, due is not None, times
        )
        if due is not None:
            self._executor.dispatch(order, self._ledger.versions, due)
        return True

    def _arrive(self, end: TaskEnd, progress: RoundInProgress) -> None:
        """Record the end of a task, apply its update if there is one, and free its slot."""
        task = self._in_flight.pop(end.number)
        order, self._now = task.order, end.seconds
        if not self._candidates.own_client:
            self._idle_clients = sorted([*self._idle_clients, order.client])
        waited = Stopwatch()
        report = None if end.lost else self._executor.collect(order.number, progress.round)
        progress.waited += waited.total()
        status = "lost" if report is None else report.status
        progress.arrivals.append(
            ArrivalRecord(
                arrival=self._arrived,
                round=progress.round,
                worker=order.worker,
                client=order.client,
                status=status,
                group=_label(order.groups, task.active),
                index=task.index,
                staleness=self._applied - task.index,
                dispatched_seconds=task.seconds,
                arrived_seconds=end.seconds,
                wall_seconds=self._watch.total(),
                uplink_bytes=task.uplink_bytes if status in ("ok", "rejected") else 0,
                downlink_bytes=task.downlink_bytes,
            )
        )
        self._arrived += 1
        if (times := task.times_at_end(status, self._plan.world)) is not None:
            progress.joules.append(times.joules)
        progress.downlink_bytes += task.downlink_bytes
        progress.full += Costs(downlink_bytes=task.full.downlink_bytes)
        if report is not None:
            self._take(task, report, progress)
        progress.lost_in_a_row = progress.lost_in_a_row + 1 if report is None else 0
        if progress.lost_in_a_row > MOST_LOST_IN_A_ROW:
            raise RunError(
                f"round {progress.round + 1}: the last {progress.lost_in_a_row:,} tasks were lost, since their clients "
                "went off before they were done; give them more time (delays.availability), or less to do"
            )
        self._release(order.worker, status)

    def _take(self, task: DispatchedTask, report: ClientReport, progress: RoundInProgress) -> None:
        """Record a task's report and costs, and have its update applied if the client's status is "ok".

        Raises:
            ClientFailure: more clients have failed in this round than the run tolerates.
        """
        plan, order, costs = self._plan, task.order, self._costs
        progress.reports.append(report)
        failed = report.status == "failed"
        if failed:
            check_failures(progress.reports, progress.round, self._max_failed)
        samples_passed = report.samples * (1.0 if plan.gradient else plan.local.passes(report.samples))
        progress.clients.append(
            ClientRecord(
                round=progress.round,
                client=report.client,
                status=report.status,
                samples=report.samples,
                steps=report.steps,
                train_loss=report.loss,
                local_accuracy=None,
                uplink_bytes=progress.arrivals[-1].uplink_bytes,
                downlink_bytes=task.downlink_bytes,
                flops=0 if failed else self._flops(order.groups, order.client, order.visit, report.passes),
                seconds=report.seconds,
                byzantine=report.client in plan.attackers,
                **virtual_figures(task.times_at_end(report.status, plan.world)),
            )
        )
        if not failed:
            self._samples_passed += samples_passed
            comm, comp = costs.paper_arrival(order.groups, samples_passed, task.active.partial, plan.workers)
            self._comm_gb, self._comp_tflop = added(self._comm_gb, comm), self._comp_tflop + comp
            comm, comp = costs.paper_arrival(self._groups, samples_passed, False, plan.workers)
            progress.full += replace(task.full, downlink_bytes=0, paper_comm_gb=comm, paper_comp_tflop=comp)
        if report.status != "ok":
            self._executor.discard(order.number)
            return
        factor = plan.learning_rate.factor(progress.round, plan.rounds)
        self._executor.apply(order.number, plan.lr * factor if plan.gradient else 1.0, report.steps)
        self._applied += 1
        progress.trained.append(order.groups)
        changed = []
        for group in order.groups:
            self._updates[group] += 1
            if self._updates[group] % self._period == 0:
                changed.append(group)
        self._ledger.changed(costs.table.uploaded(changed), self._applied)
        changed_by_full_updates = self._groups if self._applied % self._period == 0 else ()
        self._full_ledger.changed(costs.table.uploaded(changed_by_full_updates), self._applied)

    def _release(self, slot: int, status: str) -> None:
        """Free a slot whose task has ended.

        In lock-step (`AsyncAlgorithm.barrier`) a slot whose update was applied waits until all K updates of the step
        are there. A slot whose task failed, was rejected or was lost is free at once, and computes its update of the
        step once more, in the layer groups of that step.
        """
        if not self._plan.method.barrier or status != "ok":
            self._free_slots.append(slot)
            return
        self._waiting_slots.append(slot)
        if len(self._waiting_slots) == self._plan.workers:
            self._free_slots, self._waiting_slots = sorted(self._waiting_slots), []

    def _flops(self, groups: tuple[int, ...], client: int, visit: int = 0, passes: int | None = None) -> int:
        """FLOPs of one task.

        Args:
            groups: layer groups that it trains.
            client: the client that computes it.
            visit: number of tasks that the client has had before.
            passes: additional forward passes of every minibatch, as reported; None: as expected beforehand.
        """
        if self._plan.gradient:
            sizes = self._plan.local.epoch(self._plan.sizes[client])
            return self._costs.minibatch_flops(groups, sizes[visit % len(sizes)])
        expected_passes = self._costs.extra_passes(groups) if visit else 0
        return self._costs.client_flops(groups, client, expected_passes if passes is None else passes)

    def _record(
        self, progress: RoundInProgress, evaluation: EvaluationPhase | None, norm: float, transport_bytes: int
    ) -> RoundRecord:
        staleness = [arrival.staleness for arrival in progress.accepted]
        scores = Scores.of(evaluation.scores if evaluation else (), self._metrics)
        return RoundRecord(
            round=progress.round,
            phase="async",
            group=progress.group,
            clients=len(progress.reports),
            train_loss=mean_loss(progress.reports),
            test_loss=scores.test_loss,
            test_accuracy=scores.test_accuracy,
            uplink_bytes=sum(client.uplink_bytes for client in progress.clients),
            downlink_bytes=progress.downlink_bytes,
            transport_bytes=transport_bytes,
            client_flops=sum(client.flops for client in progress.clients),
            paper_comm_gb=self._comm_gb,
            paper_comp_tflop=self._comp_tflop,
            update_norm=norm,
            wall_seconds=0.0,
            virtual_seconds=self._now,
            rejected_clients=sum(report.status == "rejected" for report in progress.reports),
            epochs=self._samples_passed / sum(self._plan.sizes),
            staleness_mean=sum(staleness) / len(staleness) if staleness else None,
            staleness_max=max(staleness, default=None),
            validation_loss=scores.validation_loss,
            validation_accuracy=scores.validation_accuracy,
            group_clients=updates_by_group(len(self._groups), progress.trained),
            joules=None if self._plan.world is None else total_joules(progress.joules),
            **scores.figures,
        )


def _label(groups: tuple[int, ...], active: ActiveGroups) -> int:
    """The one layer group that a partial update trained; -1 for a full update, or for several groups."""
    return groups[0] if active.partial and len(groups) == 1 else -1
