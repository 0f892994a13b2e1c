"""A client host: one model, in which several clients train one after the other, or several in slots at a time.

On a cluster a host runs inside a Ray actor that holds a fraction of a GPU. The inline executors use it as a plain
object. The code is the same in both cases.
"""

import math
import time

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.algorithms.base import Objective
from fedbench.engine.client_probe import ProbedRound, Prober
from fedbench.engine.client_reports import dropped_report, failure_report
from fedbench.engine.client_slots import ClientSlot
from fedbench.engine.device import explained
from fedbench.engine.device_sum import DeviceSum, sums_on_device
from fedbench.engine.host_upload import HostUpload
from fedbench.engine.messages import ClientReport, HostOrder, HostReport, KeptMessage
from fedbench.engine.own_layers import correct_state, take_back
from fedbench.engine.probing import ClientProbe
from fedbench.engine.slot_host import SlotHost, TrainedClient
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.exact_sum import summable
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.randomness import generator
from fedbench.training.local import OutOfTime
from fedbench.training.slots import Finished


class ClientHost(SlotHost):
    """Trains and scores clients in one model.

    It holds the state of every client that it trained last.
    """

    _probed: ProbedRound | None = None
    """The round whose clients are to be compared with the global model that it leads to."""

    def train(
        self, order: HostOrder, payload: Vector, *states: ClientState
    ) -> tuple[npt.NDArray[np.int64] | Vector, HostReport]:
        """Train the order's clients, one after the other.

        Args:
            order: this host's share of the round.
            payload: float32, the values of the order's stale parts; with `order.own_starts`, one such block for each
                client, one after the other.
            states: one state for each of the clients in `order.arriving`, in that order.

        Returns:
            The upload and a report. The upload is the exact sum of the weighted updates, over the parts that any
            participant of the round sends (int64), or the messages of the accepted clients, one after the other
            (float32).
        """
        began = time.perf_counter()
        self._own_starts = tuple(np.split(payload, len(order.clients))) if order.own_starts else ()
        self._loaded_start = -1
        if not order.own_starts:
            self.load(order.stale, payload)
        for client, state in zip(order.arriving, states, strict=True):
            self._states[client] = state
        upload = self._new_upload(order)
        self._kept: list[KeptMessage] = []
        if self._spec.probing.is_due(order.round) and (self._probed is None or self._probed.round != order.round):
            self._probed = ProbedRound.begun(order, self._received)
        reports: list[ClientReport] = []
        interleaves = self._spec.slots > 1 and len(order.clients) > 1
        if interleaves:
            reports += self._serve_in_slots(order, upload)
        for index in () if interleaves else range(len(order.clients)):
            self._load_start(order, index)
            reports.append(self._serve(order, index, upload))
            if reports[-1].status == "failed" and order.on_failure == "stop":
                break
        self._own_starts = ()  # they may be memory of Ray's store
        busy = time.perf_counter() - began
        report = HostReport(
            clients=tuple(reports),
            load_seconds=0.0 if interleaves else busy - sum(report.total_seconds for report in reports),
            busy_seconds=busy,
            state_bytes=sum(state.nbytes for state in states),
            kept=tuple(self._kept),
            remarks=self._not_captured(),
        )
        return upload.content(), report

    def probe(self, stale: tuple[int, ...], payload: Vector) -> tuple[ClientProbe, ...]:
        """Compare the models of the clients that were accepted in this round with the new global model.

        Where clients keep running statistics of their own, these are used with the global parameters, too.

        Args:
            stale: parts whose global values come with the call.
            payload: float32, their values, one after the other.
        """
        self.load(stale, payload)
        probed, self._probed = self._probed, None
        if probed is None:
            return ()
        spec = self._spec
        prober = Prober(
            self._model,
            *self._scored["test"],
            self._transform,
            spec.probing,
            spec.evaluation_batch_size,
            spec.seed,
            spec.task.target,
        )
        own_statistics = self._start_statistics if spec.keeps_statistics else None
        return prober.compare(probed, probed.pairs(spec.table, self._received, self._device, own_statistics))

    def _new_upload(self, order: HostOrder) -> HostUpload | DeviceSum:
        """What collects the answer to an order; a sum of updates as they are is computed where the clients train."""
        as_trained = self._spec.update.changes_nothing and not self._byzantine.change_updates
        combines = order.combine and not order.own_starts and as_trained
        if combines and sums_on_device(self._device):
            return DeviceSum(self._spec.table, order, self._global)
        return HostUpload(self._spec.table, order)

    def _serve(self, order: HostOrder, index: int, upload: HostUpload | DeviceSum) -> ClientReport:
        """Train one client and add its update to the upload; its new state is stored only if the update is accepted."""
        client, table = order.clients[index], self._spec.table
        samples, started = len(self._rows[client]), time.perf_counter()
        parts = table.uploaded(order.sent[index])
        until = math.inf if order.seconds is None else time.monotonic() + order.seconds
        try:
            start = self._start_parameters(order, index)
            result, state = self._train_one(client, order.groups[index], order.round, order.lr_factor, until, start)
            take_back(order, index, self._training.objective, self._model, start, result.outgoing, state)
            trained = {PARAMETERS: self._model.vector, STATISTICS: self._model.statistics, **result.outgoing}
            messages = upload.message if isinstance(upload, DeviceSum) else self._messages.values
            values = messages(parts, trained)
            seconds = time.perf_counter() - started - self._scoring_seconds(client)
            trained_client = TrainedClient(result, state, values, seconds)
        except OutOfTime:
            return dropped_report(client, samples, time.perf_counter() - started)
        except Exception as error:
            self.check_device(error)
            if order.on_failure == "raise":
                raise
            return failure_report(client, samples, time.perf_counter() - started, explained(error))
        return self._accept(order, index, upload, trained_client)

    def _accept(
        self, order: HostOrder, index: int, upload: HostUpload | DeviceSum, trained: TrainedClient
    ) -> ClientReport:
        """Add a trained client's update to the upload; its new state is stored only if the update is accepted."""
        client, samples = order.clients[index], len(self._rows[order.clients[index]])
        result, state, values = trained.result, trained.state, trained.values
        parts = self._spec.table.uploaded(order.sent[index])
        if isinstance(values, Tensor):
            assert isinstance(upload, DeviceSum)
            accepted = upload.add(index, parts, values)
        else:
            assert isinstance(upload, HostUpload)
            accepted, values = self._add(order, index, upload, parts, values, state)
        if accepted:
            self._states[client] = state
            if self._probed is not None:
                self._probed.keep(client, parts, values)
            if client in self._spec.kept.of_round(order.round):
                read = values.cpu().numpy() if isinstance(values, Tensor) else values
                update = read - self._messages.reference(parts)
                self._kept.append(KeptMessage(client, samples, result.steps, parts, update))
        status = "ok" if accepted else "rejected"
        return ClientReport(
            client, status, samples, result.steps, result.loss, trained.seconds, result.passes, result.rms_loss,
            step_norms=result.step_norms, gradient_norms=result.gradient_norms,
            held_out=self._training_scores.pop(client, None) if accepted else None, places=result.places,
        )  # fmt: skip

    def _add(
        self,
        order: HostOrder,
        index: int,
        upload: HostUpload,
        parts: tuple[int, ...],
        values: Vector,
        state: ClientState,
    ) -> tuple[bool, Vector]:
        """Add a client's message to the upload as the server reads it; whether it can be summed, and that message."""
        reference = self._messages.reference(parts)
        if values.shape != reference.shape:
            return False, values
        values = self._byzantine.message(order.clients[index], order.round, parts, values, reference)
        if not self._spec.update.changes_nothing:
            if not summable(values, reference):
                return False, values
            rng = generator(self._spec.seed, "update", order.round, order.clients[index])
            values = self._after_pipeline(parts, values, reference, state, rng)
        return upload.add(index, parts, values, reference), values

    def _serve_in_slots(self, order: HostOrder, upload: HostUpload | DeviceSum) -> list[ClientReport]:
        """Train the order's clients in the host's slots, and add their updates to the upload in the order's order."""
        ended: dict[int, Finished[ClientSlot, TrainedClient]] = {}
        reports: list[ClientReport] = []
        for finished in self._trained_in_slots(order, upload if isinstance(upload, DeviceSum) else None):
            ended[finished.index] = finished
            while (following := ended.pop(len(reports), None)) is not None:
                reports.append(self._end(order, upload, following))
            if any(report.status == "failed" for report in reports) and order.on_failure == "stop":
                break
        return reports

    def _end(
        self, order: HostOrder, upload: HostUpload | DeviceSum, finished: Finished[ClientSlot, TrainedClient]
    ) -> ClientReport:
        """The report of a client that has trained in a slot, whose update is added to the upload."""
        if finished.outcome is not None:
            self._load_start(order, finished.index)
            return self._accept(order, finished.index, upload, finished.outcome)
        client, error = order.clients[finished.index], finished.error
        assert error is not None
        samples = len(self._rows[client])
        if isinstance(error, OutOfTime):
            return dropped_report(client, samples, order.seconds or 0.0)
        self.check_device(error)
        if order.on_failure == "raise":
            raise error
        return failure_report(client, samples, 0.0, explained(error))

    def _after_pipeline(
        self,
        parts: tuple[int, ...],
        values: Vector,
        reference: Vector,
        state: ClientState,
        rng: np.random.Generator,
        sign: float = 1.0,
    ) -> Vector:
        """A client's message as the server reads it, after clipping, noise and compression.

        The client's state is brought in line with it where the method asks for that (`Objective.correct_state`).

        Args:
            parts: numbers of the message's parts.
            values: float32 [n], the values that the client arrived at.
            reference: float32 [n], the values that it started from.
            state: the client's new state; changed in place.
            rng: draws noise and stochastic roundings.
            sign: -1 for a message that is (start - trained).
        """
        objective, table = self._training.objective, self._spec.table
        read = self._spec.update.apply(table, parts, values, reference, state, rng, objective.tracks)
        if read is values or type(objective).correct_state is Objective.correct_state:
            return read
        difference = table.zeros()
        table.scatter((read - values) * np.float32(sign), difference, parts)
        groups = sorted({table.parts[part].group for part in parts} - {-1})
        tensors = {channel: torch.from_numpy(vector) for channel, vector in difference.items() if channel != STATISTICS}
        correct_state(objective, state, tensors, self._spec.layout.ranges(tuple(groups)))
        return read
