"""Median and trimmed mean against NumPy's and SciPy's, and what a huge client can do to them."""

import numpy as np
import pytest
from scipy.stats import trim_mean

from fedbench.algorithms import robust
from fedbench.algorithms.base import Algorithm, RuleContext
from fedbench.algorithms.robust import Median, TrimmedMean
from fedbench.components.catalogue import make_component
from fedbench.errors import ConfigError
from fedbench.protocol.layout import ParameterLayout

SIZE = 1001
LAYOUT = ParameterLayout.build([("only", {"only.weight": (SIZE,)})])
PREVIOUS = np.random.default_rng(0).normal(size=SIZE)


def updates(clients: int) -> np.ndarray:
    return np.random.default_rng(clients).normal(size=(clients, SIZE))


def combined(algorithm: Algorithm, sent: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The change of the parameters; weights make no difference."""
    clients = len(sent)
    context = RuleContext(LAYOUT, (0,), 0, clients, 2 * clients)
    rule = algorithm.rule()
    assert rule.needs(0) == "updates"
    uneven = np.arange(1, clients + 1) / sum(range(1, clients + 1)) if weights is None else weights
    return rule.combine_each(PREVIOUS, sent, uneven, context)


@pytest.mark.parametrize("clients", [1, 2, 3, 8, 21])
def test_median_is_numpys(clients: int) -> None:
    expected = PREVIOUS + np.median(updates(clients), axis=0)
    np.testing.assert_array_equal(combined(Median(), updates(clients)), expected)


@pytest.mark.parametrize("clients", [1, 2, 3, 8, 21])
@pytest.mark.parametrize("trim", [0.0, 0.125, 0.25, 0.49])
def test_trimmed_mean_is_scipys(clients: int, trim: float) -> None:
    expected = PREVIOUS + trim_mean(updates(clients), trim, axis=0)
    np.testing.assert_allclose(combined(TrimmedMean(trim=trim), updates(clients)), expected, rtol=0, atol=1e-14)


def test_trimming_by_hand() -> None:
    sent = np.tile(np.array([[5.0], [-100.0], [1.0], [2.0], [900.0]]), (1, SIZE))
    np.testing.assert_array_equal(combined(TrimmedMean(trim=0.2), sent), PREVIOUS + 8 / 3)
    np.testing.assert_array_equal(combined(TrimmedMean(trim=0.4), sent), PREVIOUS + 2.0)
    np.testing.assert_array_equal(combined(Median(), sent), PREVIOUS + 2.0)


@pytest.mark.parametrize("clients", [2, 10, 50])
def test_without_trimming_it_is_the_unweighted_mean_within_the_stated_bound(clients: int) -> None:
    sent = updates(clients) * 10.0 ** np.random.default_rng(1).uniform(-6, 6, size=(clients, SIZE))
    context = RuleContext(LAYOUT, (0,), 0, clients, clients)
    change = TrimmedMean(trim=0).rule().combine_each(np.zeros(SIZE), sent, np.ones(clients), context)
    bound = clients * 2.0**-52 * np.abs(sent).mean(axis=0)
    assert (np.abs(change - sent.mean(axis=0)) <= bound).all()


@pytest.mark.parametrize("algorithm", [Median(), TrimmedMean(trim=0.2)], ids=lambda algorithm: algorithm.name)
def test_a_huge_client_stays_within_what_the_others_sent(algorithm: Algorithm) -> None:
    honest = updates(9)
    attacked = np.concatenate([honest, np.full((1, SIZE), 1e300)])
    change = combined(algorithm, attacked) - PREVIOUS
    assert (change <= honest.max(axis=0) + 1e-12).all()
    assert (change >= honest.min(axis=0) - 1e-12).all()
    np.testing.assert_allclose(change, honest.mean(axis=0), atol=2.0)


@pytest.mark.parametrize("algorithm", [Median(), TrimmedMean(trim=0.1)], ids=lambda algorithm: algorithm.name)
def test_the_order_of_clients_changes_no_bit(algorithm: Algorithm) -> None:
    sent = updates(20)
    shuffled = sent[np.random.default_rng(3).permutation(20)]
    assert combined(algorithm, sent).tobytes() == combined(algorithm, shuffled).tobytes()


@pytest.mark.parametrize("algorithm", [Median(), TrimmedMean(trim=0.3)], ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("values", [1, 40, 1000])
def test_chunks_change_no_bit(algorithm: Algorithm, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = updates(12)
    whole = combined(algorithm, sent)
    monkeypatch.setattr(robust, "_CHUNK_VALUES", values)
    assert combined(algorithm, sent).tobytes() == whole.tobytes()
    assert sent.tobytes() == updates(12).tobytes()


@pytest.mark.parametrize(
    ("trim", "clients", "trimmed"),
    [(0.0, 7, 0), (0.1, 9, 0), (0.1, 10, 1), (0.29, 100, 29), (0.07, 100, 7), (0.49, 3, 1), (0.499, 1, 0)],
)
def test_how_many_are_trimmed(trim: float, clients: int, trimmed: int) -> None:
    assert TrimmedMean(trim=trim).trimmed(clients) == trimmed


@pytest.mark.parametrize("name", ["median", "trimmed-mean"])
def test_everyone_counts_the_same(name: str) -> None:
    algorithm = make_component("algorithm", Algorithm, name)
    assert isinstance(algorithm, Algorithm)
    assert algorithm.weight(3) == algorithm.weight(3000) == 1.0
    other = np.random.default_rng(5).dirichlet(np.ones(6))
    assert combined(algorithm, updates(6)).tobytes() == combined(algorithm, updates(6), other).tobytes()


@pytest.mark.parametrize("trim", [0.5, -0.1, float("nan")])
def test_impossible_fractions_are_refused(trim: float) -> None:
    with pytest.raises(ConfigError, match=r"^algorithm\.trim"):
        make_component("algorithm", Algorithm, {"name": "trimmed-mean", "trim": trim})
