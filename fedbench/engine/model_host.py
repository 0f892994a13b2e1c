"""A host of one experiment's model: the global parameters as it has received them, and clients' states."""

import resource
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from fedbench.data.base import FederatedData, IntArray
from fedbench.engine.byzantine import ByzantineClients
from fedbench.engine.client_message import MessageMemory
from fedbench.engine.client_slots import ClientSlot, host_model, local_training
from fedbench.engine.device import (
    check_device,
    choose_device,
    configure_torch,
    device_record,
    forget_earlier_work,
    memory_fraction,
)
from fedbench.engine.device_rows import SHARE_FOR_ROWS, ClientRows, GatheredRows, RowsInPlace, host_tensors
from fedbench.engine.messages import DeviceRecord, HostSpec
from fedbench.errors import LostDevice
from fedbench.protocol.client_state import ClientState
from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS
from fedbench.training.out_of_memory import release_memory
from fedbench.training.prepared import transform_of
from fedbench.training.scores import ScoredSplit


class ModelHost:
    """Holds the global parameters as far as it has received them, a model, and clients' states.

    Attributes:
        lost_device: why the device can no longer be used; "" while it can.
    """

    lost_device: str = ""

    def prepare(self, spec: HostSpec, data: FederatedData, rows: Sequence[IntArray]) -> DeviceRecord:
        """Set the host up as before the first round; may be called again for another experiment.

        Args:
            spec: model, method and settings of the experiment.
            data: the data set; its arrays are used in place. A client's rows are copied to a GPU when it trains there.
            rows: for each client of the population, the indices in the training split of the rows that it trains on.

        Returns:
            What is recorded of the device.

        Raises:
            ConfigError: there is no GPU, or not enough of its memory, and the experiment needs it.
        """
        vars(self).clear()  # the data and the model of the experiment before this one need not fit beside the next
        self._spec = spec
        self._rows = rows
        self._device = choose_device(spec)
        forget_earlier_work(self._device)
        configure_torch(spec, self._device)
        self._model = host_model(spec, self._device)
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
        self._transform = transform_of(data.kind, spec.mean, spec.std, spec.augmentation, self._device)
        self._training = local_training(spec)
        self._byzantine = ByzantineClients(spec)
        self._slots: list[ClientSlot] = []
        return device_record(self._device)

    def _make_client_rows(self, data: FederatedData) -> RowsInPlace | GatheredRows:
        if self._device.type == "cpu":
            return RowsInPlace(data.train, self._rows)
        total = torch.cuda.get_device_properties(self._device).total_memory
        room = total * memory_fraction(self._spec.gpu_fraction, total)
        return GatheredRows(data.train, self._rows, self._device, int(room * SHARE_FOR_ROWS))

    def _training_rows(self, client: int) -> ClientRows:
        """What a client trains on; an attacker may have given its rows other labels."""
        return self._byzantine.rows(client, self._client_rows.of(client))

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

    def _free_memory(self) -> None:
        self._client_rows.release()
        release_memory(self._device)

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
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
