"""Asynchronous runs on a Ray cluster: one call per work, its update to the server by reference."""

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
from fedbench.engine.bookkeeping import stale_for_work, stale_parts
from fedbench.engine.interfaces import ArrivalExecutor, EvaluationPhase
from fedbench.engine.messages import ArrivalOrder, ClientReport, EvaluationReport, Finished, HostSpec
from fedbench.engine.on_ray.actors import START_TIMEOUT, Cluster, Renewable
from fedbench.engine.on_ray.experiment_actors import OnCluster, own_error
from fedbench.errors import LostActor, RunError

PLACE_INTERVAL = 2.0
"""Seconds between two looks at whether an actor that is started again has a place."""

NOWHERE = -1
"""Where a work is that was done before the run was interrupted."""


class ArrivalServerActor(Renewable, ArrivalServer):
    """The server of an asynchronous run in a process of its own."""


@dataclass
class Task:
    """A work at an actor.

    Attributes:
        report, upload: references to what comes of it.
    """

    order: ArrivalOrder
    actor: int
    report: Any
    upload: Any


class RayArrivals(OnCluster, ArrivalExecutor):
    """Works in flight at the actors, each actor doing its own one after the other.

    Calls to the server stand in the order in which they were made, so that the driver need not wait for one before it
    makes the next. An actor that dies is replaced, and what was in flight there is done again, on the same parameters.
    """

    def __init__(
        self,
        cluster: Cluster,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        server: ArrivalServerSpec,
        runtime: RuntimeSection,
    ) -> None:
        """Start the actors; arguments as for `OnCluster`."""
        self._estimates = server.method.estimates
        self._restarts = 0
        super().__init__(cluster, spec, data, rows, runtime, ArrivalServerActor, server)

    def _start(self) -> None:
        super()._start()
        self._held = [[-1] * len(self._spec.table.parts) for _ in self._cluster.clients]
        self._tasks: dict[int, Task] = {}
        self._uploads: dict[int, Any] = {}
        self._home: dict[int, int] = {}
        self._pending: list[Any] = []
        self._bytes = 0

    def state(self) -> Tree:
        server = self._ask(self._server.state.remote())
        finished = {}
        for number in sorted(self._tasks):
            report = self._report(number)
            finished[number] = Finished(self._tasks[number].order, self._ask(self._tasks[number].upload), report)
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
        self._held, self._home = self._placed(state)
        everything = tuple(range(len(self._spec.table.parts)))
        self._put_client_states(state["clients"], self._home, self._server.current.remote(everything))
        for number, done in state["finished"].items():
            self._tasks[number] = Task(done.order, NOWHERE, ray.put(done.report), ray.put(done.upload))
        self._bytes = state.get("bytes", 0)

    def dispatch(self, order: ArrivalOrder, versions: tuple[int, ...]) -> None:
        actor = self._choose_actor(order.client)
        stale = stale_for_work(self._held[actor], versions, order.groups, self._estimates)
        payload = self._server.send.remote(order.number, order.worker, order.groups, stale)
        home = self._home.get(order.client, actor)
        state = None
        if self._spec.stateful and home != actor:
            state = self._cluster.clients[home].take_state.remote(order.client)
        self._home[order.client] = actor
        self._submit(replace(order, stale=stale), actor, payload, state)

    def _choose_actor(self, client: int) -> int:
        """The one with the least work; the client's own among equals, so that its state need not travel."""
        load = Counter(task.actor for task in self._tasks.values())
        least = min(load[actor] for actor in range(self._cluster.actors))
        own = self._home.get(client, client % self._cluster.actors)
        return own if load[own] == least else next(a for a in range(self._cluster.actors) if load[a] == least)

    def _submit(self, order: ArrivalOrder, actor: int, payload: Any, state: Any) -> None:
        self._bytes += self._spec.table.nbytes(order.stale)
        upload, report = self._cluster.clients[actor].work.options(num_returns=2).remote(order, payload, state)
        self._tasks[order.number] = Task(order, actor, report, upload)

    def ready(self, timeout: float) -> int | None:
        limit = min(timeout, self._runtime.round_timeout)
        tasks = {task.report: number for number, task in sorted(self._tasks.items())}
        done, _ = self._patience.wait(list(tasks), limit)
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
        """Wait for a work; again, where its actor has died."""
        while True:
            task = self._tasks[number]
            try:
                report: ClientReport = self._patience.get(task.report, timeout=self._runtime.round_timeout)
                return report
            except RayActorError as error:
                self._revive(task.actor, error)
            except (RayError, GetTimeoutError) as error:
                raise own_error(error, f"the work of client {task.order.client}") from error

    def _revive(self, actor: int, error: RayActorError) -> None:
        """Put a new actor in the place of a dead one and give it again what was in flight there."""
        lost = [task for _, task in sorted(self._tasks.items()) if task.actor == actor and not _is_done(task)]
        self._restarts += 1
        if self._restarts > self._runtime.max_retries or self._spec.stateful:
            clients = [task.order.client for task in lost]
            what = f"the actor with the works of clients {clients} died"
            if self._spec.stateful:
                what += ", and with it what these clients keep"
            raise own_error(error, what) from error
        self._patience.hear()
        self._bring_back(actor)
        everything = tuple(range(len(self._spec.table.parts)))
        self._held[actor] = [-1] * len(everything)
        for task in lost:
            payload = self._server.resend.remote(task.order.number, everything)
            self._submit(replace(task.order, stale=everything), actor, payload, None)

    def _bring_back(self, actor: int) -> None:
        """A new actor in a dead one's place.

        Raises:
            LostActor: the place is gone, too, with its node.
        """
        ready = self._cluster.replace_client(actor).prepare.remote(*self._shared)
        until = time.monotonic() + START_TIMEOUT
        while not self._patience.wait([ready], PLACE_INTERVAL)[0]:
            self._patience.hear()
            if not self._cluster.is_placed() or time.monotonic() > until:
                raise LostActor("an actor died and did not come back: its node is gone")
        try:
            self._patience.get(ready, timeout=START_TIMEOUT)
        except (RayError, GetTimeoutError) as failure:
            raise own_error(failure, "an actor could not be brought back") from failure

    def apply(self, number: int, lr: float, steps: int) -> None:
        self._pending.append(self._server.apply.remote(number, self._uploads.pop(number), lr, steps))

    def discard(self, number: int) -> None:
        del self._uploads[number]
        self._pending.append(self._server.forget.remote(number))

    def evaluate(self, versions: tuple[int, ...]) -> EvaluationPhase:
        actors = self._cluster.actors
        bounds = [len(self._borders) * actor // actors for actor in range(actors + 1)]
        while True:
            calls = {}
            for actor, client in enumerate(self._cluster.clients):
                batches = self._borders[bounds[actor] : bounds[actor + 1]]
                if not batches:
                    continue
                stale = stale_parts(self._held[actor], versions)
                self._held[actor] = list(versions)
                self._bytes += self._spec.table.nbytes(stale)
                payload = self._server.current.remote(stale)
                calls[actor] = client.evaluate.remote(stale, payload, batches, (), self._client0_for(actor, self._home))
            try:
                reports: list[EvaluationReport] = self._patience.get(
                    list(calls.values()), timeout=self._runtime.round_timeout
                )
                break
            except RayActorError as error:
                for actor, call in calls.items():
                    if _has_died(call):
                        self._revive(actor, error)
            except (RayError, GetTimeoutError) as error:
                raise own_error(error, "scoring the model") from error
        return EvaluationPhase(tuple(score for report in reports for score in report.scores), {}, 0)

    def end_round(self) -> tuple[float, int]:
        self._ask(self._pending)
        self._pending = []
        moved, self._bytes = self._bytes, 0
        norm: float = self._ask(self._server.end_round.remote())
        return norm, moved


def _is_done(task: Task) -> bool:
    """Whether the work's result is there, though its actor may be gone."""
    return bool(ray.wait([task.report], timeout=0)[0]) and not _has_died(task.report)


def _has_died(reference: Any) -> bool:
    """Whether a call that has ended, or will, ended with its actor's death."""
    try:
        ray.get(reference, timeout=0)
    except RayActorError:
        return True
    except (RayError, GetTimeoutError):
        return False
    return False
