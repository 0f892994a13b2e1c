"""Rows that are held out of clients: how many, of which classes, and that nobody trains on them."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedbench.config.experiment import ExperimentConfig
from fedbench.data.client_holdout import hold_out_of_clients, remarks_on_clients
from fedbench.errors import ConfigError
from fedbench.experiment.federation import load_federation

Parts = list[np.ndarray]


def disjoint(labels: np.ndarray, clients: int, seed: int) -> Parts:
    rows = np.random.default_rng(seed).permutation(len(labels))
    return [np.sort(part) for part in np.array_split(rows, clients)]


def shared(labels: np.ndarray, clients: int, samples: int, seed: int) -> Parts:
    rng = np.random.default_rng(seed)
    return [np.sort(rng.permutation(len(labels))[:samples]) for _ in range(clients)]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(20, 200),
    clients=st.integers(1, 12),
    classes=st.integers(1, 10),
    fraction=st.floats(0.1, 0.9),
    seed=st.integers(0, 1000),
)
def test_of_each_client_the_share_is_held_out_class_by_class(
    rows: int, clients: int, classes: int, fraction: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(classes, size=rows)
    parts = disjoint(labels, clients, seed)
    assume(fraction * len(parts[0]) >= 0.5)  # else no client has enough rows for one to be held out
    train, held = hold_out_of_clients(parts, labels, fraction, seed, overlap=False)
    for part, kept, out in zip(parts, train, held, strict=True):
        assert np.array_equal(np.sort(np.concatenate([kept, out])), part)
        assert len(out) == min(int(fraction * len(part) + 0.5), len(part) - 1)
        assert len(kept) >= 1
        of_part, of_held = (np.bincount(labels[rows], minlength=classes) for rows in (part, out))
        assert (np.abs(of_held - len(out) / len(part) * of_part) < 1).all()


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(1, 30), clients=st.integers(1, 20), fraction=st.floats(0.2, 0.95), seed=st.integers(0, 99))
def test_where_clients_share_rows_nobody_trains_on_what_anybody_is_scored_on(
    samples: int, clients: int, fraction: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(3, size=40)
    parts = shared(labels, clients, samples, seed)
    try:
        train, held = hold_out_of_clients(parts, labels, fraction, seed, overlap=True)
    except ConfigError:
        assert samples * fraction < 2
        return
    assert not set(np.concatenate(train)) & set(np.concatenate(held))
    assert all(len(kept) for kept in train)
    for part, kept, out in zip(parts, train, held, strict=True):
        assert np.array_equal(np.sort(np.concatenate([kept, out])), part)


def test_the_share_is_met_over_the_shared_rows_together() -> None:
    labels = np.repeat(np.arange(10), 100)
    train, held = hold_out_of_clients(shared(labels, 20, 300, 1), labels, 0.25, 0, overlap=True)
    assert np.unique(np.concatenate(held)).size == pytest.approx(250, abs=2)
    assert all(0.15 < len(out) / 300 < 0.35 for out in held)
    assert all(len(kept) + len(out) == 300 for kept, out in zip(train, held, strict=True))


def test_the_draw_depends_on_the_seed_alone_and_prefers_no_class() -> None:
    labels = np.tile(np.arange(10), 40)
    parts = [np.arange(10 * client, 10 * client + 10) for client in range(40)]
    first, again, other = (hold_out_of_clients(parts, labels, 0.2, seed, overlap=False)[1] for seed in (3, 3, 4))
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(first, again, strict=True))
    assert any(not np.array_equal(mine, theirs) for mine, theirs in zip(first, other, strict=True))
    counts = np.bincount(labels[np.concatenate(first)], minlength=10)
    assert counts.sum() == 80
    assert counts.max() < 20  # equal quotas would all go to two classes if these came in the order of their labels


def test_a_share_that_holds_out_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.client_test_fraction=0\.1: holds out none"):
        hold_out_of_clients([np.arange(4), np.arange(4, 8)], np.zeros(8, np.int64), 0.1, 0, overlap=False)


def test_clients_without_held_out_rows_are_spoken_of() -> None:
    held = hold_out_of_clients([np.arange(1), np.arange(1, 8)], np.zeros(8, np.int64), 0.3, 0, overlap=False)[1]
    assert remarks_on_clients(held) == (
        "data.client_test_fraction: 1 of 2 clients have so few rows that none is held out of them",
    )


@pytest.mark.parametrize(
    "overrides",
    [("data.partition=dirichlet", "data.partition.alpha=0.3"), ("data.overlap=true", "data.samples_per_client=200")],
)
def test_the_training_rows_of_a_run_are_those_that_are_left(overrides: tuple[str, ...]) -> None:
    plain = load_federation(ExperimentConfig.load(None, ["data.clients=6", *overrides]))
    config = ExperimentConfig.load(None, ["data.client_test_fraction=0.25", "data.clients=6", *overrides])
    federation = load_federation(config)
    for dealt, kept, held in zip(plain.rows, federation.rows, federation.test_rows, strict=True):
        assert np.array_equal(np.sort(np.concatenate([kept, held])), dealt)
    assert not set(np.concatenate(federation.rows)) & set(np.concatenate(federation.test_rows))
    assert federation.sizes == tuple(sum(counts) for counts in federation.counts)


def test_arrays_are_normalised_by_the_rows_that_clients_train_on() -> None:
    overrides = ["data.dataset=diabetes", "model=mlp", "data.client_test_fraction=0.3"]
    federation = load_federation(ExperimentConfig.load("quickstart", overrides))
    trained = federation.data.train.inputs[np.concatenate(federation.rows)].astype(np.float64)
    np.testing.assert_allclose(federation.data.mean, trained.mean(axis=0))
    np.testing.assert_allclose(federation.data.std, trained.std(axis=0))
