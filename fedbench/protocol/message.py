"""What a transfer consists of: layer groups of the parameters, running statistics, and a method's further channels.

A *channel* is a vector that travels: the parameters, the running statistics (where they are aggregated), and what a
method sends beside them (SCAFFOLD's control variates), laid out as the parameters are. A *part* is the piece of a
channel that is sent or left out as a whole: one layer group, or all statistics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedbench.protocol.layout import BYTES_PER_VALUE, ParameterLayout, Vector

PARAMETERS = "parameters"
STATISTICS = "statistics"


@dataclass(frozen=True)
class Part:
    """A piece of a channel.

    Attributes:
        channel: its name.
        group: the layer group; -1 for the statistics.
        piece: where it lies in the channel's vector.
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
    """All parts of a model, numbered: its parameters by group, the statistics, the further channels by group.

    Attributes:
        layout: of the parameters, and of every further channel.
        statistics: whether the running statistics travel.
        channels: the names of further channels.
    """

    layout: ParameterLayout
    statistics: bool
    channels: tuple[str, ...] = ()

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """In the order in which they lie in a message."""
        groups = list(enumerate(self.layout.slices))
        found = [Part(PARAMETERS, group, piece) for group, piece in groups]
        if self.statistics and self.layout.statistics_size:
            found.append(Part(STATISTICS, -1, slice(0, self.layout.statistics_size)))
        found += [Part(channel, group, piece) for channel in self.channels for group, piece in groups]
        return tuple(found)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Values of each part."""
        return tuple(part.size for part in self.parts)

    def uploaded(self, groups: Iterable[int]) -> tuple[int, ...]:
        """The parts that a client sends when `groups` are active: theirs in every channel, and the statistics."""
        active = {*groups, -1}
        return tuple(index for index, part in enumerate(self.parts) if part.group in active)

    def values(self, parts: Iterable[int]) -> int:
        """Number of values in some parts."""
        return sum(self.sizes[part] for part in parts)

    def nbytes(self, parts: Iterable[int]) -> int:
        """Bytes of some parts, uncompressed."""
        return BYTES_PER_VALUE * self.values(parts)

    def segments(self, parts: Sequence[int], within: Sequence[int]) -> list[tuple[Part, slice]]:
        """Where each of `parts` lies in a message that consists of `within`."""
        starts: dict[int, int] = {}
        position = 0
        for part in within:
            starts[part] = position
            position += self.sizes[part]
        return [(self.parts[part], slice(starts[part], starts[part] + self.sizes[part])) for part in parts]

    def gather(self, vectors: Mapping[str, Vector], parts: Sequence[int]) -> Vector:
        """A message: the values of some parts, one after the other; a view where they are one piece."""
        pieces: list[tuple[str, slice]] = []
        for part in (self.parts[index] for index in parts):
            if pieces and pieces[-1][0] == part.channel and pieces[-1][1].stop == part.piece.start:
                pieces[-1] = (part.channel, slice(pieces[-1][1].start, part.piece.stop))
            else:
                pieces.append((part.channel, part.piece))
        found = [vectors[channel][piece] for channel, piece in pieces]
        return found[0] if len(found) == 1 else np.concatenate([*found, np.empty(0, np.float32)])

    def scatter(self, message: Vector, vectors: Mapping[str, Vector], parts: Sequence[int]) -> None:
        """Write what `gather` gave into the vectors."""
        for part, segment in self.segments(parts, parts):
            vectors[part.channel][part.piece] = message[segment]

    def zeros(self) -> dict[str, Vector]:
        """A vector of zeros for every channel that there may be."""
        layout = self.layout
        return {
            PARAMETERS: np.zeros(layout.size, np.float32),
            STATISTICS: np.zeros(layout.statistics_size, np.float32),
            **{channel: np.zeros(layout.size, np.float32) for channel in self.channels},
        }
