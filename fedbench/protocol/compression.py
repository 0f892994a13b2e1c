"""What a client's update is turned into before it is sent, how many bytes that is, and what the server reads.

The *update* is what a participant sends less what it started from; its *parts* (one layer group of the parameters or
of another channel, or the running statistics) lie in it one after the other and are compressed one by one, because
their magnitudes differ. The numbers of values are known to both ends and are not sent.

A compression of one's own is a class like those below, named by its import path.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.components.base import Component
from fedbench.protocol.layout import BYTES_PER_VALUE, Vector

LARGEST_HALF = float(np.finfo(np.float16).max)
"""65504."""

_CHUNK = 1 << 15
"""Values handled at a time, so that the float64 intermediates stay in the cache."""


class Compression(Component):
    """How updates are compressed on their way to the server.

    Attributes:
        lossless: the server reads the very bits.
        keeps_residual: with error feedback: what was not sent is kept by the client and added to its next update.
            The caller does so: it passes update + residual, and keeps that less what `roundtrip` returns.
    """

    lossless: ClassVar[bool] = False
    keeps_residual: ClassVar[bool] = False

    @abstractmethod
    def nbytes(self, sizes: Sequence[int]) -> int:
        """Bytes of a message as sent.

        Args:
            sizes: numbers of values of its parts.
        """

    @abstractmethod
    def roundtrip(self, update: Vector, sizes: Sequence[int], rng: np.random.Generator) -> Vector:
        """What the server reads: the update, compressed and decompressed.

        Args:
            update: float32 [sum(sizes)], finite; not changed.
            sizes: numbers of values of its parts.
            rng: for what is drawn, if anything.

        Returns:
            float32 [sum(sizes)], perhaps `update` itself.
        """


class Uncompressed(Compression):
    """Sends every value as it is: 4 bytes a value."""

    lossless: ClassVar[bool] = True
    name: str = "none"

    def nbytes(self, sizes: Sequence[int]) -> int:
        """4 n."""
        return BYTES_PER_VALUE * sum(sizes)

    def roundtrip(self, update: Vector, sizes: Sequence[int], rng: np.random.Generator) -> Vector:
        return update


class Half(Compression):
    """Rounds every value to half precision (IEEE 754 binary16): 2 bytes a value.

    Rounding is to nearest, ties to even: 11 significant bits from 2**-14 up, steps of 2**-24 below, so that values of
    2**-25 = 3e-8 and less arrive as zero. Nothing is scaled. Values beyond +-65504 arrive as +-65504, not as infinity.
    """

    name: str = "fp16"

    def nbytes(self, sizes: Sequence[int]) -> int:
        """2 n."""
        return 2 * sum(sizes)

    def roundtrip(self, update: Vector, sizes: Sequence[int], rng: np.random.Generator) -> Vector:
        return np.clip(update, -LARGEST_HALF, LARGEST_HALF).astype(np.float16).astype(np.float32)


class Int8(Compression):
    """Stochastic rounding to 255 levels in each part: 1 byte a value and 4 a part.

    D. Alistarh, D. Grubic, J. Li, R. Tomioka, M. Vojnovic, "QSGD: Communication-Efficient SGD via Gradient Quantization
    and Encoding", NeurIPS 2017 (arXiv 1610.02132), with one bucket a part, scaled by its largest magnitude instead of
    its norm and without entropy coding: of a part u

        scale = max |u| / 127,        q = floor(u / scale) + Bernoulli(u / scale - floor(u / scale))

    are sent, `scale` as float32 rounded up (so that |q| <= 127), q as int8, and scale * q is read. It is unbiased,
    E[scale * q] = u up to the rounding of the product to float32, with variance at most scale^2 / 4. A part of zeros
    arrives as zeros.
    """

    name: str = "int8"

    def nbytes(self, sizes: Sequence[int]) -> int:
        """n + 4 for each part."""
        return sum(sizes) + BYTES_PER_VALUE * len(sizes)

    def roundtrip(self, update: Vector, sizes: Sequence[int], rng: np.random.Generator) -> Vector:
        received = np.zeros_like(update)
        for part in _pieces(sizes):
            scale = _scale(update[part])
            for start in range(part.start, part.stop if scale else part.start, _CHUNK):
                piece = slice(start, min(start + _CHUNK, part.stop))
                exact = update[piece] / scale
                level = np.floor(exact)
                level += rng.random(len(level)) < exact - level
                received[piece] = level * scale
        return received


class TopK(Compression):
    """Sends the values of largest magnitude in each part with their positions: 8 bytes each. Keeps the rest.

    Of a part of `size` values k = ceil(fraction * size) are sent, at least one thus, as float32 with uint32 positions;
    of equal magnitudes the earlier ones. A part for which that would take no fewer bytes than all its values (2 k >=
    size) is sent whole, 4 bytes a value without positions: with a fraction of 1/2 or more nothing is left out, and
    bytes and bits are those of `none`.

    What is left out is not lost but sent later (error feedback): F. Seide, H. Fu, J. Droppo, G. Li, D. Yu, "1-Bit
    Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of Speech DNNs", Interspeech
    2014; S. U. Stich, J.-B. Cordonnier, M. Jaggi, "Sparsified SGD with Memory", NeurIPS 2018 (arXiv 1809.07599),
    Algorithm 1.

    Attributes:
        fraction: of each part's values.
    """

    keeps_residual: ClassVar[bool] = True
    name: str = "topk"
    fraction: float = Field(default=0.01, gt=0, le=1)

    def sent(self, size: int) -> int:
        """How many of a part's values are sent."""
        # As written: in binary 0.07 * 100 is just above 7.
        count = math.ceil(Fraction(str(self.fraction)) * size)
        return size if 2 * count >= size else count

    def nbytes(self, sizes: Sequence[int]) -> int:
        """For each part 8 k, or 4 size if that is no more."""
        return sum(min(2 * self.sent(size), size) * BYTES_PER_VALUE for size in sizes)

    def roundtrip(self, update: Vector, sizes: Sequence[int], rng: np.random.Generator) -> Vector:
        received = np.zeros_like(update)
        for part in _pieces(sizes):
            values = update[part]
            kept = _largest(values, self.sent(len(values)))
            received[part][kept] = values[kept]
        return received


def _pieces(sizes: Sequence[int]) -> Iterator[slice]:
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size


def _scale(values: Vector) -> np.float64:
    """The smallest float32 s, or the next, such that 127 s is at least every magnitude; zero for zeros."""
    largest = np.float64(max(values.max(), -values.min())) if len(values) else np.float64(0)
    scale = np.float32(largest / 127)
    if np.float64(scale) * 127 < largest:
        scale = np.nextafter(scale, np.float32(np.inf))
    return np.float64(scale)


def _largest(values: Vector, count: int) -> "slice | np.typing.NDArray[np.intp]":
    """Where the `count` values of largest magnitude are; of equal ones the first."""
    if count == len(values):
        return slice(None)
    magnitude = np.abs(values)
    threshold = np.partition(magnitude, len(values) - count)[len(values) - count]
    above = np.flatnonzero(magnitude > threshold)
    equal = np.flatnonzero(magnitude == threshold)
    return np.concatenate([above, equal[: count - len(above)]])
