"""Clipping, noise, and the epsilon that is reported for them."""

import math
import sys
import warnings

import numpy as np
import pytest

from fedbench.errors import ConfigError
from fedbench.protocol.privacy import clip, epsilon, gaussian_noise


def norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))


def test_an_update_within_the_norm_is_returned_bit_for_bit() -> None:
    update = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert clip(update, norm(update) * (1 + 1e-9)) is update
    exact = np.array([3, 4], np.float32)
    assert clip(exact, 5.0) is exact
    assert not clip(np.zeros(5, np.float32), 1.0).any()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("limit", [1e-6, 0.1, 1.0, 7.3])
def test_a_longer_update_keeps_its_direction_and_ends_at_the_norm(seed: int, limit: float) -> None:
    update = (np.random.default_rng(seed).normal(size=1000) * 3).astype(np.float32)
    before = update.copy()
    clipped = clip(update, limit)
    assert clipped.dtype == np.float32
    assert limit * (1 - 3e-7) <= norm(clipped) <= limit
    np.testing.assert_allclose(clipped * np.float64(norm(update) / limit), update, rtol=1e-6)
    np.testing.assert_array_equal(update, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_become_so(bad: float) -> None:
    update = np.ones(10, np.float32)
    update[3] = bad
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(clip(update, 1.0)).all()


def test_large_values_do_not_overflow() -> None:
    assert norm(clip(np.full(100, 3e38, np.float32), 2.0)) == pytest.approx(2.0, rel=1e-6)


def test_noise_has_the_standard_deviation_asked_for() -> None:
    size, std = 200_000, 0.3
    noise = gaussian_noise(size, std, np.random.default_rng(0))
    assert (noise.dtype, noise.shape) == (np.float32, (size,))
    assert noise.mean() == pytest.approx(0, abs=4 * std / math.sqrt(size))
    assert noise.std() == pytest.approx(std, rel=4 / math.sqrt(2 * size))
    for deviations, share in [(1, 0.682689), (2, 0.954500), (3, 0.997300)]:
        within = float((np.abs(noise) < deviations * std).mean())
        assert within == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / size))
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 4 / math.sqrt(size)


def test_noise_depends_on_the_generator_alone() -> None:
    first = gaussian_noise(50, 1.0, np.random.default_rng(1))
    assert gaussian_noise(50, 1.0, np.random.default_rng(1)).tobytes() == first.tobytes()
    assert gaussian_noise(50, 1.0, np.random.default_rng(2)).tobytes() != first.tobytes()
    assert not gaussian_noise(50, 0.0, np.random.default_rng(1)).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise_multiplier", "sample_rate", "rounds", "delta"),
    [(1.0, 0.1, 50, 1e-5), (0.7, 0.5, 10, 1e-3), (2, 1, 7, 1e-4)],
)
def test_epsilon_is_what_opacus_computes(
    noise_multiplier: float, sample_rate: float, rounds: int, delta: float
) -> None:
    accountants = pytest.importorskip("opacus.accountants")
    rdp = pytest.importorskip("opacus.accountants.analysis.rdp")
    orders = accountants.RDPAccountant.DEFAULT_ALPHAS
    spent = rdp.compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=rounds, orders=orders)
    expected, _ = rdp.get_privacy_spent(orders=orders, rdp=spent, delta=delta)
    assert epsilon(noise_multiplier, sample_rate, rounds, delta) == expected


def test_epsilon_without_sampling_is_the_closed_form() -> None:
    """The Renyi divergence of two Gaussians is alpha/(2 z^2); converted as Balle et al., 2020, Theorem 21."""
    pytest.importorskip("opacus")
    z, rounds, delta = 3.0, 20, 1e-5
    best = min(
        rounds * a / (2 * z**2) + math.log((a - 1) / a) - (math.log(delta) + math.log(a)) / (a - 1)
        for a in np.arange(1.01, 60, 0.001)
    )
    assert epsilon(z, 1.0, rounds, delta) == pytest.approx(best, rel=1e-3)


def test_epsilon_grows_with_rounds_and_cohorts_and_falls_with_noise_and_delta() -> None:
    pytest.importorskip("opacus")
    rounds = [epsilon(1.0, 0.1, count, 1e-5) for count in (0, 1, 10, 100)]
    assert rounds[0] == 0
    assert rounds == sorted(set(rounds))
    rates = [epsilon(1.0, rate, 20, 1e-5) for rate in (0.01, 0.1, 0.5, 1.0)]
    assert rates == sorted(set(rates))
    noises = [epsilon(noise, 0.1, 20, 1e-5) for noise in (4.0, 2.0, 1.0, 0.5, 0.0)]
    assert noises == sorted(set(noises))
    assert noises[-1] == math.inf
    assert epsilon(1.0, 0.1, 20, 1e-3) < epsilon(1.0, 0.1, 20, 1e-6)


def test_no_warning_where_no_setting_could_change_anything() -> None:
    pytest.importorskip("opacus")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 < epsilon(100.0, 0.01, 1, 1e-5) < 0.2


def test_without_opacus_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    monkeypatch.delitem(sys.modules, "opacus.accountants", raising=False)
    with pytest.raises(ConfigError, match="pip install opacus") as caught:
        epsilon(1.0, 0.1, 10, 1e-5)
    assert "\n" not in str(caught.value)
