"""What a client host reads a client's message from, and what it is compared with, with as few copies as possible."""

import numpy as np
import torch
from torch import Tensor

from fedbench.protocol.layout import Vector
from fedbench.protocol.message import PartTable


class MessageMemory:
    """Memory that a client host uses again for each client's message, and the values that updates are measured from."""

    def __init__(self, table: PartTable, received: dict[str, Vector]) -> None:
        """Args:
        table: the parts of a transfer.
        received: {channel: float32 vector}, the server's values; `forget` is called after they have changed.
        """
        self._table = table
        self._received = received
        self._memory: Vector = np.empty(0, np.float32)
        self._references: dict[tuple[int, ...], Vector] = {}

    def forget(self) -> None:
        """Let the next reference be made from the values as they are then."""
        self._references = {}

    def reference(self, parts: tuple[int, ...]) -> Vector:
        """The server's values of a message's parts, from which an update is measured; not to be changed.

        Zeros in the method's further channels: clients send what is to be added to these, not new values.
        """
        if parts not in self._references:
            table = self._table
            message = table.gather(self._received, parts)
            if table.channels:
                message = message.copy()
                for part, segment in table.segments(parts, parts):
                    if part.channel in table.channels:
                        message[segment] = 0
            self._references = {parts: message}
        return self._references[parts]

    def values(self, parts: tuple[int, ...], tensors: dict[str, Tensor]) -> Vector:
        """A client's message: the values of `parts`, float32, one after the other.

        The array is valid until the next call, and until training changes the tensors: it is a view of one of them, or
        of memory that is used again.

        Args:
            parts: numbers of the parts to send.
            tensors: {channel: tensor} for the parameters, the running statistics and the method's further channels.
        """
        table = self._table
        for channel, tensor in tensors.items():
            known = self._received.get(channel)
            plain = tensor.device.type == "cpu" and tensor.dtype == torch.float32 and not tensor.requires_grad
            if not plain or (known is not None and tensor.shape != known.shape):
                # What a method sends may be on another device, or even of a wrong shape, which the caller rejects.
                return message_values(table, parts, tensors)
        if len(self._memory) < (size := table.values(parts)):
            self._memory = np.empty(size, np.float32)
        return table.gather({channel: tensor.numpy() for channel, tensor in tensors.items()}, parts, self._memory)


def message_values(table: PartTable, parts: tuple[int, ...], tensors: dict[str, Tensor]) -> Vector:
    """A client's message in memory of its own; arguments as for `MessageMemory.values`."""
    pieces = [tensors[channel][piece] for channel, piece in table.pieces(parts)]
    values: Vector = torch.cat([torch.empty(0, device=next(iter(tensors.values())).device), *pieces]).cpu().numpy()
    return values
