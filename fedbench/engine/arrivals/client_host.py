"""A client host that also runs the tasks of asynchronous experiments: a gradient, or the delta of local training."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbench.engine.arrivals.shared_slots import OpenedSlots, SlotsPlace
from fedbench.engine.bookkeeping import Stopwatch
from fedbench.engine.client_host import ClientHost
from fedbench.engine.client_reports import failure_report
from fedbench.engine.device import explained
from fedbench.engine.messages import BatchReport, ClientReport, DeviceRecord, HostSpec, TaskOrder, TaskSeconds
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.exact_sum import summable
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.randomness import generator
from fedbench.tasks.losses import counted_in, criterion_of
from fedbench.training.gradient import minibatch_gradient
from fedbench.training.local import LocalResult
from fedbench.training.minibatches import epoch_sizes, nth_minibatch
from fedbench.training.out_of_memory import retried_out_of_memory


class ArrivalHost(ClientHost):
    """A `ClientHost` that runs asynchronous tasks, each on the parameters as they were when it was dispatched."""

    def prepare(self, spec: HostSpec, *arguments: Any) -> DeviceRecord:
        record = super().prepare(spec, *arguments)
        # Gradients and deltas are differences from zeros: as many as the longest message has values.
        self._zeros = np.zeros(spec.table.values(range(len(spec.table.parts))), np.float32)
        self._zeros.setflags(write=False)
        self._shared: OpenedSlots | None = None
        return record

    def attach(self, place: SlotsPlace) -> bool:
        """Open the slots in which parameters and updates go to and fro; whether they are on this machine."""
        try:
            self._shared = OpenedSlots(place)
        except (OSError, ValueError):
            return False
        return True

    def run_tasks(
        self,
        orders: Sequence[TaskOrder],
        payloads: Sequence[Vector],
        slots: Sequence[int | None],
        arriving: Sequence[int] = (),
        *states: ClientState,
    ) -> tuple[tuple[Vector, ...], BatchReport]:
        """Compute several updates, one after the other.

        Args:
            orders: the tasks.
            payloads: for each order with stale parts and without a slot, in their order: float32, the values of these
                parts, one after the other.
            slots: for each order, the slot of `attach` in which these values are, and into which the upload is
                written; None: there is none.
            arriving: clients whose state comes with the call, from the host that held it.
            states: one state for each of `arriving`, in that order.

        Returns:
            The uploads, one for each order, and a report. An upload is what `run_task` returns; empty where it is in a
            slot.
        """
        began, spent = time.monotonic(), TaskSeconds()
        self.put_states(dict(zip(arriving, states, strict=True)))
        arrays, empty = iter(payloads), np.empty(0, np.float32)
        uploads, reports = [], []
        for order, number in zip(orders, slots, strict=True):
            slot = None if number is None or self._shared is None else self._shared.slot(number)
            if slot is not None:
                upload, report = self.run_task(order, slot, spent, slot)
                if not np.may_share_memory(upload, slot):
                    slot[: len(upload)] = upload
                upload = empty
            else:
                upload, report = self.run_task(order, next(arrays) if order.stale else empty, spent)
            uploads.append(upload)
            reports.append(report)
        return tuple(uploads), BatchReport(tuple(reports), began, time.monotonic(), spent)

    def run_task(
        self, order: TaskOrder, payload: Vector, spent: TaskSeconds, memory: Vector | None = None
    ) -> tuple[Vector, ClientReport]:
        """Compute one update.

        Args:
            order: the task.
            payload: float32, which begins with the values of the order's stale parts, one after the other.
            spent: the parts of the time that the task takes are added to it.
            memory: float32, for the upload, if that is convenient; may be that of `payload`.

        Returns:
            The upload and a report. The upload is float32, the parts that the client sends: in the parameters the
            gradient, or (start - trained) of local training, and the client's running statistics. It is empty where
            the task failed or its update was rejected.
        """
        watch = Stopwatch()
        self.load(order.stale, payload)
        spent.load += watch.lap()
        client, table, empty = order.client, self._spec.table, np.empty(0, np.float32)
        parts = table.uploaded(order.groups)
        try:
            samples, result, new_state, update = (
                retried_out_of_memory(lambda: self._differentiate(order), self._free_memory)
                if order.gradient
                else self._train_delta(order)
            )
            spent.compute += watch.lap()
            message = self._message(parts, update, memory)
        except Exception as error:
            self.check_device(error)
            if order.on_failure == "raise":
                raise
            return empty, failure_report(client, len(self._rows[client]), watch.total(), explained(error))
        reference = self._zeros[: table.values(parts)]
        accepted = message.shape == reference.shape and summable(message, None)
        if accepted:
            honest, message = (
                message,
                self._byzantine.message(client, order.visit, parts, message, reference, sign=-1.0),
            )
            accepted = message is honest or summable(message, None)
        if accepted:
            rng = generator(self._spec.seed, "update", order.visit, client)
            read = self._after_pipeline(parts, message, reference, new_state, rng, sign=-1.0)
            accepted, message = read is message or summable(read, None), read
        if accepted:
            self._states[client] = new_state
        spent.upload += watch.lap()
        report = ClientReport(
            client, "ok" if accepted else "rejected", samples, result.steps, result.loss, watch.total(), result.passes,
            places=result.places,
        )  # fmt: skip
        return message if accepted else empty, report

    def _message(self, parts: tuple[int, ...], update: Tensor, memory: Vector | None) -> Vector:
        """float32, the values of `parts` in an update and in the model's running statistics, one after the other.

        Args:
            parts: numbers of the parts.
            update: float32 [P].
            memory: as for `run_task`.
        """
        statistics = self._model.statistics
        if memory is None or update.device.type != "cpu" or statistics.device.type != "cpu":
            return self._values(parts, {PARAMETERS: update})
        return self._spec.table.gather({PARAMETERS: update.numpy(), STATISTICS: statistics.numpy()}, parts, memory)

    def _train_delta(self, order: TaskOrder) -> tuple[int, LocalResult, ClientState, Tensor]:
        """Train locally.

        Returns:
            The client's samples, the result, its new state, and the delta (start - trained): float32 [P], meaningful
            in the groups of the order.
        """
        result, new_state = self._train_one(order.client, order.groups, order.visit, order.lr_factor)
        start, trained = self._global[PARAMETERS], self._model.vector
        delta = torch.empty_like(trained)
        for piece in self._model.layout.ranges(order.groups):
            torch.sub(start[piece], trained[piece], out=delta[piece])
        return len(self._rows[order.client]), result, new_state, delta

    def _differentiate(self, order: TaskOrder) -> tuple[int, LocalResult, ClientState, Tensor]:
        """Compute the gradient of the client's next minibatch.

        Returns:
            The minibatch's samples, the result, the client's new state, and the gradient: float32 [P], meaningful in
            the groups of the order.
        """
        spec = self._spec
        inputs, labels, rows = self._training_rows(order.client)
        self._reset_parameters()
        self._set_statistics(self._start_statistics(order.client))
        sizes = epoch_sizes(len(rows), spec.batch_size, self._model.smallest_batch)
        chosen = rows[nth_minibatch(spec.seed, order.client, order.visit, len(rows), sizes)]
        loss = minibatch_gradient(
            self._model,
            inputs,
            labels,
            chosen,
            self._transform,
            criterion=criterion_of(spec.task.target),
            groups=order.groups,
            weight_decay=spec.weight_decay,
            bf16=spec.bf16,
            seed=spec.seed,
            client=order.client,
            visit=order.visit,
        )
        new_state = self._new_state(self._model, self._states.get(order.client, ClientState()), {})
        places = int(counted_in(labels[torch.from_numpy(chosen)])) / len(chosen)
        return len(chosen), LocalResult(1, loss, 0, {}, places=places), new_state, self._model.gradient
