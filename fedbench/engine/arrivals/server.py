"""The server of an asynchronous run: a state machine for each layer group, and what was sent to whom.

It needs NumPy alone. On a cluster it is an actor, inline a plain object; the same code either way. Who works when and
what that costs is decided in `fedbench.engine.arrivals.loop`; here are the values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedbench.algorithms.arrivals import Array, AsyncAlgorithm
from fedbench.checkpoints.state import Tree, writable
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import STATISTICS, PartTable


@dataclass(frozen=True)
class ArrivalServerSpec:
    """What the server of an asynchronous run is made from.

    Attributes:
        table: the parts of a transfer.
        vector: float32 [P], the initial parameters; statistics: float32, the initial running statistics.
        retention: float32, of each running statistic the share of its value that a training step keeps.
        share: weight of an update's running statistics against the server's.
        workers: K, works in flight.
        method: gives the state machines.
    """

    table: PartTable
    vector: Vector
    statistics: Vector
    retention: Vector
    share: float
    workers: int
    method: AsyncAlgorithm


@dataclass(frozen=True)
class Sent:
    """What a work was given: a snapshot without copies, since nothing that was handed out is written to.

    Attributes:
        pieces: one array for each part.
        indices: {layer group: index of what was sent of it}, of the groups that the work trains.
        worker: its slot.
    """

    pieces: tuple[Array, ...]
    indices: dict[int, int]
    worker: int


class ArrivalServer:
    """Hands out parameters, applies updates in the order in which it is told to.

    Running statistics of a client that took n steps from s_0 are c = a^n s_0 + (what its minibatches add), where a step
    keeps the share a. The server has moved on to s meanwhile; it takes c + a^n (s - s_0), which is what the client
    would have, had it started from s. So statistics are never stale, and with gradients are those of a sequential run.
    Of local training they get the weight 1/K, so that those of the last K clients are averaged.
    """

    def __init__(self, spec: ArrivalServerSpec) -> None:
        """Args:
        spec: its vectors are copied.
        """
        self._spec = spec
        self._table = spec.table
        layout = spec.table.layout
        vector = spec.vector.copy()
        self._machines = [spec.method.machine(vector[piece], spec.workers) for piece in layout.slices]
        self._statistics = spec.statistics.copy()
        self._sent: dict[int, Sent] = {}
        self._before = self._parameters()

    def send(self, number: int, worker: int, groups: Sequence[int], parts: Sequence[int]) -> Vector:
        """Give work `number` its parameters.

        Args:
            worker: the slot that it is in.
            groups: the layer groups that it trains.
            parts: what its host has to be sent; the work is given everything.

        Returns:
            float32, the values of `parts`, one after the other.
        """
        pulled = {group: self._machines[group].pull(worker) for group in groups}
        pieces: list[Array] = []
        for part in self._table.parts:
            if part.channel == STATISTICS:
                pieces.append(self._statistics)
            else:
                pieces.append(pulled[part.group][0] if part.group in pulled else self._machines[part.group].parameters)
        self._sent[number] = Sent(tuple(pieces), {group: index for group, (_, index) in pulled.items()}, worker)
        return self.resend(number, parts)

    def resend(self, number: int, parts: Sequence[int]) -> Vector:
        """What work `number` was given, again."""
        return _joined([self._sent[number].pieces[part] for part in parts])

    def apply(self, number: int, upload: Vector, lr: float, steps: int) -> None:
        """Apply the update of work `number`.

        Args:
            upload: float32, the parts that it sends.
            lr: eta, the factor on it.
            steps: minibatches behind it.
        """
        sent = self._sent.pop(number)
        parts = self._table.uploaded(sent.indices)
        for part, segment in self._table.segments(parts, parts):
            if part.channel == STATISTICS:
                now, kept = self._statistics, np.power(self._spec.retention, steps, dtype=np.float32)
                brought_forward = upload[segment] + kept * (now - sent.pieces[-1])
                mixed = now + (brought_forward - now) * np.float32(self._spec.share)
                self._statistics = mixed.astype(np.float32, copy=False)
            else:
                self._machines[part.group].push(upload[segment], sent.indices[part.group], sent.worker, lr)

    def forget(self, number: int) -> None:
        """Work `number` will send nothing."""
        del self._sent[number]

    def current(self, parts: Sequence[int]) -> Vector:
        """The current values of some parts, for evaluation."""
        held = [*self._parameters(), self._statistics]
        return _joined([held[part] for part in parts])

    def end_round(self) -> float:
        """L2 norm of the change of the parameters since the last call."""
        now = self._parameters()
        squares = sum(
            float(np.square(new.astype(np.float64) - old).sum())
            for new, old in zip(now, self._before, strict=True)
            if new is not old
        )
        self._before = now
        return math.sqrt(squares)

    def state(self) -> Tree:
        """All that the server keeps while works are in flight whose results are kept elsewhere."""
        return {
            "machines": [machine.state() for machine in self._machines],
            "statistics": self._statistics,
            "sent": {number: replace(sent, pieces=sent.pieces[-1:]) for number, sent in self._sent.items()},
        }

    def restore(self, state: Tree) -> None:
        """Go on from what `state` gave; what was sent can then be applied, but not sent again."""
        state = writable(state)
        for machine, kept in zip(self._machines, state["machines"], strict=True):
            machine.restore(kept)
        self._statistics, self._sent = state["statistics"], state["sent"]
        self._before = self._parameters()

    def model(self) -> tuple[Vector, Vector]:
        """The global parameters and running statistics."""
        return _joined(self._parameters()), self._statistics

    def _parameters(self) -> list[Array]:
        return [machine.parameters for machine in self._machines]


def _joined(pieces: Sequence[Array]) -> Vector:
    """One after the other; itself where there is one."""
    if len(pieces) == 1:
        return pieces[0].astype(np.float32, copy=False)
    return np.concatenate([*pieces, np.empty(0)], dtype=np.float32, casting="same_kind")
