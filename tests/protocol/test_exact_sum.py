"""Exact sums: the same bits however the terms are grouped and ordered, by NumPy and by the loop that numba compiles."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.protocol import exact_sum
from fedbench.protocol.exact_sum import LARGEST_UPDATE, SCALE, accumulate, decode, retract, summable

SIZE = 40_000


@pytest.fixture(autouse=True, params=["NumPy", "numba"])
def way_to_add(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Short vectors are added by NumPy; here by numba's loop, too."""
    way: str = request.param
    if way == "numba":
        pytest.importorskip("numba", reason="needs numba, which the extra fast-sums installs")
        monkeypatch.setattr(exact_sum, "_LONG", 0)
    return way


@pytest.fixture
def updates() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.normal(size=(12, SIZE)) * 10.0 ** rng.integers(-9, 3, size=(12, SIZE))).astype(np.float32)


def summed(updates: np.ndarray, weights: list[float], order: list[int]) -> np.ndarray:
    total = np.zeros(updates.shape[1], np.int64)
    zero = np.zeros(updates.shape[1], np.float32)
    for index in order:
        assert accumulate(total, updates[index], zero, weights[index])
    return total


def test_any_grouping_and_any_order_give_the_same_bits(updates: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    weights = [float(weight) for weight in rng.dirichlet(np.ones(12))]
    straight = summed(updates, weights, list(range(12)))
    for _ in range(5):
        order = [int(index) for index in rng.permutation(12)]
        cut = int(rng.integers(1, 11))
        parts = summed(updates, weights, order[:cut]) + summed(updates, weights, order[cut:])
        np.testing.assert_array_equal(parts, straight)


def test_the_sum_is_within_half_a_unit_per_client_of_the_true_one(updates: np.ndarray) -> None:
    weights = [1 / 16] * 12
    total = summed(updates, weights, list(range(12)))
    for position in range(0, SIZE, 997):
        true = sum(Fraction(float(update)) for update in updates[:, position]) / 16
        assert abs(Fraction(int(total[position])) / 2**40 - true) <= 12 * Fraction(1, 2**41)


def test_one_client_with_weight_one_is_given_back_bit_for_bit(updates: np.ndarray) -> None:
    reference = np.random.default_rng(3).normal(size=SIZE).astype(np.float32)
    values = (reference + updates[0]).astype(np.float32)
    total = np.zeros(SIZE, np.int64)
    assert accumulate(total, values, reference, 1.0)
    back = (reference.astype(np.float64) + decode(total)).astype(np.float32)
    large = np.abs(values) >= 2.0**-16
    np.testing.assert_array_equal(back[large], values[large])
    np.testing.assert_allclose(back, values, rtol=0, atol=2.0**-40)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2 * LARGEST_UPDATE, -2 * LARGEST_UPDATE])
@pytest.mark.parametrize("position", [0, SIZE // 2, SIZE - 1])
def test_what_cannot_be_summed_leaves_the_total_alone(updates: np.ndarray, bad: float, position: int) -> None:
    total = summed(updates, [0.5] * 12, [0, 1])
    before = total.copy()
    updates[2, position] = bad
    assert not accumulate(total, updates[2], np.zeros(SIZE, np.float32), 0.5)
    np.testing.assert_array_equal(total, before)


def test_the_largest_updates_do_not_overflow() -> None:
    values = np.full(3, LARGEST_UPDATE, np.float32)
    total = np.zeros(3, np.int64)
    for _ in range(8):
        assert accumulate(total, values, np.zeros(3, np.float32), 1 / 8)
    np.testing.assert_array_equal(decode(total), LARGEST_UPDATE)
    assert LARGEST_UPDATE * SCALE < 2**62


def test_a_single_large_update_changes_nothing_for_the_others(updates: np.ndarray) -> None:
    zero = np.zeros(SIZE, np.float32)
    updates[0, :4] = np.array([0.5, 1.5, -0.5, -1.5], np.float32) * 2.0**-40  # ties go to the even neighbour
    alone, beside = np.zeros(SIZE, np.int64), np.zeros(SIZE, np.int64)
    assert accumulate(alone, updates[0], zero, 1.0)
    updates[0, -1] = LARGEST_UPDATE  # too large for the fast way to round
    assert accumulate(beside, updates[0], zero, 1.0)
    assert alone[:4].tolist() == [0, 2, 0, -2]
    np.testing.assert_array_equal(beside[:-1], alone[:-1])


@pytest.mark.parametrize("weight", [0.0, 2.0**-30, 1 / 3, 1.0])
def test_updates_of_all_magnitudes_are_rounded_once(weight: float) -> None:
    factor = weight * SCALE
    sizes = np.float32(1.1) * np.exp2(np.arange(-60, 21), dtype=np.float32)
    for value in [*sizes[sizes <= LARGEST_UPDATE], *-sizes[sizes <= LARGEST_UPDATE]]:
        total = np.zeros(1, np.int64)
        assert accumulate(total, np.array([value]), np.zeros(1, np.float32), weight)
        assert total[0] == round(float(value) * factor)


@pytest.mark.parametrize("weight", [2.0**-30, 0.3, 1.0])
def test_pytorch_computes_the_same_bits_from_the_whole_vectors(updates: np.ndarray, weight: float) -> None:
    reference = np.random.default_rng(4).normal(size=SIZE).astype(np.float32)
    total = np.zeros(SIZE, np.int64)
    assert accumulate(total, updates[0], reference, weight)
    differences = torch.from_numpy(updates[0]).double() - torch.from_numpy(reference).double()
    np.testing.assert_array_equal(total, (differences * (weight * SCALE)).round().to(torch.int64).numpy())


@pytest.mark.parametrize("weight", [0.0, 2.0**-45, 0.3, 1.0])
@pytest.mark.parametrize("limit", [LARGEST_UPDATE, 1.0, 1.0 / 3.0])
def test_the_limit_is_that_of_float32_updates(weight: float, limit: float) -> None:
    edge = np.float32(limit)
    for value in (np.nextafter(edge, np.float32(0)), edge, np.nextafter(edge, np.float32(np.inf))):
        total, zero = np.zeros(1, np.int64), np.zeros(1, np.float32)
        accepted = accumulate(total, np.array([-value]), zero, weight, limit)
        assert accepted == bool(np.abs(np.array([value])).max() <= limit)


def test_what_was_added_can_be_taken_back(updates: np.ndarray) -> None:
    total = summed(updates, [0.5] * 12, [0, 1])
    before, zero = total.copy(), np.zeros(SIZE, np.float32)
    assert accumulate(total, updates[2], zero, 1 / 3)
    retract(total, updates[2], zero, 1 / 3)
    np.testing.assert_array_equal(total, before)


TIES = st.integers(-9, 9).map(lambda halves: halves * 2.0**-41)
EDGES = st.sampled_from([0.0, -0.0, 1.0, 2.0**10, LARGEST_UPDATE, -LARGEST_UPDATE, math.inf, -math.inf, math.nan])
NUMBERS = st.floats(width=32) | st.floats(-8, 8, width=32) | st.floats(-(2.0**-126), 2.0**-126, width=32) | TIES | EDGES


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    odd=st.lists(st.tuples(st.integers(0, 1099), NUMBERS, NUMBERS), max_size=6),
    weight=st.sampled_from([0.0, 2.0**-45, 1e-12, 0.1, 1 / 3, 1.0]) | st.floats(0, 1),
    limit=st.sampled_from([LARGEST_UPDATE, 1.0, 1 / 3]),
)
def test_any_values_are_rounded_as_python_rounds_them_or_refused(
    odd: list[tuple[int, float, float]], weight: float, limit: float
) -> None:
    values, reference = np.random.default_rng(5).uniform(-0.1, 0.1, (2, 1100)).astype(np.float32)
    for position, value, start in odd:
        values[position], reference[position] = value, start
    total, before = np.arange(1100), np.arange(1100)
    accepted = accumulate(total, values, reference, weight, limit)
    with np.errstate(all="ignore"):
        assert accepted == bool((np.abs(values - reference) <= limit).all())
    factor = weight * SCALE
    terms = (
        [round((x - r) * factor) for x, r in zip(values.tolist(), reference.tolist(), strict=True)] if accepted else 0
    )
    np.testing.assert_array_equal(total - before, terms)


def test_long_vectors_are_added_in_one_pass_where_numba_is_installed(way_to_add: str) -> None:
    total, ones = np.zeros((1 << 20) + 5, np.int64), np.ones((1 << 20) + 5, np.float32)
    zeros = np.zeros_like(ones)
    added = exact_sum._fused(total, ones, zeros, SCALE, LARGEST_UPDATE)
    assert added == (0 if exact_sum._compiled_loops() is None else len(total))
    apart = np.lib.stride_tricks.as_strided(ones, (len(total),), (0,))
    assert exact_sum._fused(total, apart, zeros, SCALE, LARGEST_UPDATE) == 0
    if way_to_add == "NumPy":
        assert exact_sum._fused(total[:SIZE], ones[:SIZE], zeros[:SIZE], SCALE, LARGEST_UPDATE) == 0


def test_without_numba_long_vectors_are_added_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("fedbench.protocol.fused_sum", raising=False)
    monkeypatch.setitem(sys.modules, "fedbench.protocol.fused_sum", None)
    exact_sum._compiled_loops.cache_clear()
    try:
        total, ones = np.zeros((1 << 20) + 5, np.int64), np.ones((1 << 20) + 5, np.float32)
        assert exact_sum._compiled_loops() is None
        assert accumulate(total, ones, np.zeros_like(ones), 0.5)
    finally:
        exact_sum._compiled_loops.cache_clear()
    np.testing.assert_array_equal(total, 2**39)


def test_where_numba_can_keep_nothing_the_loop_is_compiled_anew(way_to_add: str) -> None:
    if way_to_add == "NumPy":
        pytest.skip("NumPy compiles nothing")
    import numba

    from fedbench.protocol.fused_sum import _compiled

    names: dict[str, object] = {}
    exec("def of_no_file(number):\n    return number + 1", names)
    assert _compiled(names["of_no_file"], numba.int64(numba.int64))(1) == 2  # type: ignore[type-var, operator]


@pytest.mark.parametrize("odd", [0.0, LARGEST_UPDATE, 2 * LARGEST_UPDATE, math.inf, math.nan])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_update_by_itself_is_summable_where_its_difference_from_zeros_is(odd: float, sign: int) -> None:
    values = np.full(SIZE, sign, np.float32)
    values[-2] = sign * odd
    assert summable(values, None) == summable(values, np.zeros_like(values)) == (abs(odd) <= LARGEST_UPDATE)
    assert summable(values[:0], None)
