"""Compression: the bytes that are counted, and what the server reads."""

import math
import subprocess
import sys

import numpy as np
import pytest

from fedbench.components.catalogue import BUILTIN, make_component
from fedbench.errors import ConfigError
from fedbench.protocol.compression import Compression, Half, Int8, TopK, Uncompressed

SIZES = (40_000, 1, 300, 7)
TOTAL = sum(SIZES)
PARTS = [slice(0, 40_000), slice(40_000, 40_001), slice(40_001, 40_301), slice(40_301, 40_308)]
ALL = [Uncompressed(), Half(), Int8(), TopK(fraction=0.1)]


def update(seed: int = 0) -> np.ndarray:
    """float32, each part of another magnitude."""
    values = np.random.default_rng(seed).normal(size=TOTAL)
    for part, magnitude in zip(PARTS, (1e-3, 5.0, 1e2, 1e-6), strict=True):
        values[part] *= magnitude
    return values.astype(np.float32)


def read(compression: Compression, values: np.ndarray, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> np.ndarray:
    return compression.roundtrip(values, sizes, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("compression", "nbytes"),
    [
        (Uncompressed(), 4 * 40_308),
        (Half(), 2 * 40_308),
        (Int8(), 40_308 + 4 * 4),
        (TopK(fraction=0.1), 8 * 4_000 + 4 * 1 + 8 * 30 + 8 * 1),
        (TopK(fraction=1e-9), 8 * 1 + 4 * 1 + 8 * 1 + 8 * 1),
        (TopK(fraction=0.4), 8 * 16_000 + 4 * 1 + 8 * 120 + 8 * 3),
        (TopK(fraction=0.5), 4 * 40_308),
        (TopK(fraction=1), 4 * 40_308),
    ],
    ids=str,
)
def test_bytes_as_sent(compression: Compression, nbytes: int) -> None:
    assert compression.nbytes(SIZES) == nbytes
    assert compression.nbytes(()) == 0


@pytest.mark.parametrize("compression", ALL, ids=lambda compression: compression.name)
def test_what_is_read_has_the_form_of_what_was_sent(compression: Compression) -> None:
    sent = update()
    received = read(compression, sent)
    assert (received.dtype, received.shape) == (np.float32, sent.shape)
    assert sent.tobytes() == update().tobytes()
    assert read(compression, sent).tobytes() == received.tobytes()
    assert (received.tobytes() == sent.tobytes()) == compression.lossless
    np.testing.assert_array_equal(read(compression, np.zeros(TOTAL, np.float32)), 0)
    assert len(read(compression, np.empty(0, np.float32), ())) == 0
    assert len(read(compression, np.empty(0, np.float32), (0, 0))) == 0


@pytest.mark.parametrize("compression", [Half(), Int8(), TopK(fraction=0.1)], ids=lambda compression: compression.name)
def test_parts_are_compressed_one_by_one(compression: Compression) -> None:
    rng, values = np.random.default_rng(4), update()
    alone = [compression.roundtrip(values[part], (part.stop - part.start,), rng) for part in PARTS]
    assert np.concatenate(alone).tobytes() == read(compression, values, seed=4).tobytes()


def test_half_precision_rounds_to_nearest() -> None:
    values = update()
    received = read(Half(), values)
    large = np.abs(values) >= 2.0**-14
    assert (np.abs(received - values)[large] <= 2.0**-11 * np.abs(values)[large]).all()
    assert (np.abs(received - values)[~large] <= 2.0**-25).all()


def test_half_precision_saturates() -> None:
    values = np.array([7e4, -7e4, 65504, 65519.9, 3e38, 2.0**-25, 1.5 * 2.0**-25], np.float32)
    expected = [65504, -65504, 65504, 65504, 65504, 0, 2.0**-24]
    np.testing.assert_array_equal(read(Half(), values, (len(values),)), expected)


def test_int8_is_unbiased_with_the_stated_variance() -> None:
    values = np.random.default_rng(5).normal(size=2_000).astype(np.float32)
    scale = float(np.abs(values).max()) / 127
    rng, draws = np.random.default_rng(6), 2_000
    errors = np.array([Int8().roundtrip(values, (len(values),), rng) for _ in range(draws)], np.float64) - values
    share = np.abs(values) / scale % 1
    deviation = scale * np.sqrt(share * (1 - share))
    standardised = errors.mean(axis=0) * math.sqrt(draws) / np.maximum(deviation, 1e-3 * scale)
    # 2,000 means of 2,000 draws: their spread is a standard normal's, and none is an outlier.
    assert abs(standardised.mean()) < 4 / math.sqrt(len(values))
    assert standardised.std() == pytest.approx(1, abs=0.1)
    assert np.abs(standardised).max() < 5
    np.testing.assert_allclose(errors.std(axis=0), deviation, rtol=0, atol=0.05 * scale)
    assert errors.std(axis=0).max() <= 1.001 * scale / 2


def test_int8_reads_multiples_of_the_parts_scale_next_to_the_value() -> None:
    values = update()
    received = read(Int8(), values)
    for part in PARTS:
        largest = np.abs(values[part]).max()
        scale = np.float64(largest) / 127
        levels = received[part] / scale
        np.testing.assert_allclose(levels, np.rint(levels), rtol=0, atol=1e-4)
        assert np.abs(np.rint(levels)).max() == 127
        assert (np.abs(received[part] - values[part]) < 1.0001 * scale).all()


class Constant(np.random.Generator):
    """Draws one number only: 0 rounds up whatever lies between two levels, the largest below 1 rounds down."""

    def __init__(self, drawn: float) -> None:
        super().__init__(np.random.PCG64(0))
        self._drawn = drawn

    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.full(size, self._drawn)


def test_int8_never_leaves_its_127_levels() -> None:
    up, down = Constant(0.0), Constant(np.nextafter(1.0, 0.0))
    for largest in np.random.default_rng(7).uniform(1, 2, 200).astype(np.float32):
        for value, rng in [(largest, up), (-largest, down)]:
            received = Int8().roundtrip(np.array([value, 0], np.float32), (2,), rng)
            np.testing.assert_allclose(received, [value, 0], rtol=2.0**-22)


@pytest.mark.parametrize("largest", [1e-45, 1e-44, 1e-38, 3e38])
def test_int8_at_the_ends_of_the_range(largest: float) -> None:
    values = np.array([largest, -largest, 0], np.float32)
    received = read(Int8(), values, (3,))
    np.testing.assert_allclose(received, values, rtol=1e-5, atol=1.5e-43)
    assert received[0] > 0 > received[1]


def test_int8_draws_differ_with_the_generator() -> None:
    assert read(Int8(), update(), seed=0).tobytes() != read(Int8(), update(), seed=1).tobytes()


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.3, 0.49])
def test_topk_sends_the_largest_of_each_part(fraction: float) -> None:
    values = update()
    received = read(TopK(fraction=fraction), values)
    for part, size in zip(PARTS, SIZES, strict=True):
        count = TopK(fraction=fraction).sent(size)
        expected = np.zeros(size, np.float32)
        largest = np.argsort(-np.abs(values[part]), kind="stable")[:count]
        expected[largest] = values[part][largest]
        np.testing.assert_array_equal(received[part], expected)


def test_topk_takes_the_earlier_of_equals() -> None:
    values = np.array([1, -2, 2, 0, -2, 3, 2, 1, 0, 0], np.float32)
    for count, kept in [(1, [5]), (2, [5, 1]), (3, [5, 1, 2]), (4, [5, 1, 2, 4])]:
        received = read(TopK(fraction=count / 10), values, (10,))
        assert sorted(np.flatnonzero(received)) == sorted(kept)
    assert np.flatnonzero(read(TopK(fraction=0.3), np.ones(10, np.float32), (10,))).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("fraction", "size", "sent"),
    [(0.07, 100, 7), (0.001, 10, 1), (0.1, 11, 2), (0.4, 1, 1), (0.4, 2, 2), (0.4, 3, 3), (0.3, 10, 3), (0.5, 9, 9)],
)
def test_how_many_values_topk_sends(fraction: float, size: int, sent: int) -> None:
    assert TopK(fraction=fraction).sent(size) == sent


@pytest.mark.parametrize("fraction", [0.5, 0.9, 1.0])
def test_topk_of_all_is_none_bit_for_bit(fraction: float) -> None:
    values = update()
    values[::3] = -0.0
    assert read(TopK(fraction=fraction), values).tobytes() == read(Uncompressed(), values).tobytes()
    assert TopK(fraction=fraction).nbytes(SIZES) == Uncompressed().nbytes(SIZES)


def test_with_error_feedback_topk_loses_nothing() -> None:
    compression, rng = TopK(fraction=0.05), np.random.default_rng(8)
    assert compression.keeps_residual
    # Small integers, so that every sum is exact.
    updates = rng.integers(-50, 51, size=(40, TOTAL)).astype(np.float32)
    residual, received = np.zeros(TOTAL, np.float32), np.zeros(TOTAL, np.float32)
    for one in updates:
        wanted = one + residual
        sent = compression.roundtrip(wanted, SIZES, rng)
        residual = wanted - sent
        received += sent
    np.testing.assert_array_equal(received + residual, updates.sum(axis=0))
    assert (received != 0).mean() > 0.8


def test_with_error_feedback_every_value_is_sent_in_turn() -> None:
    compression, steady = TopK(fraction=0.25), np.array([4, 3, 2, 1], np.float32)
    residual, received = np.zeros(4, np.float32), np.zeros(4, np.float32)
    for _ in range(100):
        sent = compression.roundtrip(steady + residual, (4,), np.random.default_rng(0))
        residual = steady + residual - sent
        received += sent
    np.testing.assert_allclose(received / 100, steady, atol=0.15)


@pytest.mark.parametrize("name", list(BUILTIN["compression"]))
def test_every_built_in_is_found_by_its_name(name: str) -> None:
    found = make_component("compression", Compression, name)
    assert isinstance(found, Compression)
    assert found.name == name
    assert found.keeps_residual == (name == "topk")


@pytest.mark.parametrize("fraction", [0.0, 1.1, float("nan")])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"^update\.compression\.fraction"):
        make_component("compression", Compression, {"name": "topk", "fraction": fraction})


def test_it_needs_no_torch() -> None:
    code = "import sys, fedbench.protocol.compression, fedbench.protocol.privacy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
