"""The server of an asynchronous run: a state machine for each layer group, and the parameters sent to each task.

It needs NumPy alone. On a cluster it runs inside a Ray actor, inline it is a plain object, with the same code. When
tasks run and what they cost is decided in `fedbench.engine.arrivals.loop`; the server holds the values.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedbench.algorithms.arrivals import Array, AsyncAlgorithm
from fedbench.checkpoints.state import Tree, check_alike, writable
from fedbench.engine.arrivals.steps import ApplyStep, ForgetStep, SendStep, ServerStep
from fedbench.engine.messages import TaskOrder
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import STATISTICS, PartTable
from fedbench.randomness import seeded_if_foreign
from fedbench.system.threads import OneThread


@dataclass(frozen=True)
class ArrivalServerSpec:
    """Everything that the server of an asynchronous run is made from.

    Attributes:
        table: the parts of a transfer.
        vector: float32 [P], the initial parameters.
        statistics: float32 [S], the initial running statistics.
        retention: float32 [S], a: the share of each running statistic that a training step keeps.
        share: weight of an update's running statistics against the server's, in (0, 1].
        workers: K, the number of workers of the method's rule.
        method: gives the state machines.
        weight_decay: lambda, with which the server adds lambda w to every gradient; 0 where clients do, or where they
            send deltas.
        seed: the experiment's seed.
    """

    table: PartTable
    vector: Vector
    statistics: Vector
    retention: Vector
    share: float
    workers: int
    method: AsyncAlgorithm
    weight_decay: float = 0.0
    seed: int = 0

    def worker_of(self, order: TaskOrder) -> int:
        """The worker of the method's rule that a task counts for: its slot, or its client."""
        return order.client if self.method.workers_are == "clients" else order.worker


@dataclass(frozen=True)
class SentParameters:
    """The parameters that a task was sent. They need no copy, since the server never writes to what it has sent.

    Attributes:
        pieces: one array for each part.
        indices: {layer group: index of the values that were sent}, for the groups that the task trains.
        worker: the worker of the method's rule that the task counts for.
    """

    pieces: tuple[Array, ...]
    indices: dict[int, int]
    worker: int


class ArrivalServer:
    """Sends parameters to tasks, and applies their updates in the order in which it is told to.

    Running statistics of a client that took n steps from s_0 are c = a^n s_0 + (what its minibatches add), where a step
    keeps the share a. The server has moved on to s meanwhile. It takes c + a^n (s - s_0), which the client would have
    arrived at from s, so that no minibatch is counted twice or forgotten; with one worker that sends gradients they are
    those of a sequential run. Those of local training have the weight 1/K, so that the statistics of the last K clients
    are averaged.

    What a minibatch adds was computed on the parameters that its client was sent. Where a step moves them far,
    as a gradient does in OrMo that is many buckets late, the statistics describe the earlier parameters until the tasks
    then in flight have arrived and their share has decayed: 30 arrivals or so with 16 workers and a momentum of 0.1.
    `evaluation.batchnorm=recalibrate` scores without that lag.
    """

    def __init__(self, spec: ArrivalServerSpec) -> None:
        """Args:
        spec: everything that the server is made from; its vectors are copied.
        """
        self._spec = spec
        self._table = spec.table
        layout = spec.table.layout
        vector = spec.vector.copy()
        self._machines = [spec.method.machine(vector[piece], spec.workers) for piece in layout.slices]
        self._one_thread = OneThread()
        self._statistics = spec.statistics.copy()
        self._sent: dict[int, SentParameters] = {}
        self._before = self._parameters()

    def send(self, number: int, worker: int, groups: Sequence[int], parts: Sequence[int]) -> Vector:
        """Fix the parameters that a task starts from, and return those that its host lacks.

        Args:
            number: number of the task.
            worker: the worker of the method's rule that the task counts for.
            groups: layer groups that the task trains.
            parts: the parts that its host has to be sent.

        Returns:
            float32, the values of `parts`, one after the other.
        """
        with self._one_thread():
            self._fix(number, worker, groups)
        return self.resend(number, parts)

    def _fix(self, number: int, worker: int, groups: Sequence[int]) -> None:
        """Keep the parameters that a task starts from; arguments as for `send`."""
        with seeded_if_foreign(self._spec.method, self._spec.seed, "parameters of a task", number):
            pulled = {group: self._machines[group].pull(worker) for group in groups}
        pieces: list[Array] = []
        for part in self._table.parts:
            if part.channel == STATISTICS:
                pieces.append(self._statistics)
            else:
                pieces.append(pulled[part.group][0] if part.group in pulled else self._machines[part.group].parameters)
        self._sent[number] = SentParameters(
            tuple(pieces), {group: index for group, (_, index) in pulled.items()}, worker
        )

    def resend(self, number: int, parts: Sequence[int]) -> Vector:
        """float32, the values of `parts` that task `number` starts from, once more."""
        return _joined([self._sent[number].pieces[part] for part in parts])

    def send_into(self, number: int, parts: Sequence[int], memory: Vector) -> float:
        """Write the values of `parts` that task `number` starts from into `memory`, float32, from its beginning.

        Returns:
            The seconds that it took.
        """
        began = time.perf_counter()
        pieces = [self._sent[number].pieces[part] for part in parts]
        size = sum(map(len, pieces))
        np.concatenate([*pieces, np.empty(0, np.float32)], out=memory[:size], casting="same_kind")
        return time.perf_counter() - began

    def advance(
        self, steps: Sequence[ServerStep], wanted: Sequence[tuple[int, Sequence[int]]], *batches: Sequence[Vector]
    ) -> tuple[tuple[Vector, ...], float]:
        """Take several steps in their order, then return the parameters of tasks: one call in place of many.

        Args:
            steps, batches: as for `take_steps`.
            wanted: (number of a task, parts that its host has to be sent), for tasks whose parameters are fixed.

        Returns:
            For each of `wanted`, what `resend` returns; and the seconds that all of it took.
        """
        began = time.perf_counter()
        self.take_steps(steps, *batches)
        payloads = tuple(self.resend(number, parts) for number, parts in wanted)
        return payloads, time.perf_counter() - began

    def take_steps(self, steps: Sequence[ServerStep], *batches: Sequence[Vector]) -> float:
        """Take several steps in their order.

        Args:
            steps: what to do.
            batches: the updates that steps refer to.

        Returns:
            The seconds that all of it took.
        """
        began = time.perf_counter()
        with self._one_thread():
            for step in steps:
                match step:
                    case SendStep():
                        self._fix(step.number, step.worker, step.groups)
                    case ApplyStep():
                        self._apply(step.number, batches[step.batch][step.place], step.lr, step.steps)
                    case ForgetStep():
                        self.forget(step.number)
        return time.perf_counter() - began

    def apply(self, number: int, upload: Vector, lr: float, steps: int) -> None:
        """Apply the update of a task.

        Args:
            number: number of the task.
            upload: float32, the parts that it sends, one after the other.
            lr: eta, the factor on the update.
            steps: n, the minibatches that the client trained on.
        """
        with self._one_thread():
            self._apply(number, upload, lr, steps)

    def _apply(self, number: int, upload: Vector, lr: float, steps: int) -> None:
        with seeded_if_foreign(self._spec.method, self._spec.seed, "arrival", number):
            self._apply_to_parts(self._sent.pop(number), upload, lr, steps)

    def _apply_to_parts(self, sent: SentParameters, upload: Vector, lr: float, steps: int) -> None:
        parts = self._table.uploaded(sent.indices)
        for part, segment in self._table.segments(parts, parts):
            if part.channel == STATISTICS:
                # c + a^n (s - s_0), then mixed into s with the weight `share`.
                current, retained = self._statistics, np.power(self._spec.retention, steps, dtype=np.float32)
                brought_forward = upload[segment] + retained * (current - sent.pieces[-1])
                mixed = current + (brought_forward - current) * np.float32(self._spec.share)
                self._statistics = mixed.astype(np.float32, copy=False)
            else:
                machine, update = self._machines[part.group], upload[segment]
                if self._spec.weight_decay:
                    update = update + np.float32(self._spec.weight_decay) * machine.parameters  # g + lambda w
                machine.push(update, sent.indices[part.group], sent.worker, lr)

    def forget(self, number: int) -> None:
        """Forget task `number`, whose update is not applied."""
        del self._sent[number]

    def current(self, parts: Sequence[int]) -> Vector:
        """float32, the current values of `parts`, one after the other."""
        pieces = [*self._parameters(), self._statistics]
        return _joined([pieces[part] for part in parts])

    def end_round(self) -> float:
        """L2 norm of the change of the parameters since the last call, or since the start."""
        current = self._parameters()
        squares = sum(
            float(np.square(new.astype(np.float64) - old).sum())
            for new, old in zip(current, self._before, strict=True)
            if new is not old
        )
        self._before = current
        return math.sqrt(squares)

    def state(self) -> Tree:
        """Everything that the server keeps, for a checkpoint.

        Of the parameters sent to tasks in flight it has only the running statistics: the executor's own checkpoint
        has the results of these tasks, so that they need not be sent again.
        """
        return {
            "machines": [machine.state() for machine in self._machines],
            "statistics": self._statistics,
            "sent": {number: replace(sent, pieces=sent.pieces[-1:]) for number, sent in self._sent.items()},
        }

    def restore(self, state: Tree) -> None:
        """Continue from a state that `state` returned.

        Updates of the tasks that were in flight can then be applied; `resend` does not work for them.
        """
        state = writable(state)
        for machine, machine_state in zip(self._machines, state["machines"], strict=True):
            before = machine.parameters
            machine.restore(machine_state)
            check_alike({"parameters": before}, {"parameters": machine.parameters})
        check_alike({"statistics": self._statistics}, state)
        self._statistics, self._sent = state["statistics"], state["sent"]
        self._before = self._parameters()

    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and the global running statistics, both float32."""
        return _joined(self._parameters()), self._statistics

    def _parameters(self) -> list[Array]:
        return [machine.parameters for machine in self._machines]


def _joined(pieces: Sequence[Array]) -> Vector:
    """The pieces in one float32 array; a single piece is not copied."""
    if len(pieces) == 1:
        return pieces[0].astype(np.float32, copy=False)
    return np.concatenate([*pieces, np.empty(0)], dtype=np.float32, casting="same_kind")
