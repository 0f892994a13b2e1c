"""Asynchronous runs without Ray: each task is computed when it is dispatched, and waits for its turn to be applied."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np

from fedbench.checkpoints.state import Tree
from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.arrivals.client_host import ArrivalHost
from fedbench.engine.arrivals.server import ArrivalServer, ArrivalServerSpec
from fedbench.engine.bookkeeping import stale_for_task, stale_parts
from fedbench.engine.client_reports import one_line
from fedbench.engine.device import TorchSettings
from fedbench.engine.interfaces import ArrivalExecutor, EvaluationPhase
from fedbench.engine.messages import ClientReport, DeviceRecord, FinishedTask, HostSpec, TaskOrder, TaskSeconds
from fedbench.errors import ClientFailure
from fedbench.protocol.layout import Vector
from fedbench.training.scores import evaluation_batches


class InlineArrivalExecutor(ArrivalExecutor):
    """Runs asynchronous tasks in this process; the reference that the Ray engine is compared with.

    It stops at the failing client and chains the exception as it was raised, unless failures are allowed. On the wall
    clock tasks arrive in the order in which they were dispatched.
    """

    def __init__(
        self,
        spec: HostSpec,
        data: FederatedData,
        rows: Sequence[IntArray],
        server: ArrivalServerSpec,
        max_failed_clients: int,
    ) -> None:
        self._spec = spec
        self._raises = max_failed_clients == 0
        self._estimates = server.method.estimates
        self._data, self._rows, self._server_spec = data, rows, server
        self._settings = TorchSettings()
        self.rebuild()
        self._batches = evaluation_batches(data.scored_rows, spec.evaluation_batch_size)

    def rebuild(self) -> None:
        self._server = ArrivalServer(self._server_spec)
        self._host = ArrivalHost()
        self._device = self._host.prepare(self._spec, self._data, self._rows)
        self._held = [-1] * len(self._spec.table.parts)
        self._finished: dict[int, FinishedTask] = {}
        self._raised: dict[int, tuple[int, Exception]] = {}
        self._uploads: dict[int, Vector] = {}

    def dispatch(self, order: TaskOrder, versions: tuple[int, ...], due: float) -> None:
        stale = stale_for_task(self._held, versions, order.groups, self._estimates)
        payload = self._server.send(order.number, self._server_spec.worker_of(order), order.groups, stale)
        task = replace(order, stale=stale, on_failure="raise" if self._raises else "report")
        try:
            self._finished[order.number] = FinishedTask(task, *self._host.run_task(task, payload, TaskSeconds()))
        except Exception as error:
            self._raised[order.number] = (order.client, error)

    def ready(self, timeout: float) -> int | None:
        return min([*self._finished, *self._raised])

    def collect(self, number: int, round_index: int) -> ClientReport:
        if number in self._raised:
            self._fail(number, round_index)
        finished = self._finished.pop(number)
        self._uploads[number] = finished.upload
        return finished.report

    def _fail(self, number: int, round_index: int) -> NoReturn:
        client, error = self._raised[number]
        raise ClientFailure(client, round_index, one_line(error), "") from error

    def apply(self, number: int, lr: float, steps: int) -> None:
        self._server.apply(number, self._uploads.pop(number), lr, steps)

    def discard(self, number: int) -> None:
        self._server.forget(number)
        del self._uploads[number]

    def evaluate(self, versions: tuple[int, ...]) -> EvaluationPhase:
        stale = stale_parts(self._held, versions)
        self._held = list(versions)
        payload = self._server.current(stale) if stale else np.empty(0, np.float32)
        report = self._host.evaluate(stale, payload, self._batches)
        return EvaluationPhase(report.scores, report.client_scores, 0)

    def end_round(self) -> tuple[float, int]:
        return self._server.end_round(), 0

    def state(self) -> Tree:
        if self._raised:  # an exception cannot be kept in a checkpoint, and would be raised soon anyway
            self._fail(min(self._raised), 0)
        states = self._host.all_states()
        return {"server": self._server.state(), "clients": states, "held": [self._held], "finished": self._finished}

    def restore(self, state: Tree) -> None:
        self._server.restore(state["server"])
        self._host.put_states(state["clients"])
        everything = tuple(range(len(self._held)))
        self._host.load(everything, self._server.current(everything))
        self._held = state["held"][0] if len(state["held"]) == 1 else [-1] * len(self._held)
        self._finished = state["finished"]

    def model(self) -> tuple[Vector, Vector]:
        return self._server.model()

    def devices(self) -> list[DeviceRecord]:
        return [self._device]

    def peak_memory(self) -> list[int]:
        return [self._host.peak_memory()]

    def close(self) -> None:
        self._settings.restore()
