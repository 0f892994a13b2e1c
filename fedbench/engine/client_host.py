"""A client host: one model, in which several clients train one after the other, or several in slots at a time.

On a cluster a host runs inside a Ray actor that holds a fraction of a GPU. The inline executors use it as a plain
object. The code is the same in both cases.
"""

import math
import time
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.algorithms.base import Objective
from fedbench.engine.client_message import message_values
from fedbench.engine.client_probe import ProbedRound, Prober
from fedbench.engine.client_reports import dropped_report, failure_report
from fedbench.engine.client_slots import ClientSlot, recorder
from fedbench.engine.device import explained
from fedbench.engine.device_sum import DeviceSum, sums_on_device
from fedbench.engine.host_upload import HostUpload
from fedbench.engine.messages import ClientReport, HostOrder, HostReport, KeptMessage
from fedbench.engine.own_layers import correct_state, start_parameters, take_back
from fedbench.engine.own_models import OwnModelHost
from fedbench.engine.probing import ClientProbe
from fedbench.models.flat import FlatModel
from fedbench.protocol.client_state import LAYERS, ClientState
from fedbench.protocol.exact_sum import summable
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.randomness import generator, torch_seed
from fedbench.training.captured import Record
from fedbench.training.group_norms import gradient_norms
from fedbench.training.local import LocalResult, OutOfTime, train_client, training_steps
from fedbench.training.out_of_memory import is_out_of_memory, retried_out_of_memory, without_frames
from fedbench.training.slots import Finished, interleaved


@dataclass(frozen=True)
class TrainedClient:
    """A client that has trained and is not yet part of an upload.

    Attributes:
        result: of its local training.
        state: what it keeps.
        values: float32 [n], its message; a tensor where it stays on the device, to be added to a sum there.
        seconds: duration of its training.
    """

    result: LocalResult
    state: ClientState
    values: Vector | Tensor
    seconds: float


class ClientHost(OwnModelHost):
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
        self._own_starts = np.split(payload, len(order.clients)) if order.own_starts else []
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
            reports += self._serve_interleaved(order, upload)
        for index in () if interleaves else range(len(order.clients)):
            self._load_start(order, index)
            reports.append(self._serve(order, index, upload))
            if reports[-1].status == "failed" and order.on_failure == "stop":
                break
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

    def _load_start(self, order: HostOrder, index: int) -> None:
        """Load what a client starts from, where each has a model of its own, in place of the global values."""
        if order.own_starts and self._loaded_start != index:
            self.load(order.stale, self._own_starts[index])
            self._loaded_start = index

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
        self, order: HostOrder, index: int, upload: HostUpload | DeviceSum, trained: "TrainedClient"
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

    def _serve_interleaved(self, order: HostOrder, upload: HostUpload | DeviceSum) -> list[ClientReport]:
        """Train the order's clients in the host's slots, and add their updates to the upload in the order's order."""
        while len(self._slots) < min(self._spec.slots, len(order.clients)):
            self._slots.append(ClientSlot(self._spec, self._device, self._recorder()))
        jobs = [partial(self._work, order, index, upload) for index in range(len(order.clients))]
        ended: dict[int, Finished[ClientSlot, TrainedClient]] = {}
        reports: list[ClientReport] = []
        for finished in interleaved(jobs, self._slots[: len(jobs)]):
            if finished.error is not None and is_out_of_memory(finished.error):
                without_frames(finished.error)
                finished.slot.steps.forget()
                self._free_memory()
                (again,) = interleaved([jobs[finished.index]], [finished.slot])
                finished = Finished(finished.index, again.slot, again.outcome, again.error)
            if finished.error is None:
                self._load_start(order, finished.index)
                self._score_in_slot(order.clients[finished.index], order.round, finished.slot)
            ended[finished.index] = finished
            while (following := ended.pop(len(reports), None)) is not None:
                reports.append(self._end(order, upload, following))
            if any(report.status == "failed" for report in reports) and order.on_failure == "stop":
                break
        return reports

    def _end(
        self, order: HostOrder, upload: HostUpload | DeviceSum, finished: "Finished[ClientSlot, TrainedClient]"
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

    def _recorder(self) -> Record | None:
        """How the slots record training steps; None: not at all."""
        return recorder(self._device)

    def _not_captured(self) -> tuple[str, ...]:
        """A line for each cause for which steps of the slots are not captured."""
        causes = dict.fromkeys(slot.steps.refused for slot in self._slots if slot.steps.refused)
        return tuple(f"training steps are not captured as CUDA graphs, and take longer: {cause}" for cause in causes)

    def _work(
        self, order: HostOrder, index: int, upload: HostUpload | DeviceSum, slot: ClientSlot
    ) -> "Generator[None, None, TrainedClient]":
        """Train one client in a slot, step by step; its new state is not stored."""
        client, started = order.clients[index], time.perf_counter()
        settings = slot.training
        until = math.inf if order.seconds is None else time.monotonic() + order.seconds
        self._load_start(order, index)
        slot.begin(
            self._start_parameters(order, index),
            self._start_statistics(client),
            torch_seed(self._spec.seed, "dropout", order.round, client),
        )
        old_state = self._states.get(client, ClientState())
        kept = {name: old_state.arrays[name] for name in settings.objective.keeps if name in old_state.arrays}
        tensors = slot.place(kept)
        result = yield from training_steps(
            slot.model,
            *self._training_rows(client),
            self._transform,
            settings,
            anchor=slot.anchor,
            groups=order.groups[index],
            round_index=order.round,
            client=client,
            lr_factor=order.lr_factor,
            shared={name: self._global[name] for name in settings.objective.channels},  # none with own starts
            state=tensors,
            until=until,
            randomness=nullcontext(),
            captured=slot.steps,
        )
        arrays = {name: tensor.cpu().numpy().copy() for name, tensor in tensors.items()}
        state = self._new_state(slot.model, old_state, arrays)
        take_back(order, index, settings.objective, slot.model, slot.anchor, result.outgoing, state)
        parts = self._spec.table.uploaded(order.sent[index])
        sent = {PARAMETERS: slot.model.vector, STATISTICS: slot.model.statistics, **result.outgoing}
        values = (
            slot.handed_over(upload.message(parts, sent))
            if isinstance(upload, DeviceSum)
            else message_values(self._spec.table, parts, sent)
        )
        return TrainedClient(result, state, values, time.perf_counter() - started)

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

    def _start_parameters(self, order: HostOrder, index: int) -> Tensor:
        """float32 [P], what a client starts from; not to be changed."""
        state = self._states.get(order.clients[index])
        return start_parameters(self._spec, order, index, self._global[PARAMETERS], state)

    def _train_one(
        self,
        client: int,
        groups: tuple[int, ...],
        round_index: int,
        lr_factor: float,
        until: float = math.inf,
        start: Tensor | None = None,
    ) -> tuple[LocalResult, ClientState]:
        """Train one client, and return its new state without storing it.

        Where the GPU's memory does not suffice, it is cleared of all that is not needed, and the client trains again.

        Args:
            groups: the layer groups that it trains.
            round_index: the round, or the client's visit in an asynchronous run; seeds minibatches and dropout.
            lr_factor: factor on the local learning rate.
            until: deadline on `time.monotonic`'s clock.
            start: float32 [P], what it starts from; None: the global parameters.

        Raises:
            OutOfTime: the deadline passed.
        """
        return retried_out_of_memory(
            lambda: self._attempt(client, groups, round_index, lr_factor, until, start), self._free_memory
        )

    def _attempt(
        self,
        client: int,
        groups: tuple[int, ...],
        round_index: int,
        lr_factor: float,
        until: float,
        start: Tensor | None,
    ) -> tuple[LocalResult, ClientState]:
        """One attempt at what `_train_one` does; arguments, result and errors as there."""
        anchor = self._global[PARAMETERS] if start is None else start
        norms = self._gradient_norms(client, round_index, anchor) if self._spec.gradient_norms else ()
        self._model.vector.copy_(anchor)
        self._set_statistics(self._start_statistics(client))
        until += self._score_start(client, round_index)
        old_state = self._states.get(client, ClientState())
        tensors = {
            name: torch.from_numpy(old_state.arrays[name].copy()).to(self._device)
            for name in self._training.objective.keeps
            if name in old_state.arrays
        }
        result = train_client(
            self._model,
            *self._training_rows(client),
            self._transform,
            self._training,
            anchor=anchor,
            groups=groups,
            round_index=round_index,
            client=client,
            lr_factor=lr_factor,
            shared={name: self._global[name] for name in self._training.objective.channels},
            state=tensors,
            until=until,
        )
        self._score_trained(client)
        return replace(result, gradient_norms=norms), self._new_state(
            self._model, old_state, {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        )

    def _gradient_norms(self, client: int, round_index: int, start: Tensor) -> tuple[float, ...]:
        """The norms that a client reports of the layer groups, at float32 [P] `start`; the model is left changed."""
        self._model.vector.copy_(start)
        self._set_statistics(self._start_statistics(client))
        rows = self._training_rows(client)
        return gradient_norms(
            self._model, *rows, self._transform, self._training, round_index=round_index, client=client
        )

    def _new_state(self, model: FlatModel, old_state: ClientState, arrays: dict[str, Vector]) -> ClientState:
        """A client's state after training: the old one with `arrays` replaced, and its own running statistics.

        Running statistics are part of the state only where clients keep them (`local.batchnorm=local`).
        """
        state = ClientState(dict(old_state.arrays) | arrays)
        if self._spec.keeps_statistics and self._spec.layout.statistics_size:
            state.arrays[STATISTICS] = model.statistics.cpu().numpy().copy()
        if self._spec.keeps_layers:
            state.arrays[LAYERS] = model.vector.cpu().numpy().copy()
        return state

    def _values(self, parts: tuple[int, ...], outgoing: dict[str, Tensor]) -> Vector:
        """A client's message: the values of `parts`, float32, one after the other.

        Args:
            parts: numbers of the parts to send.
            outgoing: {channel: tensor} for the parameters and the method's further channels; the running statistics
                are those of the model.
        """
        return message_values(self._spec.table, parts, {STATISTICS: self._model.statistics, **outgoing})
