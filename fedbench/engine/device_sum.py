"""A client host's exact sum, computed on the GPU on which its clients train and read once, when the round is over."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedbench.engine.messages import HostOrder
from fedbench.protocol.exact_sum import LARGEST_UPDATE, SCALE
from fedbench.protocol.message import PARAMETERS, PartTable
from fedbench.protocol.update_pipeline import runs

_CHUNK = 1 << 22
"""Number of values processed at a time, so that the float64 intermediates take little of a GPU's memory."""


def sums_on_device(device: torch.device) -> bool:
    """Whether updates are added where they are, rather than copied to the host's memory first."""
    return device.type == "cuda"


class DeviceSum:
    """Collects the answer of a host to its share of a round: the exact sum of its clients' weighted updates.

    The sum has the bits of `fedbench.protocol.exact_sum.accumulate`: the difference and the product are operations of
    IEEE 754 in float64, one kernel each, and the product is rounded to the nearest integer, ties to even. The host
    waits once for each client, to know whether its update can be summed.
    """

    def __init__(self, table: PartTable, order: HostOrder, start: Mapping[str, Tensor]) -> None:
        """Start an empty sum.

        Args:
            table: the parts of a transfer.
            order: the host's share of the round, whose clients all start from the same values.
            start: {channel: float32 vector} on the device, the server's values.
        """
        self._table = table
        self._order = order
        self._start = start
        self._union = table.uploaded(order.union)
        self._references: dict[tuple[int, ...], Tensor] = {}
        device = start[PARAMETERS].device
        self._total = torch.zeros(table.values(self._union), dtype=torch.int64, device=device)

    def message(self, parts: tuple[int, ...], tensors: Mapping[str, Tensor]) -> Tensor:
        """A client's message in memory of its own: the values of `parts`, float32, one after the other.

        Args:
            parts: numbers of the parts to send.
            tensors: {channel: tensor} for the parameters, the running statistics and the method's further channels.
        """
        pieces = [self._table.parts[part] for part in parts]
        values = [tensors[part.channel][part.piece].to(self._total.device) for part in pieces]
        return torch.cat([torch.empty(0, device=self._total.device), *values])

    def _reference(self, parts: tuple[int, ...]) -> Tensor:
        """The server's values of a message's parts; zeros in the further channels, whose values are added to these."""
        if parts not in self._references:
            further = {name: torch.zeros_like(self._start[name]) for name in self._table.channels}
            self._references = {parts: self.message(parts, {**self._start, **further})}
        return self._references[parts]

    def add(self, index: int, parts: tuple[int, ...], values: Tensor) -> bool:
        """Add one client's update.

        Args:
            index: the client's position in the order.
            parts: the parts that the client sends.
            values: [n] on the device, its message after local training.

        Returns:
            False, with the sum unchanged, when the update is of another shape, not finite, or too large.
        """
        weight, scale = self._order.weights[index], self._order.scales[index]
        reference = self._reference(parts)
        if values.shape != reference.shape:
            return False
        if not parts:
            return True
        limit = LARGEST_UPDATE / max(scale, 1.0)
        pieces = [slice(begin, begin + _CHUNK) for begin in range(0, len(values), _CHUNK)]
        within = [((values[piece] - reference[piece]).abs() <= limit).all() for piece in pieces]
        if within and not bool(torch.stack(within).all()):
            return False
        for channel, source, target in runs(self._table, parts, self._union):
            factor = (weight * scale if channel == PARAMETERS else weight) * SCALE
            for begin in range(source.start, source.stop, _CHUNK):
                piece = slice(begin, min(begin + _CHUNK, source.stop))
                # T += round(w_k (x_k - r) 2**40)
                term = values[piece].double().sub_(reference[piece]).mul_(factor).round_()
                place = target.start - source.start
                self._total[piece.start + place : piece.stop + place] += term.to(torch.int64)
        return True

    def content(self) -> npt.NDArray[np.int64]:
        """The exact sum, over the parts that any participant of the round sends (int64)."""
        total: npt.NDArray[np.int64] = self._total.cpu().numpy()
        return total
