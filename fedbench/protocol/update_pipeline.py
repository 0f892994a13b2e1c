"""From what a client has trained to what the server adds up: clipping, noise, compression, exact sums."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedbench.protocol.client_state import ClientState
from fedbench.protocol.compression import Compression
from fedbench.protocol.exact_sum import LARGEST_UPDATE, FixedPoint, accumulate, summable
from fedbench.protocol.layout import BYTES_PER_VALUE, Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable
from fedbench.protocol.privacy import clip, gaussian_noise

RESIDUAL = "residual"


@dataclass(frozen=True)
class UpdatePipeline:
    """What is done to a client's update before it is sent, in this order.

    Attributes:
        clip_norm: largest L2 norm of the update of the parameters; None: not clipped.
        noise_std: standard deviation of the Gaussian noise added to each value of it; 0: none.
        compression: of parameters and further channels, not of the statistics.
    """

    clip_norm: float | None
    noise_std: float
    compression: Compression

    @property
    def keeps_residual(self) -> bool:
        """Whether a client keeps what compression left out, to send it later."""
        return self.compression.keeps_residual

    def apply(
        self,
        table: PartTable,
        parts: Sequence[int],
        values: Vector,
        reference: Vector,
        state: ClientState,
        rng: np.random.Generator,
    ) -> Vector:
        """The message as the server reads it; `state` is given the new residual.

        Args:
            parts: of the message; values, reference: float32 [n], what the client arrived at and started from.
            rng: draws noise and stochastic roundings.
        """
        if self.clip_norm is None and not self.noise_std and self.compression.lossless:
            return values
        message = values.copy()
        channels = dict.fromkeys(part.channel for part, _ in table.segments(parts, parts))
        for channel in channels:
            if channel == STATISTICS:
                continue
            own = [index for index in parts if table.parts[index].channel == channel]
            segments = [segment for _, segment in table.segments(own, parts)]
            whole = slice(segments[0].start, segments[-1].stop)
            update = values[whole] - reference[whole]
            if channel == PARAMETERS and self.clip_norm is not None:
                update = clip(update, self.clip_norm)
            if channel == PARAMETERS and self.noise_std:
                update = update + gaussian_noise(len(update), self.noise_std, rng)
            update = self._compress(table, own, channel, update, state, rng)
            message[whole] = reference[whole] + update
        return message

    def _compress(
        self,
        table: PartTable,
        own: Sequence[int],
        channel: str,
        update: Vector,
        state: ClientState,
        rng: np.random.Generator,
    ) -> Vector:
        sizes = [table.sizes[index] for index in own]
        if not self.keeps_residual:
            return self.compression.roundtrip(update, sizes, rng)
        name = f"{RESIDUAL} {channel}"
        residual = state.arrays.get(name, np.zeros(table.layout.size, np.float32)).copy()
        pieces = [table.parts[index].piece for index in own]
        wanted = update + np.concatenate([residual[piece] for piece in pieces])
        sent = self.compression.roundtrip(wanted, sizes, rng)
        rest, start = wanted - sent, 0
        for piece in pieces:
            length = piece.stop - piece.start
            residual[piece] = rest[start : start + length]
            start += length
        state.arrays[name] = residual
        return sent

    def nbytes(self, table: PartTable, parts: Sequence[int]) -> int:
        """Bytes of a client's message as sent."""
        count = 0
        for channel in dict.fromkeys(table.parts[index].channel for index in parts):
            sizes = [table.sizes[index] for index in parts if table.parts[index].channel == channel]
            count += BYTES_PER_VALUE * sum(sizes) if channel == STATISTICS else self.compression.nbytes(sizes)
        return count


def add_message(
    total: FixedPoint,
    union: Sequence[int],
    table: PartTable,
    parts: Sequence[int],
    values: Vector,
    reference: Vector,
    weight: float,
    scale: float = 1.0,
) -> bool:
    """Add one client's weighted update to an exact sum, in place.

    Args:
        total: int64, over the parts of `union`.
        parts: those of the message, among `union`.
        values, reference: float32, over `parts`.
        weight: of everything; scale: a further factor on the parameters.

    Returns:
        False, with `total` unchanged, when the update cannot be summed.
    """
    if tuple(parts) == tuple(union) and scale == 1.0:
        return accumulate(total, values, reference, weight)
    if not summable(values, reference, LARGEST_UPDATE / max(scale, 1.0)):
        return False
    inside = table.segments(parts, parts)
    for (part, source), (_, target) in zip(inside, table.segments(parts, union), strict=True):
        factor = weight * scale if part.channel == PARAMETERS else weight
        accumulate(total[target], values[source], reference[source], factor)
    return True
