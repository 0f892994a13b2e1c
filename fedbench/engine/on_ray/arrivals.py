"""Asynchronous runs on a Ray cluster: tasks go to actors in batches, their updates to the server by reference."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from fedbench.checkpoints.state import Tree
from fedbench.config.runtime import RuntimeSection
from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.arrivals.server import ArrivalServerSpec
from fedbench.engine.arrivals.steps import ApplyStep, ForgetStep, SendStep, ServerStep
from fedbench.engine.arrivals.task_queue import TaskQueue, WaitingTask
from fedbench.engine.bookkeeping import stale_for_task, stale_parts
from fedbench.engine.interfaces import ArrivalExecutor, EvaluationPhase
from fedbench.engine.messages import (
    BatchReport,
    ClientReport,
    EvaluationReport,
    FinishedTask,
    HostSpec,
    TaskOrder,
)
from fedbench.engine.on_ray.actor_slots import ActorSlots
from fedbench.engine.on_ray.actors import START_TIMEOUT, ActorCluster
from fedbench.engine.on_ray.batches import Batch, ComputedTask
from fedbench.engine.on_ray.experiment_actors import ActorExecutor, as_fedbench_error
from fedbench.engine.on_ray.server_actors import ArrivalServerActor
from fedbench.engine.on_ray.servers import ServerHere
from fedbench.errors import LostActor, RunError
from fedbench.protocol.layout import Vector

PLACEMENT_CHECK_INTERVAL = 2.0
"""Seconds between two checks of whether a replaced actor has a place."""


class RayArrivalExecutor(ActorExecutor, ArrivalExecutor):
    """Runs asynchronous tasks on client actors; each actor computes its tasks one after the other.

    Most tasks wait here, where `TaskQueue` keeps them in the order in which they are due. The server is told in one
    call what has arrived and been dispatched since the call before, and returns the parameters of the batch that an
    actor is given next. It takes its calls in the order in which they were made, so that the driver need not wait for
    one before it makes the next. A server in this process writes parameters into memory that it shares with the actors
    of the machine, and reads updates there. An actor that dies is replaced, and its tasks are computed again on the
    same parameters.
    """

    def __init__(
        self,
        cluster: ActorCluster,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        server: ArrivalServerSpec,
        runtime: RuntimeSection,
    ) -> None:
        """Set the actors up; arguments and errors as for `ActorExecutor`."""
        self._estimates, self._worker_of = server.method.estimates, server.worker_of
        self._workers = server.workers
        self._slots: ActorSlots | None = None
        self._restarts = 0
        super().__init__(cluster, spec, data, rows, runtime, ArrivalServerActor, server)

    def _start(self) -> None:
        super()._start()
        table = self._spec.table
        self._queue = TaskQueue(
            self._cluster.actor_count, table.nbytes(range(len(table.parts))), keep_home=self._spec.stateful
        )
        self._outstanding: list[Batch] = []
        self._computed: dict[int, ComputedTask] = {}
        self._arrived: dict[int, ComputedTask] = {}
        self._steps: list[ServerStep] = []
        self._uploads: list[Any] = []
        self._end_slots()
        self._slots = self._make_slots()
        self._bytes = 0

    def _make_slots(self) -> ActorSlots | None:
        """Share memory with the client actors where the server is in this process, which can read it."""
        if not isinstance(self._server, ServerHere):
            return None
        slots = ActorSlots(self._workers, self._spec.table.values(range(len(self._spec.table.parts))))
        slots.attach(range(self._cluster.actor_count), self._cluster.client_actors, self._ask)
        return slots

    def _end_slots(self) -> None:
        if self._slots is not None:
            self._slots.close()
        self._slots = None

    def close(self) -> None:
        self._end_slots()
        super().close()

    def state(self) -> Tree:
        self.compute_all()
        self._send_steps()
        server = self._server.ask("state")
        finished = {
            number: FinishedTask(task.order, self._upload(task), task.report)
            for number, task in sorted(self._computed.items())
        }
        return {
            "server": server,
            "clients": self._client_states(),
            "held": self._held,
            "home": self._home,
            "finished": finished,
            "bytes": self._bytes,
        }

    def _upload(self, task: ComputedTask) -> Vector:
        """The upload of a task that is not applied yet."""
        uploads = task.uploads if isinstance(task.uploads, tuple) else self._ask(task.uploads)
        upload: Vector = uploads[task.place]
        return upload

    def restore(self, state: Tree) -> None:
        self._server.ask("restore", state["server"])
        self._held, self._home = self._restored_places(state)
        everything = tuple(range(len(self._spec.table.parts)))
        self._put_client_states(state["clients"], self._server.publish("current", everything))
        for number, task in state["finished"].items():
            self._computed[number] = ComputedTask(task.order, task.report, (task.upload,), 0)
        self._bytes = state.get("bytes", 0)

    def model(self) -> tuple[Vector, Vector]:
        self._send_steps()
        return super().model()

    def dispatch(self, order: TaskOrder, versions: tuple[int, ...], due: float) -> None:
        self._steps.append(SendStep(order.number, self._worker_of(order), order.groups))
        self._queue.add(WaitingTask(due, order.number, order, versions))

    def _give_out(self) -> None:
        """Give waiting tasks to the actors that have room for a batch."""
        while (batch := self._queue.next_batch(self._home)) is not None:
            self._submit(*batch)

    def _submit(self, actor: int, tasks: tuple[WaitingTask, ...]) -> None:
        """Call an actor for a batch of tasks, and the server for the parameters that they start from."""
        if self._slots is not None:
            self._send_steps()  # the slots of updates that have been applied are free
        orders, arriving, slots = [], {}, []
        for task in tasks:
            stale = stale_for_task(self._held[actor], task.versions, task.order.groups, self._estimates)
            self._bytes += self._spec.table.nbytes(stale)
            orders.append(replace(task.order, stale=stale))
            slots.append(None if self._slots is None else self._slots.take(actor))
            if (state := self._move_home(task.order.client, actor)) is not None:
                arriving[task.order.client] = state
        wanted = []
        for order, slot in zip(orders, slots, strict=True):
            if slot is not None:
                self._server.tell("send_into", order.number, order.stale, slot[1])
            elif order.stale:
                wanted.append((order.number, order.stale))
        payload = self._send_steps(wanted) if wanted else ()
        numbers = [None if slot is None else slot[0] for slot in slots]
        uploads, report = (
            self._cluster.client_actors[actor]
            .run_tasks.options(num_returns=2)
            .remote(orders, payload, numbers, tuple(arriving), *arriving.values())
        )
        memory = tuple(None if slot is None else slot[1] for slot in slots)
        self._outstanding.append(Batch(actor, tasks, uploads, report, memory))

    def _send_steps(self, wanted: Sequence[tuple[int, tuple[int, ...]]] = ()) -> Any:
        """Tell the server what has arrived and been dispatched.

        Args:
            wanted: (number of a task, parts), for the tasks whose parameters are needed.

        Returns:
            Reference to a tuple of the parameters of `wanted`; None where there are none.
        """
        steps, uploads, payload = self._steps, self._uploads, None
        self._steps, self._uploads = [], []
        if wanted:
            payload = self._server.publish_first("advance", steps, wanted, *uploads)
        elif steps:
            self._server.tell("take_steps", steps, *uploads)
        return payload

    def ready(self, timeout: float) -> int | None:
        limit = min(timeout, self._runtime.round_timeout)
        until = time.monotonic() + limit
        while True:
            self._give_out()
            if self._take_batch(0.0):
                continue  # until all batches that have ended are here
            if self._computed:
                return min(self._computed)
            if self._take_batch(until - time.monotonic()):
                continue
            if math.isinf(timeout) or timeout > limit:
                raise RunError(f"no update arrived within runtime.round_timeout={limit:g} s")
            return None

    def collect(self, number: int, round_index: int) -> ClientReport:
        while number not in self._computed:
            self._wait_for_batch()
        task = self._arrived[number] = self._computed.pop(number)
        if task.report.status == "ok":
            table = self._spec.table
            self._bytes += table.nbytes(table.uploaded(task.order.groups))
        return task.report

    def compute_all(self) -> None:
        """Wait until every task that was dispatched is computed."""
        while self._queue or self._outstanding:
            self._wait_for_batch()

    def _wait_for_batch(self) -> None:
        """Give waiting tasks out and wait until a batch has ended, or its actor is replaced.

        Raises:
            FedbenchError: the tasks failed or took too long, or their actor cannot be replaced.
        """
        self._give_out()
        if not self._take_batch(self._runtime.round_timeout):
            raise as_fedbench_error(GetTimeoutError(), f"the tasks of clients {self._outstanding[0].clients}")

    def _take_batch(self, timeout: float) -> bool:
        """Take the results of one batch that has ended; where its actor has died, replace the actor.

        Args:
            timeout: seconds to wait for a batch to end.

        Returns:
            Whether a batch has ended in time.

        Raises:
            FedbenchError: the tasks failed, or their actor cannot be replaced.
        """
        if not self._outstanding:
            return False
        ended, _ = self._waiter.wait([batch.report for batch in self._outstanding], max(0.0, timeout))
        if not ended:
            return False
        batch = next(batch for batch in self._outstanding if batch.report == ended[0])
        try:
            report: BatchReport = self._waiter.get(batch.report, timeout=self._runtime.round_timeout)
        except RayActorError as error:
            self._revive(batch.actor, error)
            return True
        except (RayError, GetTimeoutError) as error:
            raise as_fedbench_error(error, f"the tasks of clients {batch.clients}") from error
        self._outstanding.remove(batch)
        self._queue.finished(batch.actor, report.ended - report.began)
        self._keep(batch, report)
        return True

    def _keep(self, batch: Batch, report: BatchReport) -> None:
        """Keep the results of a batch until they are collected."""
        table = self._spec.table
        for place, (task, client_report) in enumerate(zip(batch.tasks, report.clients, strict=True)):
            uploads, slot = batch.uploads, batch.slots[place]
            if slot is not None:
                sent = client_report.status == "ok"
                uploads, place = (slot[: table.values(table.uploaded(task.order.groups)) if sent else 0],), 0
            self._computed[task.number] = ComputedTask(task.order, client_report, uploads, place)

    def _revive(self, actor: int, error: RayActorError) -> None:
        """Replace a dead actor and have the tasks that it was given wait for a place again.

        Raises:
            FedbenchError: too many actors died, clients have lost their state, or no new actor can be placed.
        """
        lost = [batch for batch in self._outstanding if batch.actor == actor and not _is_done(batch)]
        self._restarts += 1
        if self._restarts > self._runtime.max_retries or self._spec.stateful:
            clients = [client for batch in lost for client in batch.clients]
            what = f"the actor with the tasks of clients {clients} died"
            if self._spec.stateful:
                what += ", and with it the state of these clients"
            raise as_fedbench_error(error, what) from error
        self._waiter.wait_for_head()
        self._replace_actor(actor)
        self._held[actor] = [-1] * len(self._spec.table.parts)
        self._queue.lost(actor, len(lost))
        for batch in lost:
            self._outstanding.remove(batch)
            if self._slots is not None:
                self._slots.lose(batch.slots)
            for task in batch.tasks:
                self._queue.add(task)

    def _replace_actor(self, actor: int) -> None:
        """Create a new actor in a dead one's place, and wait until it is set up.

        Raises:
            LostActor: the node of that place is gone.
        """
        ready = self._cluster.replace_client(actor).prepare.remote(*self._shared)
        until = time.monotonic() + START_TIMEOUT
        while not self._waiter.wait([ready], PLACEMENT_CHECK_INTERVAL)[0]:
            self._waiter.wait_for_head()
            if not self._cluster.is_placed() or time.monotonic() > until:
                raise LostActor("an actor died and did not come back: its node is gone")
        try:
            self._waiter.get(ready, timeout=START_TIMEOUT)
        except (RayError, GetTimeoutError) as failure:
            raise as_fedbench_error(failure, "an actor could not be brought back") from failure
        if self._slots is not None:
            self._slots.attach([actor], self._cluster.client_actors, self._ask)

    def apply(self, number: int, lr: float, steps: int) -> None:
        task = self._arrived.pop(number)
        known = next((index for index, uploads in enumerate(self._uploads) if uploads is task.uploads), None)
        if known is None:
            known = len(self._uploads)
            self._uploads.append(task.uploads)
        self._steps.append(ApplyStep(number, known, task.place, lr, steps))

    def discard(self, number: int) -> None:
        del self._arrived[number]
        self._steps.append(ForgetStep(number))

    def evaluate(self, versions: tuple[int, ...]) -> EvaluationPhase:
        self._give_out()
        self._send_steps()
        while True:
            calls = {}
            for actor, client in enumerate(self._cluster.client_actors):
                batches = self._batches_for(actor)
                if not batches:
                    continue
                stale = stale_parts(self._held[actor], versions)
                self._held[actor] = list(versions)
                self._bytes += self._spec.table.nbytes(stale)
                payload = self._server.publish("current", stale)
                calls[actor] = client.evaluate.remote(stale, payload, batches, (), self._client0_for(actor))
            try:
                reports: list[EvaluationReport] = self._waiter.get(
                    list(calls.values()), timeout=self._runtime.round_timeout
                )
                break
            except RayActorError as error:
                for actor, call in calls.items():
                    if _has_died(call):
                        self._revive(actor, error)
            except (RayError, GetTimeoutError) as error:
                raise as_fedbench_error(error, "scoring the model") from error
        return EvaluationPhase(tuple(score for report in reports for score in report.scores), {}, 0)

    def end_round(self) -> tuple[float, int]:
        self._give_out()
        self._send_steps()
        self._server.settle()
        transport_bytes, self._bytes = self._bytes, 0
        norm: float = self._server.ask("end_round")
        return norm, transport_bytes


def _is_done(batch: Batch) -> bool:
    """Whether the batch's results are there, although its actor may be gone."""
    return bool(ray.wait([batch.report], timeout=0)[0]) and not _has_died(batch.report)


def _has_died(reference: Any) -> bool:
    """Whether a call has ended with the death of its actor."""
    try:
        ray.get(reference, timeout=0)
    except RayActorError:
        return True
    except (RayError, GetTimeoutError):
        return False
    return False
