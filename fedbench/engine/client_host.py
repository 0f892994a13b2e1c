"""A client host: one model, in which several clients train one after the other.

On a cluster a host runs inside a Ray actor that holds a fraction of a GPU. The inline executors use it as a plain
object. The code is the same in both cases.
"""

import gc
import math
import resource
import time
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.algorithms.base import Objective
from fedbench.data.augment import MinibatchDraws, prepare
from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.client_message import MessageMemory, message_values
from fedbench.engine.client_reports import dropped_report, failure_report
from fedbench.engine.client_slots import ClientSlot, local_training, recorder
from fedbench.engine.device import (
    check_device,
    choose_device,
    configure_torch,
    device_record,
    explained,
    is_out_of_memory,
    memory_fraction,
    release_memory,
    retried_out_of_memory,
)
from fedbench.engine.device_rows import SHARE_FOR_ROWS, GatheredRows, RowsInPlace, host_tensors
from fedbench.engine.host_upload import HostUpload
from fedbench.engine.messages import ClientReport, DeviceRecord, EvaluationReport, HostOrder, HostReport, HostSpec
from fedbench.errors import LostDevice, RunError
from fedbench.models.flat import FlatModel
from fedbench.models.groups import build_module
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.exact_sum import summable
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.randomness import generator, torch_seed
from fedbench.training.captured import Record
from fedbench.training.evaluation import recalibrate, score_batches
from fedbench.training.local import LocalResult, OutOfTime, train_client, training_steps
from fedbench.training.prepared import Transform
from fedbench.training.scores import BatchScore, EvaluationBatch, ScoredSplit
from fedbench.training.slots import Finished, interleaved


@dataclass(frozen=True)
class TrainedClient:
    """A client that has trained and is not yet part of an upload.

    Attributes:
        result: of its local training.
        state: what it keeps.
        values: float32 [n], its message.
        seconds: duration of its training.
    """

    result: LocalResult
    state: ClientState
    values: Vector
    seconds: float


class ClientHost:
    """Trains and scores clients in one model.

    It holds the global parameters as far as it has received them, the model, and the state of every client that it
    trained last.

    Attributes:
        lost_device: why the device can no longer be used; "" while it can.
    """

    lost_device: str = ""

    def prepare(self, spec: HostSpec, data: FederatedData, rows: Sequence[IntArray]) -> DeviceRecord:
        """Set the host up as before the first round; may be called again for another experiment.

        Args:
            spec: model, method and settings of the experiment.
            data: the data set; its arrays are used in place. A client's rows are copied to a GPU when it trains there.
            rows: for each client of the population, the indices of its rows in the training split.

        Returns:
            What is recorded of the device.

        Raises:
            ConfigError: there is no GPU, or not enough of its memory, and the experiment needs it.
        """
        self._release()
        self._spec = spec
        self._rows = rows
        self._device = choose_device(spec)
        configure_torch(spec, self._device)
        layout = spec.layout
        module = build_module(spec.model, spec.task, torch_seed(spec.seed, "model"))
        self._model = FlatModel(module, layout, self._device)
        self._received = spec.table.zeros()
        self._received[STATISTICS][:] = spec.statistics
        self._on_host = {name: torch.from_numpy(vector) for name, vector in self._received.items()}
        self._global = {name: vector.to(self._device) for name, vector in self._on_host.items()}
        self._messages = MessageMemory(spec.table, self._received)
        self._states: dict[int, ClientState] = {}
        self._train = host_tensors(data.train)
        self._client_rows = self._make_client_rows(data)
        self._scored: dict[ScoredSplit, tuple[Tensor, Tensor]] = {"test": host_tensors(data.test)}
        if data.validation is not None:
            self._scored["validation"] = host_tensors(data.validation)
        self._transform = self._make_transform(data.kind)
        self._training = local_training(spec)
        self._slots: list[ClientSlot] = []
        return device_record(self._device)

    def _release(self) -> None:
        """Forget the experiment before this one, so that its data and model need not fit beside those of the next."""
        device = vars(self).get("_device")
        vars(self).clear()
        if device is not None and device.type == "cuda":
            gc.collect()  # a module and its hooks may refer to each other
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)

    def _make_client_rows(self, data: FederatedData) -> RowsInPlace | GatheredRows:
        if self._device.type == "cpu":
            return RowsInPlace(data.train, self._rows)
        total = torch.cuda.get_device_properties(self._device).total_memory
        room = total * memory_fraction(self._spec.gpu_fraction, total)
        return GatheredRows(data.train, self._rows, self._device, int(room * SHARE_FOR_ROWS))

    def _make_transform(self, kind: str) -> Transform:
        if kind == "text":
            return lambda batch, draws: batch.long()
        return partial(_prepare, self._spec)

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
        starts = np.split(payload, len(order.clients)) if order.own_starts else []
        if not order.own_starts:
            self.load(order.stale, payload)
        for client, state in zip(order.arriving, states, strict=True):
            self._states[client] = state
        upload = HostUpload(self._spec.table, order)
        reports: list[ClientReport] = []
        interleaves = self._spec.slots > 1 and len(order.clients) > 1 and not order.own_starts
        if interleaves:
            reports += self._serve_interleaved(order, upload)
        for index in () if interleaves else range(len(order.clients)):
            if order.own_starts:
                self.load(order.stale, starts[index])
            reports.append(self._serve(order, index, upload))
            if reports[-1].status == "failed" and order.on_failure == "stop":
                break
        busy = time.perf_counter() - began
        report = HostReport(
            clients=tuple(reports),
            load_seconds=0.0 if interleaves else busy - sum(report.seconds for report in reports),
            busy_seconds=busy,
            state_bytes=sum(state.nbytes for state in states),
        )
        return upload.content(), report

    def _serve(self, order: HostOrder, index: int, upload: HostUpload) -> ClientReport:
        """Train one client and add its update to the upload; its new state is stored only if the update is accepted."""
        client, table = order.clients[index], self._spec.table
        samples, started = len(self._rows[client]), time.perf_counter()
        parts = table.uploaded(order.groups[index])
        until = math.inf if order.seconds is None else time.monotonic() + order.seconds
        try:
            result, state = self._train_one(client, order.groups[index], order.round, order.lr_factor, until)
            trained = {PARAMETERS: self._model.vector, STATISTICS: self._model.statistics, **result.outgoing}
            values = self._messages.values(parts, trained)
            trained_client = TrainedClient(result, state, values, time.perf_counter() - started)
        except OutOfTime:
            return dropped_report(client, samples, time.perf_counter() - started)
        except Exception as error:
            self.check_device(error)
            if order.on_failure == "raise":
                raise
            return failure_report(client, samples, time.perf_counter() - started, explained(error))
        return self._accept(order, index, upload, trained_client)

    def _accept(self, order: HostOrder, index: int, upload: HostUpload, trained: "TrainedClient") -> ClientReport:
        """Add a trained client's update to the upload; its new state is stored only if the update is accepted."""
        client = order.clients[index]
        result, state, values = trained.result, trained.state, trained.values
        parts = self._spec.table.uploaded(order.groups[index])
        reference = self._messages.reference(parts)
        accepted = values.shape == reference.shape
        if accepted and not self._spec.update.changes_nothing:
            accepted = summable(values, reference)
            if accepted:
                rng = generator(self._spec.seed, "update", order.round, client)
                values = self._after_pipeline(parts, values, reference, state, rng)
        accepted = accepted and upload.add(index, parts, values, reference)
        if accepted:
            self._states[client] = state
        status = "ok" if accepted else "rejected"
        samples = len(self._rows[client])
        return ClientReport(client, status, samples, result.steps, result.loss, trained.seconds, result.passes)

    def _serve_interleaved(self, order: HostOrder, upload: HostUpload) -> list[ClientReport]:
        """Train the order's clients in the host's slots, and add their updates to the upload in the order's order."""
        while len(self._slots) < min(self._spec.slots, len(order.clients)):
            self._slots.append(ClientSlot(self._spec, self._device, self._recorder()))
        jobs = [partial(self._work, order, index) for index in range(len(order.clients))]
        ended: dict[int, Finished[ClientSlot, TrainedClient]] = {}
        reports: list[ClientReport] = []
        for finished in interleaved(jobs, self._slots[: len(jobs)]):
            if finished.error is not None and is_out_of_memory(finished.error):
                self._free_memory()
                (again,) = interleaved([jobs[finished.index]], [finished.slot])
                finished = Finished(finished.index, again.slot, again.outcome, again.error)
            ended[finished.index] = finished
            while (following := ended.pop(len(reports), None)) is not None:
                reports.append(self._end(order, upload, following))
            if any(report.status == "failed" for report in reports) and order.on_failure == "stop":
                break
        return reports

    def _end(
        self, order: HostOrder, upload: HostUpload, finished: "Finished[ClientSlot, TrainedClient]"
    ) -> ClientReport:
        """The report of a client that has trained in a slot, whose update is added to the upload."""
        if finished.outcome is not None:
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

    def _work(self, order: HostOrder, index: int, slot: ClientSlot) -> "Generator[None, None, TrainedClient]":
        """Train one client in a slot, step by step; its new state is not stored."""
        client, started = order.clients[index], time.perf_counter()
        settings = slot.training
        until = math.inf if order.seconds is None else time.monotonic() + order.seconds
        slot.begin(
            self._global[PARAMETERS],
            self._start_statistics(client),
            torch_seed(self._spec.seed, "dropout", order.round, client),
        )
        old_state = self._states.get(client, ClientState())
        kept = {name: old_state.arrays[name] for name in settings.objective.keeps if name in old_state.arrays}
        tensors = slot.place(kept)
        result = yield from training_steps(
            slot.model,
            *self._client_rows.of(client),
            self._transform,
            settings,
            anchor=slot.anchor,
            groups=order.groups[index],
            round_index=order.round,
            client=client,
            lr_factor=order.lr_factor,
            shared={name: self._global[name] for name in settings.objective.channels},
            state=tensors,
            until=until,
            randomness=nullcontext(),
            captured=slot.steps,
        )
        arrays = {name: tensor.cpu().numpy().copy() for name, tensor in tensors.items()}
        state = self._new_state(slot.model, old_state, arrays)
        parts = self._spec.table.uploaded(order.groups[index])
        sent = {PARAMETERS: slot.model.vector, STATISTICS: slot.model.statistics, **result.outgoing}
        values = message_values(self._spec.table, parts, sent)
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
        kept = {name: torch.from_numpy(state.arrays[name]) for name in objective.keeps if name in state.arrays}
        groups = sorted({table.parts[part].group for part in parts} - {-1})
        objective.correct_state(
            kept,
            {channel: torch.from_numpy(vector) for channel, vector in difference.items() if channel != STATISTICS},
            self._spec.layout.ranges(tuple(groups)),
        )
        state.arrays.update({name: tensor.numpy() for name, tensor in kept.items()})
        return read

    def _train_one(
        self, client: int, groups: tuple[int, ...], round_index: int, lr_factor: float, until: float = math.inf
    ) -> tuple[LocalResult, ClientState]:
        """Train one client, and return its new state without storing it.

        Where the GPU's memory does not suffice, it is cleared of all that is not needed, and the client trains again.

        Args:
            groups: the layer groups that it trains.
            round_index: the round, or the client's visit in an asynchronous run; seeds minibatches and dropout.
            lr_factor: factor on the local learning rate.
            until: deadline on `time.monotonic`'s clock.

        Raises:
            OutOfTime: the deadline passed.
        """
        return retried_out_of_memory(
            lambda: self._attempt(client, groups, round_index, lr_factor, until), self._free_memory
        )

    def _free_memory(self) -> None:
        self._client_rows.release()
        release_memory(self._device)

    def check_device(self, error: Exception) -> None:
        """Find out whether an error has left the device unusable.

        Raises:
            LostDevice: it has; `lost_device` says so from then on.
        """
        try:
            check_device(error, self._device)
        except LostDevice as lost:
            self.lost_device = str(lost)
            raise

    def _attempt(
        self, client: int, groups: tuple[int, ...], round_index: int, lr_factor: float, until: float
    ) -> tuple[LocalResult, ClientState]:
        """One attempt at what `_train_one` does; arguments, result and errors as there."""
        self._reset_parameters()
        self._set_statistics(self._start_statistics(client))
        old_state = self._states.get(client, ClientState())
        tensors = {
            name: torch.from_numpy(old_state.arrays[name].copy()).to(self._device)
            for name in self._training.objective.keeps
            if name in old_state.arrays
        }
        result = train_client(
            self._model,
            *self._client_rows.of(client),
            self._transform,
            self._training,
            anchor=self._global[PARAMETERS],
            groups=groups,
            round_index=round_index,
            client=client,
            lr_factor=lr_factor,
            shared={name: self._global[name] for name in self._training.objective.channels},
            state=tensors,
            until=until,
        )
        return result, self._new_state(
            self._model, old_state, {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        )

    def _new_state(self, model: FlatModel, old_state: ClientState, arrays: dict[str, Vector]) -> ClientState:
        """A client's state after training: the old one with `arrays` replaced, and its own running statistics.

        Running statistics are part of the state only where clients keep them (`local.batchnorm=local`).
        """
        state = ClientState(dict(old_state.arrays) | arrays)
        if self._spec.keeps_statistics and self._spec.layout.statistics_size:
            state.arrays[STATISTICS] = model.statistics.cpu().numpy().copy()
        return state

    def load(self, stale: tuple[int, ...], payload: Vector) -> None:
        """Overwrite the host's copy of the global values of the `stale` parts.

        Args:
            stale: numbers of the parts.
            payload: float32, their values, one after the other.
        """
        table = self._spec.table
        table.scatter(payload, self._received, stale)
        self._messages.forget()
        if self._device.type == "cuda":
            for part in (table.parts[index] for index in stale):
                self._global[part.channel][part.piece].copy_(self._on_host[part.channel][part.piece])

    def _reset_parameters(self) -> None:
        """Put the global parameters back into the model.

        All of them: a network may write to layer groups that do not train, too (`weight.data.clamp_`).
        """
        self._model.vector.copy_(self._global[PARAMETERS])

    def _set_statistics(self, statistics: Vector) -> None:
        """Set the running statistics, and whatever else the module holds to its first values."""
        self._model.reset()
        self._model.statistics.copy_(torch.from_numpy(statistics))

    def _start_statistics(self, client: int) -> Vector:
        """Running statistics that the client starts from: the global ones, or its own where clients keep them."""
        if not self._spec.keeps_statistics:
            return self._received[STATISTICS]
        state = self._states.get(client)
        return self._spec.statistics if state is None else state.arrays.get(STATISTICS, self._spec.statistics)

    def _values(self, parts: tuple[int, ...], outgoing: dict[str, Tensor]) -> Vector:
        """A client's message: the values of `parts`, float32, one after the other.

        Args:
            parts: numbers of the parts to send.
            outgoing: {channel: tensor} for the parameters and the method's further channels; the running statistics
                are those of the model.
        """
        return message_values(self._spec.table, parts, {STATISTICS: self._model.statistics, **outgoing})

    def evaluate(
        self,
        stale: tuple[int, ...],
        payload: Vector,
        batches: Sequence[EvaluationBatch],
        clients: Sequence[int] = (),
        client0: ClientState | None = None,
    ) -> EvaluationReport:
        """Score the global model on minibatches of the test and validation split, and on clients' training rows.

        Args:
            stale: parts whose global values come with the call.
            payload: float32, their values, one after the other.
            batches: the minibatches to score.
            clients: clients on whose own training rows the model is scored as well.
            client0: state of client 0, where `evaluation.batchnorm=client0` and another host holds it.

        Raises:
            RunError: the network changes its parameters while it is scored.
        """
        began = time.perf_counter()
        self.load(stale, payload)
        self._reset_parameters()
        self._set_statistics(self._evaluation_statistics(client0))
        if self._spec.evaluation_statistics == "recalibrate":
            recalibrate(self._model, self._train[0], np.concatenate(self._rows), self._transform, self._spec.seed)
        scores: list[BatchScore] = []
        for split, rows in self._scored.items():
            borders = [(batch.start, batch.stop) for batch in batches if batch.split == split]
            of_split = score_batches(self._model, *rows, borders, self._transform, self._spec.seed)
            scores += [replace(score, split=split) for score in of_split]
        accuracy = {}
        for client in clients:
            if self._spec.keeps_statistics:
                self._set_statistics(self._start_statistics(client))
            accuracy[client] = self._accuracy(self._rows[client])
        if (changed := self._model.changed_parameter(self._global[PARAMETERS])) is not None:
            raise RunError(
                f"model.name={self._spec.model.name}: its forward pass changes parameter {changed!r} in evaluation, so "
                "that scores would depend on the order of the minibatches; change parameters under self.training alone"
            )
        return EvaluationReport(tuple(scores), accuracy, time.perf_counter() - began)

    def _accuracy(self, rows: IntArray) -> float:
        size = self._spec.evaluation_batch_size
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        scores = score_batches(self._model, *self._train, batches, self._transform, self._spec.seed)
        return sum(score.correct for score in scores) / len(rows)

    def _evaluation_statistics(self, client0: ClientState | None) -> Vector:
        if self._spec.evaluation_statistics != "client0":
            return self._received[STATISTICS]
        return client0.arrays[STATISTICS] if client0 is not None else self._start_statistics(0)

    def take_state(self, client: int) -> ClientState:
        """Remove a client's state from this host and return it, for the host that trains the client next."""
        return self._states.pop(client, None) or self._initial_state()

    def copy_state(self, client: int) -> ClientState:
        """A client's state, which this host keeps."""
        return self._states.get(client) or self._initial_state()

    def all_states(self) -> dict[int, ClientState]:
        """The states of all clients that this host holds, by client."""
        return self._states

    def put_states(self, states: dict[int, ClientState]) -> None:
        """Add or replace client states, by client."""
        self._states.update(states)

    def _initial_state(self) -> ClientState:
        return ClientState({STATISTICS: self._spec.statistics})

    def peak_memory(self) -> int:
        """Largest memory use in bytes: resident memory of this process so far, or what it took of its GPU.

        On a GPU it is what PyTorch has held since the experiment began, without the context of CUDA.
        """
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _prepare(spec: HostSpec, batch: Tensor, draws: MinibatchDraws | None) -> Tensor:
    return prepare(batch, spec.augmentation if draws is not None else None, spec.mean, spec.std, draws)
