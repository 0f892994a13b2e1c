"""The parts of a message: layer groups of the parameters, running statistics, and a method's further channels.

A *channel* is a vector that travels: the parameters, the running statistics (where they are aggregated), or what a
method sends beside them (SCAFFOLD's control variates), which is laid out like the parameters. A *part* is the piece of
a channel that is sent or left out as a whole: one layer group, or all statistics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedbench.protocol.layout import BYTES_PER_VALUE, ParameterLayout, Vector

PARAMETERS = "parameters"
"""Name of the channel of the parameters."""

STATISTICS = "statistics"
"""Name of the channel of the running statistics."""


@dataclass(frozen=True)
class Part:
    """A piece of a channel that is sent or left out as a whole.

    Attributes:
        channel: name of the channel.
        group: index of the layer group; -1 for the running statistics.
        piece: its place in the channel's vector.
    """

    channel: str
    group: int
    piece: slice

    @property
    def size(self) -> int:
        """Number of values."""
        return int(self.piece.stop - self.piece.start)


@dataclass(frozen=True)
class PartTable:
    """All parts that can travel, numbered: the parameters by group, the statistics, the further channels by group.

    Attributes:
        layout: layout of the parameters, and of every further channel.
        statistics: whether the running statistics travel.
        channels: names of the method's further channels.
    """

    layout: ParameterLayout
    statistics: bool
    channels: tuple[str, ...] = ()

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All parts, in the order in which they lie in a message; a part's number is its index here."""
        groups = list(enumerate(self.layout.slices))
        parts = [Part(PARAMETERS, group, piece) for group, piece in groups]
        if self.statistics and self.layout.statistics_size:
            parts.append(Part(STATISTICS, -1, slice(0, self.layout.statistics_size)))
        parts += [Part(channel, group, piece) for channel in self.channels for group, piece in groups]
        return tuple(parts)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """For each part, its number of values."""
        return tuple(part.size for part in self.parts)

    def uploaded(self, groups: Iterable[int]) -> tuple[int, ...]:
        """Numbers of the parts that a client sends when it trains `groups`.

        These are the parts of the groups in every channel, and the running statistics.
        """
        active = {*groups, -1}
        return tuple(index for index, part in enumerate(self.parts) if part.group in active)

    def values(self, parts: Iterable[int]) -> int:
        """Number of values in `parts`."""
        return sum(self.sizes[part] for part in parts)

    def nbytes(self, parts: Iterable[int]) -> int:
        """Bytes of `parts`, uncompressed."""
        return BYTES_PER_VALUE * self.values(parts)

    def segments(self, parts: Sequence[int], within: Sequence[int]) -> list[tuple[Part, slice]]:
        """For each of `parts`, the part and its place in a message that consists of the parts `within`."""
        starts: dict[int, int] = {}
        position = 0
        for part in within:
            starts[part] = position
            position += self.sizes[part]
        return [(self.parts[part], slice(starts[part], starts[part] + self.sizes[part])) for part in parts]

    def pieces(self, parts: Iterable[int]) -> list[tuple[str, slice]]:
        """The fewest (channel, place in its vector) that `parts` consist of, in their order."""
        pieces: list[tuple[str, slice]] = []
        for part in (self.parts[index] for index in parts):
            if pieces and pieces[-1][0] == part.channel and pieces[-1][1].stop == part.piece.start:
                pieces[-1] = (part.channel, slice(pieces[-1][1].start, part.piece.stop))
            else:
                pieces.append((part.channel, part.piece))
        return pieces

    def gather(self, vectors: Mapping[str, Vector], parts: Sequence[int], memory: Vector | None = None) -> Vector:
        """A message: the values of `parts`, one after the other.

        Args:
            vectors: {channel: float32 vector}.
            parts: numbers of the parts.
            memory: float32, at least as long as the message, for a copy; None: a copy takes new memory.

        Returns:
            float32; a view into a vector where the parts lie there as one piece, else a copy.
        """
        arrays = [vectors[channel][piece] for channel, piece in self.pieces(parts)]
        if len(arrays) == 1:
            return arrays[0]
        if memory is None:
            memory = np.empty(self.values(parts), np.float32)
        return np.concatenate([*arrays, np.empty(0, np.float32)], out=memory[: self.values(parts)])

    def scatter(self, message: Vector, vectors: Mapping[str, Vector], parts: Sequence[int]) -> None:
        """Write a message in the order of `gather` into the vectors' places of `parts`."""
        start = 0
        for channel, piece in self.pieces(parts):
            stop = start + piece.stop - piece.start
            vectors[channel][piece] = message[start:stop]
            start = stop

    def tensors(self, message: Vector, parts: Sequence[int]) -> dict[str, Vector]:
        """The tensors in a message, by name, in their logical shapes.

        Args:
            message: float32, the values of `parts`, one after the other.
            parts: numbers of the parts.

        Returns:
            Parameters and running statistics under their own names, those of a further channel as CHANNEL/NAME.
        """
        vectors = self.zeros()
        self.scatter(message, vectors, parts)
        tensors: dict[str, Vector] = {}
        for part in (self.parts[index] for index in parts):
            if part.channel == STATISTICS:
                slots = self.layout.statistics
            else:
                slots = tuple(slot for slot in self.layout.slots if slot.group == part.group)
            prefix = "" if part.channel in (PARAMETERS, STATISTICS) else f"{part.channel}/"
            tensors |= {f"{prefix}{slot.name}": slot.view(vectors[part.channel]) for slot in slots}
        return tensors

    def zeros(self) -> dict[str, Vector]:
        """{channel: float32 vector of zeros}, for parameters, running statistics and further channels."""
        layout = self.layout
        return {
            PARAMETERS: np.zeros(layout.size, np.float32),
            STATISTICS: np.zeros(layout.statistics_size, np.float32),
            **{channel: np.zeros(layout.size, np.float32) for channel in self.channels},
        }
