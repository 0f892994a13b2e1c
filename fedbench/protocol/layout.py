"""The layout of a model's parameters in one flat float32 vector, ordered by layer group.

A layer group is a contiguous slice, so a partial update is a slice, its bytes are the slice's bytes, and a
message is an array. Four-dimensional weights (convolutions) lie in channels-last order: [O, I, H, W] is stored
as [O, H, W, I], which is what a channels-last convolution reads without a copy.

Running statistics of normalisation layers lie in a second, small vector. This module uses NumPy alone, so that the
server, which needs no network, needs no PyTorch.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""A float32 array, usually one-dimensional."""

BYTES_PER_VALUE = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class TensorSlot:
    """The place of one named tensor in a flat vector.

    Attributes:
        name: name in `Module.named_parameters()` or `named_buffers()`.
        group: index of its layer group.
        offset: position of its first element in the vector.
        shape: logical shape of the tensor.
    """

    name: str
    group: int
    offset: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def stop(self) -> int:
        """Position after the last element in the vector."""
        return self.offset + self.size

    @property
    def channels_last(self) -> bool:
        """Whether the tensor is stored in channels-last order."""
        return len(self.shape) == 4

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the tensor as it is stored: [O, H, W, I] for a tensor [O, I, H, W], else the logical shape."""
        if not self.channels_last:
            return self.shape
        out_channels, in_channels, height, width = self.shape
        return (out_channels, height, width, in_channels)

    def view(self, vector: Vector) -> Vector:
        """The tensor in its logical shape, as a view into `vector`."""
        stored = vector[self.offset : self.stop].reshape(self.stored_shape)
        return stored.transpose(0, 3, 1, 2) if self.channels_last else stored


@dataclass(frozen=True)
class ParameterLayout:
    """Names, shapes and layer groups of a model, and where each lies in the flat vectors.

    Attributes:
        group_names: names of the layer groups, shallow to deep.
        slots: places of the trainable parameters, group by group, without gaps.
        statistics: places of the floating-point running statistics in their own vector, without gaps;
            `TensorSlot.group` is the group of the normalisation layer that they belong to.
    """

    group_names: tuple[str, ...]
    slots: tuple[TensorSlot, ...]
    statistics: tuple[TensorSlot, ...] = ()

    @classmethod
    def build(
        cls,
        groups: Sequence[tuple[str, Mapping[str, tuple[int, ...]]]],
        statistics: Sequence[tuple[str, int, tuple[int, ...]]] = (),
    ) -> "ParameterLayout":
        """Lay tensors out in the order given.

        Args:
            groups: (group name, {parameter name: shape}) shallow to deep.
            statistics: (buffer name, group index, shape).
        """
        slots: list[TensorSlot] = []
        offset = 0
        for index, (_, shapes) in enumerate(groups):
            for name, shape in shapes.items():
                slots.append(TensorSlot(name, index, offset, tuple(shape)))
                offset = slots[-1].stop
        statistics_slots: list[TensorSlot] = []
        offset = 0
        for name, group, shape in statistics:
            statistics_slots.append(TensorSlot(name, group, offset, tuple(shape)))
            offset = statistics_slots[-1].stop
        return cls(tuple(name for name, _ in groups), tuple(slots), tuple(statistics_slots))

    @property
    def groups(self) -> int:
        """M, the number of layer groups."""
        return len(self.group_names)

    @cached_property
    def size(self) -> int:
        """P, the number of parameters."""
        return self.slots[-1].stop

    @cached_property
    def statistics_size(self) -> int:
        """S, the number of running statistics."""
        return self.statistics[-1].stop if self.statistics else 0

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """The slice of each layer group in the vector."""
        starts = [min(slot.offset for slot in self.slots if slot.group == g) for g in range(self.groups)]
        stops = [*starts[1:], self.size]
        return tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))

    @property
    def all_groups(self) -> tuple[int, ...]:
        """The indices of all layer groups, 0..M-1."""
        return tuple(range(self.groups))

    def group_size(self, group: int) -> int:
        """Number of parameters of one layer group."""
        piece = self.slices[group]
        return int(piece.stop - piece.start)

    def count(self, groups: Iterable[int]) -> int:
        """Number of parameters of several groups."""
        return sum(self.group_size(group) for group in groups)

    def ranges(self, groups: Iterable[int]) -> list[slice]:
        """The fewest contiguous slices that cover exactly `groups`, in vector order."""
        merged: list[slice] = []
        for group in sorted(set(groups)):
            piece = self.slices[group]
            if merged and merged[-1].stop == piece.start:
                merged[-1] = slice(merged[-1].start, piece.stop)
            else:
                merged.append(piece)
        return merged

    def gather(self, vector: Vector, groups: Iterable[int]) -> Vector:
        """The values of `groups` as one array: a view where they are contiguous, else a copy."""
        pieces = [vector[piece] for piece in self.ranges(groups)]
        return pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, vector[:0]])

    def scatter(self, values: Vector, vector: Vector, groups: Iterable[int]) -> None:
        """Write values in the order of `gather` into the groups' places in `vector`."""
        start = 0
        for piece in self.ranges(groups):
            length = piece.stop - piece.start
            vector[piece] = values[start : start + length]
            start += length

    def unflatten(self, vector: Vector) -> dict[str, Vector]:
        """{parameter name: array in its logical shape}, as views into `vector`."""
        return {slot.name: slot.view(vector) for slot in self.slots}

    def flatten(self, tensors: Mapping[str, npt.NDArray[np.floating]]) -> Vector:
        """A new vector from {parameter name: array in its logical shape}."""
        vector = np.empty(self.size, np.float32)
        for slot in self.slots:
            slot.view(vector)[...] = tensors[slot.name]
        return vector


def model_digest(vector: Vector, statistics: Vector) -> str:
    """SHA-256 over the parameters in layout order, then the running statistics, as little-endian float32."""
    digest = hashlib.sha256()
    for part in (vector, statistics):
        digest.update(np.ascontiguousarray(part, dtype="<f4").tobytes())
    return digest.hexdigest()
