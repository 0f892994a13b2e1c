"""The way from a client's trained values to the server's sum: clipping, noise, compression, and the exact sum."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from fedbench.protocol.client_state import ClientState
from fedbench.protocol.compression import Compression
from fedbench.protocol.exact_sum import LARGEST_UPDATE, FixedPoint, accumulate, retract
from fedbench.protocol.layout import BYTES_PER_VALUE, Vector
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable
from fedbench.protocol.privacy import clip, gaussian_noise

RESIDUAL = "residual"
"""Prefix of the client-state arrays that hold what compression left out, one for each channel."""


@dataclass(frozen=True)
class UpdatePipeline:
    """Clips a client's update, adds noise to it and compresses it, in this order, before it is sent.

    Attributes:
        clip_norm: S, the largest L2 norm of the update of the parameters; None: not clipped.
        noise_std: standard deviation of the Gaussian noise added to each value of that update; 0: no noise.
        compression: compression of parameters and further channels; running statistics are sent as they are.
    """

    clip_norm: float | None
    noise_std: float
    compression: Compression

    @property
    def changes_nothing(self) -> bool:
        """Whether the server reads every update as the client computed it."""
        return self.clip_norm is None and not self.noise_std and self.compression.lossless

    @property
    def keeps_residual(self) -> bool:
        """Whether a client keeps what compression left out, to send it with a later update."""
        return self.compression.keeps_residual

    def apply(
        self,
        table: PartTable,
        parts: Sequence[int],
        values: Vector,
        reference: Vector,
        state: ClientState,
        rng: np.random.Generator,
        tracked: Collection[str] = (),
    ) -> Vector:
        """The message as the server reads it.

        Args:
            table: the parts of a transfer.
            parts: numbers of the message's parts.
            values: float32 [n], the values that the client arrived at.
            reference: float32 [n], the values that it started from.
            state: the client's state; the residual in it is replaced.
            rng: draws noise and stochastic roundings.
            tracked: channels of which no residual is kept (`Objective.tracks`).

        Returns:
            float32 [n]; `values` itself where nothing is to be done.
        """
        if self.changes_nothing:
            return values
        message = values.copy()
        channels = dict.fromkeys(part.channel for part, _ in table.segments(parts, parts))
        for channel in channels:
            if channel == STATISTICS:
                continue
            channel_parts = [index for index in parts if table.parts[index].channel == channel]
            segments = [segment for _, segment in table.segments(channel_parts, parts)]
            segment_of_channel = slice(segments[0].start, segments[-1].stop)
            update = values[segment_of_channel] - reference[segment_of_channel]
            if channel == PARAMETERS and self.clip_norm is not None:
                update = clip(update, self.clip_norm)
            if channel == PARAMETERS and self.noise_std:
                update = update + gaussian_noise(len(update), self.noise_std, rng)
            keeps_residual = self.keeps_residual and channel not in tracked
            update = self._compress(table, channel_parts, channel, update, state if keeps_residual else None, rng)
            message[segment_of_channel] = reference[segment_of_channel] + update
        return message

    def _compress(
        self,
        table: PartTable,
        parts: Sequence[int],
        channel: str,
        update: Vector,
        state: ClientState | None,
        rng: np.random.Generator,
    ) -> Vector:
        """Compress the update of one channel, with error feedback where `state` is given to hold its residual."""
        sizes = [table.sizes[index] for index in parts]
        if state is None:
            return self.compression.roundtrip(update, sizes, rng)
        name = f"{RESIDUAL} {channel}"
        residual = state.arrays.get(name, np.zeros(table.layout.size, np.float32)).copy()
        pieces = [table.parts[index].piece for index in parts]
        corrected = update + np.concatenate([residual[piece] for piece in pieces])
        sent = self.compression.roundtrip(corrected, sizes, rng)
        unsent, start = corrected - sent, 0
        for piece in pieces:
            length = piece.stop - piece.start
            residual[piece] = unsent[start : start + length]
            start += length
        state.arrays[name] = residual
        return sent

    def nbytes(self, table: PartTable, parts: Sequence[int]) -> int:
        """Bytes of a client's message of `parts`, after compression."""
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
        total: int64, the sum over the parts of `union`.
        union: numbers of the parts that any participant sends.
        table: the parts of a transfer.
        parts: numbers of the message's parts, all of them in `union`.
        values: float32, the client's values of `parts`, one after the other.
        reference: float32, the server's values of `parts`.
        weight: the client's weight.
        scale: a further factor on the update of the parameters.

    Returns:
        False, with `total` unchanged, when the update cannot be summed.
    """
    limit = LARGEST_UPDATE / max(scale, 1.0)
    if tuple(parts) == tuple(union) and scale == 1.0:
        return accumulate(total, values, reference, weight, limit)
    added: list[tuple[slice, slice, float]] = []
    for channel, source, target in runs(table, parts, union):
        factor = weight * scale if channel == PARAMETERS else weight
        if not accumulate(total[target], values[source], reference[source], factor, limit):
            for earlier_target, earlier_source, earlier_factor in added:
                retract(total[earlier_target], values[earlier_source], reference[earlier_source], earlier_factor)
            return False
        added.append((target, source, factor))
    return True


def runs(table: PartTable, parts: Sequence[int], union: Sequence[int]) -> list[tuple[str, slice, slice]]:
    """The fewest pieces of one channel each that lie in one piece in both messages: (channel, in parts, in union)."""
    joined: list[tuple[str, slice, slice]] = []
    for (part, source), (_, target) in zip(table.segments(parts, parts), table.segments(parts, union), strict=True):
        if joined and (joined[-1][0], joined[-1][2].stop) == (part.channel, target.start):
            _, first_source, first_target = joined.pop()
            source, target = slice(first_source.start, source.stop), slice(first_target.start, target.stop)
        joined.append((part.channel, source, target))
    return joined
