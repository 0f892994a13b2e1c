"""A host that trains several clients at a time, each in a slot of its own."""

import math
import time
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from fedbench.engine.client_message import message_values
from fedbench.engine.client_slots import ClientSlot, recorder
from fedbench.engine.device_sum import DeviceSum
from fedbench.engine.messages import HostOrder
from fedbench.engine.own_layers import take_back
from fedbench.engine.training_host import TrainingHost
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.randomness import torch_seed
from fedbench.training.captured import Record
from fedbench.training.local import LocalResult, training_steps
from fedbench.training.out_of_memory import is_out_of_memory, without_frames
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


class SlotHost(TrainingHost):
    """A `TrainingHost` that also trains the clients of an order in slots, a step of one after the other."""

    _own_starts: tuple[Vector, ...] = ()
    """What each client of the order starts from, where each has a model of its own."""

    _loaded_start: int = -1
    """The position in the order of the client whose start is loaded in place of the global values; -1: of none."""

    def _load_start(self, order: HostOrder, index: int) -> None:
        """Load what a client starts from, where each has a model of its own, in place of the global values."""
        if order.own_starts and self._loaded_start != index:
            self.load(order.stale, self._own_starts[index])
            self._loaded_start = index

    def _trained_in_slots(
        self, order: HostOrder, device_sum: DeviceSum | None
    ) -> Iterator[Finished[ClientSlot, TrainedClient]]:
        """Train the order's clients; as they end, which is in any order, they are scored where that is due.

        A client that finds too little memory on the GPU is tried once more.

        Args:
            order: the host's share of the round.
            device_sum: the sum on the device that the clients' updates will be added to; None: they leave the device.
        """
        while len(self._slots) < min(self._spec.slots, len(order.clients)):
            self._slots.append(ClientSlot(self._spec, self._device, self._recorder()))
        jobs = [partial(self._work, order, index, device_sum) for index in range(len(order.clients))]
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
            yield finished

    def _recorder(self) -> Record | None:
        """How the slots record training steps; None: not at all."""
        return recorder(self._device)

    def _not_captured(self) -> tuple[str, ...]:
        """A line for each cause for which steps of the slots are not captured."""
        causes = dict.fromkeys(slot.steps.refused for slot in self._slots if slot.steps.refused)
        return tuple(f"training steps are not captured as CUDA graphs, and take longer: {cause}" for cause in causes)

    def _work(
        self, order: HostOrder, index: int, device_sum: DeviceSum | None, slot: ClientSlot
    ) -> "Generator[None, None, TrainedClient]":
        """Train one client in a slot, step by step; its new state is not stored."""
        client, started = order.clients[index], time.perf_counter()
        settings = slot.training
        until = math.inf if order.seconds is None else time.monotonic() + order.seconds
        self._load_start(order, index)
        start, statistics = self._start_parameters(order, index), self._start_statistics(client)
        seed = torch_seed(self._spec.seed, "dropout", order.round, client)
        slot.begin(start, statistics, seed)
        norms: tuple[float, ...] = ()
        if self._spec.gradient_norms:
            norms = self._gradient_norms(slot.model, settings, client, order.round)
            slot.begin(start, statistics, seed)
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
            slot.handed_over(device_sum.message(parts, sent))
            if device_sum is not None
            else message_values(self._spec.table, parts, sent)
        )
        result = replace(result, gradient_norms=norms)
        return TrainedClient(result, state, values, time.perf_counter() - started)
