"""The training rows of clients, where these train: in host memory, or gathered onto a GPU client by client."""

import warnings
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedbench.data.base import IntArray, Split

ClientRows = tuple[Tensor, Tensor, IntArray]
"""Inputs and labels on the device where a client trains, and the indices of the client's rows among them."""

SHARE_FOR_ROWS = 0.25
"""Share of the memory that a process may use of its GPU, in which clients' rows are kept for their next round."""


def host_tensors(split: Split) -> tuple[Tensor, Tensor]:
    """A split's inputs and labels, in place: they may be read-only, and nothing here writes to them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(split.inputs), torch.from_numpy(split.labels)


class RowsInPlace:
    """The rows of all clients where they are, in host memory: for training on the CPU."""

    def __init__(self, split: Split, rows: Sequence[IntArray]) -> None:
        self._inputs, self._labels = host_tensors(split)
        self._rows = rows

    def of(self, client: int) -> ClientRows:
        """The client's rows, among those of all clients."""
        return self._inputs, self._labels, self._rows[client]

    def release(self) -> None:
        """Give memory of a device back; there is none here."""


class GatheredRows:
    """The rows of the clients that trained here last, each client's in a piece of its own on the device.

    A client that arrives has its rows gathered from host memory; those of clients that have not been here for longest
    make room for them.
    """

    def __init__(self, split: Split, rows: Sequence[IntArray], device: torch.device, budget: int) -> None:
        """Keep nothing yet.

        Args:
            split: the training split, in host memory.
            rows: for each client, the indices of its rows in the split.
            device: where clients train.
            budget: bytes of the device's memory to keep rows in; the client that trains is there in any case.
        """
        self._inputs, self._labels = host_tensors(split)
        self._rows = rows
        self._device = device
        self._budget = budget
        self._kept: OrderedDict[int, ClientRows] = OrderedDict()
        self.kept_bytes = 0

    def of(self, client: int) -> ClientRows:
        """The client's rows, by themselves."""
        if client in self._kept:
            self._kept.move_to_end(client)
            return self._kept[client]
        chosen = torch.from_numpy(self._rows[client])
        inputs, labels = self._upload(self._inputs, chosen), self._upload(self._labels, chosen)
        self.kept_bytes += inputs.nbytes + labels.nbytes
        self._kept[client] = (inputs, labels, np.arange(len(chosen)))
        while self.kept_bytes > self._budget and len(self._kept) > 1:
            _, (old_inputs, old_labels, _) = self._kept.popitem(last=False)
            self.kept_bytes -= old_inputs.nbytes + old_labels.nbytes
        return self._kept[client]

    def _upload(self, source: Tensor, chosen: Tensor) -> Tensor:
        # PyTorch reuses the pinned memory only after the copy that reads it.
        pins = self._device.type == "cuda"
        gathered = torch.empty((len(chosen), *source.shape[1:]), dtype=source.dtype, pin_memory=pins)
        torch.index_select(source, 0, chosen, out=gathered)
        return gathered.to(self._device, non_blocking=pins)

    def release(self) -> None:
        """Forget all rows, so that their memory can be used otherwise."""
        self._kept.clear()
        self.kept_bytes = 0
