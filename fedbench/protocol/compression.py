"""Compression of a client's update: how many bytes are sent, and which values the server reads.

The *update* is what a participant sends minus what it started from. Its *parts* (one layer group of the parameters or
of another channel, or the running statistics) lie in it one after the other and are compressed one by one, because
their magnitudes differ. Both ends know the number of values of each part, so it is not sent.

To add a compression, write a class like those below and name it by its import path.
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
"""The largest finite value of half precision, 65504."""

_CHUNK = 1 << 15
"""Number of values processed at a time, so that the float64 intermediates stay in the cache."""


class Compression(Component):
    """Base of all compressions of updates on their way to the server.

    Attributes:
        lossless: whether the server reads exactly the bits of the update.
        keeps_residual: whether error feedback is used: the client keeps what was not sent and adds it to its next
            update. The caller does that: it passes u = update + residual to `roundtrip` and keeps u minus the result.
    """

    lossless: ClassVar[bool] = False
    keeps_residual: ClassVar[bool] = False

    @abstractmethod
    def nbytes(self, sizes: Sequence[int]) -> int:
        """Bytes of a compressed message.

        Args:
            sizes: for each part of the message, its number of values.
        """

    @abstractmethod
    def roundtrip(self, update: Vector, sizes: Sequence[int], rng: np.random.Generator) -> Vector:
        """Compress and decompress an update; the result is what the server reads.

        Args:
            update: float32 [sum(sizes)], finite; not changed.
            sizes: for each part of the update, its number of values.
            rng: draws stochastic roundings.

        Returns:
            float32 [sum(sizes)], perhaps `update` itself.
        """


class Uncompressed(Compression):
    """Sends every value as it is: 4 bytes a value."""

    lossless: ClassVar[bool] = True
    name: str = "none"

    def nbytes(self, sizes: Sequence[int]) -> int:
        """Bytes of n values: 4 n."""
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
        """Bytes of n values: 2 n."""
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
        """Bytes of n values in p parts: n + 4 p."""
        return sum(sizes) + BYTES_PER_VALUE * len(sizes)

    def roundtrip(self, update: Vector, sizes: Sequence[int], rng: np.random.Generator) -> Vector:
        received = np.zeros_like(update)
        for part in _pieces(sizes):
            scale = _scale(update[part])  # max |u| / 127
            for start in range(part.start, part.stop if scale else part.start, _CHUNK):
                piece = slice(start, min(start + _CHUNK, part.stop))
                exact = update[piece] / scale
                level = np.floor(exact)
                level += rng.random(len(level)) < exact - level  # q = floor(u / scale) + Bernoulli(rest)
                received[piece] = level * scale  # the server reads scale * q
        return received


class TopK(Compression):
    """Sends the values of largest magnitude in each part with their positions: 8 bytes each. Keeps the rest.

    Of a part of `size` values, k = ceil(fraction * size) are sent, at least one, as float32 with uint32 positions; of
    equal magnitudes the earlier ones are sent. A part for which that would take no fewer bytes than all its values
    (2 k >= size) is sent whole, 4 bytes a value without positions: with a fraction of 1/2 or more nothing is left out,
    and bytes and bits are those of `none`.

    Values that are left out are sent later (error feedback). With the residual m_t of a client, zero at first, and its
    update g_t, top_k(m_t + g_t) is sent and m_{t+1} = m_t + g_t - top_k(m_t + g_t) is kept: F. Seide, H. Fu, J. Droppo,
    G. Li, D. Yu, "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of Speech
    DNNs", Interspeech 2014; S. U. Stich, J.-B. Cordonnier, M. Jaggi, "Sparsified SGD with Memory", NeurIPS 2018 (arXiv
    1809.07599), Algorithm 1.

    Attributes:
        fraction: share of each part's values that is sent.
    """

    keeps_residual: ClassVar[bool] = True
    name: str = "topk"
    fraction: float = Field(default=0.01, gt=0, le=1)

    def sent(self, size: int) -> int:
        """Number of values that are sent of a part of `size` values: k, or all of them."""
        # Computed on the decimal fraction as written: in binary 0.07 * 100 is just above 7.
        count = math.ceil(Fraction(str(self.fraction)) * size)
        return size if 2 * count >= size else count

    def nbytes(self, sizes: Sequence[int]) -> int:
        """Bytes: for each part 8 k, or 4 size if that is no more."""
        return sum(min(2 * self.sent(size), size) * BYTES_PER_VALUE for size in sizes)

    def roundtrip(self, update: Vector, sizes: Sequence[int], rng: np.random.Generator) -> Vector:
        received = np.zeros_like(update)
        for part in _pieces(sizes):
            values = update[part]
            largest = _largest(values, self.sent(len(values)))
            received[part][largest] = values[largest]
        return received


def _pieces(sizes: Sequence[int]) -> Iterator[slice]:
    """The slice of each part in an update whose parts have these sizes."""
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size


def _scale(values: Vector) -> np.float64:
    """max |u| / 127 as float32, rounded up so that |u / scale| <= 127; zero where all values are zero."""
    largest = np.float64(max(values.max(), -values.min())) if len(values) else np.float64(0)
    scale = np.float32(largest / 127)
    if np.float64(scale) * 127 < largest:
        scale = np.nextafter(scale, np.float32(np.inf))
    return np.float64(scale)


def _largest(values: Vector, count: int) -> "slice | np.typing.NDArray[np.intp]":
    """Positions of the `count` values of largest magnitude; of equal magnitudes the first ones."""
    if count == len(values):
        return slice(None)
    magnitude = np.abs(values)
    threshold = np.partition(magnitude, len(values) - count)[len(values) - count]
    above = np.flatnonzero(magnitude > threshold)
    equal = np.flatnonzero(magnitude == threshold)
    return np.concatenate([above, equal[: count - len(above)]])
