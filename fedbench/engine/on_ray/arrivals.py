"""Asynchronous runs on a Ray cluster: one actor call for each task, its update passed to the server by reference."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from fedbench.checkpoints.state import Tree
from fedbench.config.runtime import RuntimeSection
from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.arrivals.server import ArrivalServer, ArrivalServerSpec
from fedbench.engine.bookkeeping import stale_for_task, stale_parts
from fedbench.engine.interfaces import ArrivalExecutor, EvaluationPhase
from fedbench.engine.messages import ClientReport, EvaluationReport, FinishedTask, HostSpec, TaskOrder
from fedbench.engine.on_ray.actors import START_TIMEOUT, ActorCluster, ReusableServer
from fedbench.engine.on_ray.experiment_actors import ActorExecutor, as_fedbench_error
from fedbench.errors import LostActor, RunError

PLACEMENT_CHECK_INTERVAL = 2.0
"""Seconds between two checks of whether a replaced actor has a place."""

NO_ACTOR = -1
"""Actor of a task that was computed before the run was interrupted: its result comes from a checkpoint."""


class ArrivalServerActor(ReusableServer, ArrivalServer):
    """The server of an asynchronous run in its own process, as a Ray actor."""


@dataclass
class SubmittedTask:
    """A task that was submitted to an actor and is not yet collected.

    Attributes:
        order: the task.
        actor: index of the actor, or `NO_ACTOR`.
        report: reference to its `ClientReport`.
        upload: reference to the parts that it sends.
    """

    order: TaskOrder
    actor: int
    report: Any
    upload: Any


class RayArrivalExecutor(ActorExecutor, ArrivalExecutor):
    """Runs asynchronous tasks on client actors; each actor computes its tasks one after the other.

    Ray executes the calls to the server in the order in which they were made, so that the driver need not wait for one
    before it makes the next. An actor that dies is replaced, and its tasks are computed again on the same parameters.
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
        self._estimates = server.method.estimates
        self._restarts = 0
        super().__init__(cluster, spec, data, rows, runtime, ArrivalServerActor, server)

    def _start(self) -> None:
        super()._start()
        self._tasks: dict[int, SubmittedTask] = {}
        self._uploads: dict[int, Any] = {}
        self._pending: list[Any] = []
        self._bytes = 0

    def state(self) -> Tree:
        server = self._ask(self._server.state.remote())
        finished = {}
        for number in sorted(self._tasks):
            report = self._report(number)
            finished[number] = FinishedTask(self._tasks[number].order, self._ask(self._tasks[number].upload), report)
        return {
            "server": server,
            "clients": self._client_states(),
            "held": self._held,
            "home": self._home,
            "finished": finished,
            "bytes": self._bytes,
        }

    def restore(self, state: Tree) -> None:
        self._ask(self._server.restore.remote(state["server"]))
        self._held, self._home = self._restored_places(state)
        everything = tuple(range(len(self._spec.table.parts)))
        self._put_client_states(state["clients"], self._server.current.remote(everything))
        for number, task in state["finished"].items():
            self._tasks[number] = SubmittedTask(task.order, NO_ACTOR, ray.put(task.report), ray.put(task.upload))
        self._bytes = state.get("bytes", 0)

    def dispatch(self, order: TaskOrder, versions: tuple[int, ...]) -> None:
        actor = self._choose_actor(order.client)
        stale = stale_for_task(self._held[actor], versions, order.groups, self._estimates)
        payload = self._server.send.remote(order.number, order.worker, order.groups, stale)
        self._submit(replace(order, stale=stale), actor, payload, self._move_home(order.client, actor))

    def _choose_actor(self, client: int) -> int:
        """The actor with the fewest tasks; among equals the client's last one, so that its state need not move."""
        load = Counter(task.actor for task in self._tasks.values())
        least = min(load[actor] for actor in range(self._cluster.actor_count))
        home = self._home.get(client, client % self._cluster.actor_count)
        return home if load[home] == least else next(a for a in range(self._cluster.actor_count) if load[a] == least)

    def _submit(self, order: TaskOrder, actor: int, payload: Any, state: Any) -> None:
        """Call an actor for a task; `payload` and `state` are references to parameters and client state."""
        self._bytes += self._spec.table.nbytes(order.stale)
        upload, report = (
            self._cluster.client_actors[actor].run_task.options(num_returns=2).remote(order, payload, state)
        )
        self._tasks[order.number] = SubmittedTask(order, actor, report, upload)

    def ready(self, timeout: float) -> int | None:
        limit = min(timeout, self._runtime.round_timeout)
        tasks = {task.report: number for number, task in sorted(self._tasks.items())}
        done, _ = self._waiter.wait(list(tasks), limit)
        if done:
            return tasks[done[0]]
        if math.isinf(timeout) or timeout > limit:
            raise RunError(f"no update arrived within runtime.round_timeout={limit:g} s")
        return None

    def collect(self, number: int, round_index: int) -> ClientReport:
        report = self._report(number)
        task = self._tasks.pop(number)
        self._uploads[number] = task.upload
        if report.status == "ok":
            table = self._spec.table
            self._bytes += table.nbytes(table.uploaded(task.order.groups))
        return report

    def _report(self, number: int) -> ClientReport:
        """Wait for a task's report; where its actor dies, replace the actor and wait again.

        Raises:
            FedbenchError: the task failed, took too long, or its actor cannot be replaced.
        """
        while True:
            task = self._tasks[number]
            try:
                report: ClientReport = self._waiter.get(task.report, timeout=self._runtime.round_timeout)
                return report
            except RayActorError as error:
                self._revive(task.actor, error)
            except (RayError, GetTimeoutError) as error:
                raise as_fedbench_error(error, f"the task of client {task.order.client}") from error

    def _revive(self, actor: int, error: RayActorError) -> None:
        """Replace a dead actor and submit again the tasks that were in flight there.

        Raises:
            FedbenchError: too many actors died, clients have lost their state, or no new actor can be placed.
        """
        lost = [task for _, task in sorted(self._tasks.items()) if task.actor == actor and not _is_done(task)]
        self._restarts += 1
        if self._restarts > self._runtime.max_retries or self._spec.stateful:
            clients = [task.order.client for task in lost]
            what = f"the actor with the tasks of clients {clients} died"
            if self._spec.stateful:
                what += ", and with it the state of these clients"
            raise as_fedbench_error(error, what) from error
        self._waiter.wait_for_head()
        self._replace_actor(actor)
        everything = tuple(range(len(self._spec.table.parts)))
        self._held[actor] = [-1] * len(everything)
        for task in lost:
            payload = self._server.resend.remote(task.order.number, everything)
            self._submit(replace(task.order, stale=everything), actor, payload, None)

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

    def apply(self, number: int, lr: float, steps: int) -> None:
        self._pending.append(self._server.apply.remote(number, self._uploads.pop(number), lr, steps))

    def discard(self, number: int) -> None:
        del self._uploads[number]
        self._pending.append(self._server.forget.remote(number))

    def evaluate(self, versions: tuple[int, ...]) -> EvaluationPhase:
        while True:
            calls = {}
            for actor, client in enumerate(self._cluster.client_actors):
                batches = self._batches_for(actor)
                if not batches:
                    continue
                stale = stale_parts(self._held[actor], versions)
                self._held[actor] = list(versions)
                self._bytes += self._spec.table.nbytes(stale)
                payload = self._server.current.remote(stale)
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
        self._ask(self._pending)
        self._pending = []
        transport_bytes, self._bytes = self._bytes, 0
        norm: float = self._ask(self._server.end_round.remote())
        return norm, transport_bytes


def _is_done(task: SubmittedTask) -> bool:
    """Whether the task's result is there, although its actor may be gone."""
    return bool(ray.wait([task.report], timeout=0)[0]) and not _has_died(task.report)


def _has_died(reference: Any) -> bool:
    """Whether a call has ended with the death of its actor."""
    try:
        ray.get(reference, timeout=0)
    except RayActorError:
        return True
    except (RayError, GetTimeoutError):
        return False
    return False
