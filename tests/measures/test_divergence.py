"""How far updates point apart: by hand, against NumPy's own few lines, and exact whatever the size."""

import math

import numpy as np
import pytest

from fedbench.measures.divergence import PIECE, divergence, update_products, whole_divergence

ZERO = np.zeros(2, np.float32)


def of(updates: list[list[float]], weights: list[float] | None = None, reference: np.ndarray = ZERO):  # type: ignore[no-untyped-def]
    values = [(reference + np.array(update)).astype(np.float32) for update in updates]
    return divergence(3, tuple(range(len(updates))), update_products(values, reference, weights or [1] * len(updates)))


def test_two_orthogonal_updates_by_hand() -> None:
    """Updates (2, 0) and (0, 2): mean (1, 1), each at 45 degrees to it, and each at the squared distance 2 from it."""
    result = of([[2, 0], [0, 2]], reference=np.array([5, -1], np.float32))
    assert result.cosines == pytest.approx([math.sqrt(0.5)] * 2)
    assert result.discrepancy == pytest.approx((2 + 2) / 2 / 2)
    assert result.cancelled_share == pytest.approx(1 - math.sqrt(2) / 2)
    assert (result.mean_norm, result.client_norm) == pytest.approx((math.sqrt(2), 2))
    assert (result.group, result.clients) == (3, (0, 1))


def test_weights_count_in_the_mean_and_in_the_discrepancy() -> None:
    """Weights 3 and 1: mean (3, 0) of (4, 0) and (0, 0)."""
    result = of([[4, 0], [0, 0]], [0.75, 0.25])
    assert result.cosines[0] == pytest.approx(1)
    assert np.isnan(result.cosines[1])
    assert result.discrepancy == pytest.approx((0.75 * 1 + 0.25 * 9) / 2)


def test_equal_updates_do_not_diverge() -> None:
    result = of([[1, 2]] * 3)
    assert result.cosines == pytest.approx([1] * 3)
    assert (result.discrepancy, result.cancelled_share) == pytest.approx((0, 0), abs=1e-15)


def test_opposite_updates_cancel_wholly() -> None:
    result = of([[1, 2], [-1, -2]])
    assert np.isnan(result.cosines).all()
    assert result.cancelled_share == 1


def test_no_update_at_all_has_no_share() -> None:
    assert math.isnan(of([[0, 0], [0, 0]]).cancelled_share)


def test_large_groups_are_as_numpy_computes_them() -> None:
    draws = np.random.default_rng(0)
    size, weights = 2 * PIECE + 77, np.array([0.2, 0.5, 0.3])
    reference = draws.normal(size=size).astype(np.float32)
    values = [(reference + draws.normal(size=size)).astype(np.float32) for _ in weights]
    updates = np.array(values, np.float64) - reference
    mean = weights @ updates
    result = divergence(0, (0, 1, 2), update_products(values, reference, weights.tolist()))
    lengths = np.linalg.norm(updates, axis=1)
    assert result.cosines == pytest.approx(updates @ mean / lengths / np.linalg.norm(mean))
    assert result.discrepancy == pytest.approx(weights @ ((updates - mean) ** 2).sum(axis=1) / size)
    assert result.cancelled_share == pytest.approx(1 - np.linalg.norm(mean) / math.sqrt(weights @ lengths**2))


def test_the_whole_is_the_groups_side_by_side() -> None:
    draws = np.random.default_rng(1)
    reference, weights = np.zeros(10, np.float32), [0.3, 0.7]
    values = [draws.normal(size=10).astype(np.float32) for _ in weights]
    whole = divergence(-1, (4, 9), update_products(values, reference, weights))
    cut = {
        group: ((4, 9), update_products([client[piece] for client in values], reference[piece], weights))
        for group, piece in ((0, slice(0, 3)), (1, slice(3, 10)))
    }
    joined = whole_divergence((4, 9), cut)
    assert joined.cosines == pytest.approx(whole.cosines)
    for name in ("discrepancy", "cancelled_share", "mean_norm", "client_norm"):
        assert getattr(joined, name) == pytest.approx(getattr(whole, name))


def test_a_client_is_compared_with_the_mean_of_what_it_trained() -> None:
    """Client 0 trains group 0 alone and client 1 group 1 alone: each is its own mean."""
    alone = [update_products([np.array([2, 1], np.float32)], ZERO, [0.5]) for _ in range(2)]
    joined = whole_divergence((0, 1), {0: ((0,), alone[0]), 1: ((1,), alone[1])})
    assert joined.cosines == pytest.approx([1, 1])
    assert joined.cancelled_share == pytest.approx(0)
