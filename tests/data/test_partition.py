"""Partitions: who gets which rows, against counts and distributions stated on their own."""

from collections.abc import Callable

import numpy as np
import pytest

from fedbench.components.base import Component
from fedbench.data.apportion import apportion
from fedbench.data.partition import Dirichlet, Iid, Natural, Partition, Quantity, Shards, class_counts
from fedbench.errors import ConfigError

LABELS = np.random.default_rng(7).permutation(np.repeat(np.arange(10), 100))
OWNERS = np.random.default_rng(8).integers(0, 30, 1000) * 3

EVERY_ROW = [
    Iid(),
    Dirichlet(alpha=0.5),
    Dirichlet(alpha=100.0, min_size=20),
    Shards(),
    Shards(shards_per_client=5),
    Quantity(alpha=3.0),
]


def deal(partition: Partition, clients: int, seed: int = 0, **options: object) -> list[np.ndarray]:
    settings = {"samples_per_client": None, "overlap": False, "owners": None} | options
    return partition.split(LABELS, clients, np.random.default_rng(seed), **settings)


def describe(partition: Partition) -> str:
    return repr(partition)


@pytest.mark.parametrize("partition", EVERY_ROW, ids=describe)
@pytest.mark.parametrize("clients", [1, 2, 7, 40])
def test_every_row_goes_to_exactly_one_client(partition: Partition, clients: int) -> None:
    if partition.name == "dirichlet" and partition.min_size * clients > len(LABELS):
        clients = 10
    parts = deal(partition, clients)
    assert len(parts) == clients
    assert all(len(part) for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize("partition", EVERY_ROW, ids=describe)
def test_the_seed_decides_the_partition(partition: Partition) -> None:
    first, again, other = (deal(partition, 7, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_iid_sizes_differ_by_at_most_one() -> None:
    sizes = [len(part) for part in deal(Iid(), 7)]
    assert sorted(sizes) == [142, 143, 143, 143, 143, 143, 143]


def test_iid_shares_of_a_class_are_hypergeometric() -> None:
    drawn = np.array([class_counts(LABELS, deal(Iid(), 10, seed), 10) for seed in range(200)])
    # 100 rows of 1,000, of which 100 are of the class: mean 10, variance 100 * .1 * .9 * 900/999.
    assert drawn.mean() == pytest.approx(10)
    assert drawn.var() == pytest.approx(100 * 0.1 * 0.9 * 900 / 999, rel=0.05)


def test_iid_samples_are_disjoint_without_overlap() -> None:
    parts = deal(Iid(), 10, samples_per_client=80)
    assert [len(part) for part in parts] == [80] * 10
    assert len(np.unique(np.concatenate(parts))) == 800
    assert not np.array_equal(parts[0], deal(Iid(), 10, seed=1, samples_per_client=80)[0])


def test_iid_overlap_is_without_replacement_inside_and_independent_between_clients() -> None:
    parts = deal(Iid(), 40, samples_per_client=500, overlap=True)
    assert all(len(np.unique(part)) == 500 for part in parts)
    # Two independent draws of half of the rows share a quarter of all rows: hypergeometric, standard deviation 7.9.
    shared = [len(np.intersect1d(parts[i], parts[j])) for i in range(40) for j in range(i)]
    assert np.mean(shared) == pytest.approx(250, abs=2)
    assert np.std(shared) == pytest.approx(7.9, rel=0.15)


def test_dirichlet_proportions_of_a_class_have_the_moments_of_the_distribution() -> None:
    clients, alpha = 5, 2.0
    counts = np.array([class_counts(LABELS, deal(Dirichlet(alpha=alpha), clients, seed), 10) for seed in range(400)])
    shares = counts / 100
    # Dir(alpha * 1_K): mean 1/K, variance (1/K)(1 - 1/K) / (K alpha + 1).
    assert shares.mean() == pytest.approx(1 / clients)
    assert shares.var() == pytest.approx((1 / clients) * (1 - 1 / clients) / (clients * alpha + 1), rel=0.06)


def test_a_smaller_alpha_is_more_skewed() -> None:
    def classes_held(alpha: float) -> float:
        counts = np.array(class_counts(LABELS, deal(Dirichlet(alpha=alpha), 10), 10))
        return float((counts > 0).sum(axis=1).mean())

    assert classes_held(0.05) < classes_held(0.5) < classes_held(50.0)
    assert classes_held(50.0) == 10


def test_dirichlet_draws_again_until_every_client_has_enough() -> None:
    for seed in range(20):
        assert min(len(part) for part in deal(Dirichlet(alpha=0.3, min_size=30), 10, seed)) >= 30


@pytest.mark.parametrize(
    "partition", [Dirichlet(alpha=0.01, min_size=60, attempts=3), Quantity(alpha=0.01, attempts=3)]
)
def test_too_few_attempts_name_what_was_asked(partition: Partition) -> None:
    with pytest.raises(ConfigError) as caught:
        deal(partition, 15)
    for part in ("alpha=0.01", "3 draws", "data.clients=15", f"min_size={partition.min_size}", "1000 rows"):
        assert part in str(caught.value)


def test_dirichlet_samples_have_the_size_and_overlap_between_clients_only() -> None:
    parts = deal(Dirichlet(alpha=0.1), 40, samples_per_client=200, overlap=True)
    assert all(len(np.unique(part)) == len(part) == 200 for part in parts)
    assert len(np.unique(np.concatenate(parts))) < 40 * 200


def test_dirichlet_samples_follow_each_clients_own_proportions() -> None:
    parts = deal(Dirichlet(alpha=1.0), 3000, samples_per_client=50, overlap=True)
    shares = np.array(class_counts(LABELS, parts, 10)) / 50
    # Dir(1_10): mean .1, variance .1 * .9 / 11; no class ever runs out at 50 of 100.
    assert shares.mean(axis=0) == pytest.approx(np.full(10, 0.1), abs=0.006)
    assert shares.var() == pytest.approx(0.1 * 0.9 / 11, rel=0.05)


def test_a_class_that_runs_out_is_made_up_from_the_others() -> None:
    parts = deal(Dirichlet(alpha=0.01), 50, samples_per_client=300, overlap=True)
    counts = np.array(class_counts(LABELS, parts, 10))
    assert (counts.sum(axis=1) == 300).all()
    assert counts.max() == 100


def test_all_rows_can_be_asked_for() -> None:
    for partition in (Iid(), Dirichlet(alpha=0.01)):
        (part,) = deal(partition, 1, samples_per_client=1000, overlap=True)
        np.testing.assert_array_equal(part, np.arange(1000))


@pytest.mark.parametrize("seed", range(20))
def test_apportioned_numbers_sum_up_stay_within_and_keep_proportions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    available = rng.integers(0, 50, 12)
    wanted = rng.dirichlet(np.full(12, 0.2))
    total = int(rng.integers(0, available.sum() + 1))
    counts = apportion(total, wanted, available)
    assert counts.sum() == total
    assert (counts <= available).all()
    plenty = apportion(total, wanted, np.full(12, total))
    assert np.abs(plenty - total * wanted).max() < 1


def test_apportioning_goes_on_where_all_wanted_places_are_full() -> None:
    assert apportion(30, np.array([1.0, 0.0, 0.0]), np.array([10, 15, 15])).tolist() == [10, 10, 10]


def test_shards_are_runs_of_the_sorted_labels() -> None:
    order = np.argsort(LABELS, kind="stable")
    position = np.empty(1000, np.int64)
    position[order] = np.arange(1000)
    for part in deal(Shards(shards_per_client=2), 10):
        places = np.sort(position[part])
        np.testing.assert_array_equal(np.unique(places // 50), places[[0, 50]] // 50)
        assert len(part) == 100
        assert len(np.unique(LABELS[part])) <= 2


def test_quantity_sizes_have_the_moments_of_the_distribution() -> None:
    sizes = np.array([[len(part) for part in deal(Quantity(alpha=3.0), 4, seed)] for seed in range(2000)]) / 1000
    assert sizes.mean(axis=0) == pytest.approx(np.full(4, 0.25), abs=0.01)
    assert sizes.var() == pytest.approx(0.25 * 0.75 / 13, rel=0.06)


def test_owners_that_are_no_clients_are_told() -> None:
    assert Natural().remarks(deal(Natural(), 30, owners=OWNERS), OWNERS) == ()
    parts = deal(Natural(), 5, owners=OWNERS)
    unused = len(OWNERS) - sum(len(part) for part in parts)
    assert Natural().remarks(parts, OWNERS) == (
        f"data.clients=5: of 30 natural clients; the {unused} training rows of the others are left out",
    )
    assert Iid().remarks(parts, OWNERS) == ()


def test_natural_clients_are_the_owners() -> None:
    parts = deal(Natural(), 30, owners=OWNERS)
    for owner, part in zip(np.unique(OWNERS), parts, strict=True):
        np.testing.assert_array_equal(part, np.flatnonzero(owner == OWNERS))


def test_fewer_natural_clients_are_a_seeded_draw_of_whole_owners() -> None:
    chosen = []
    for seed in (0, 0, 1):
        parts = deal(Natural(), 5, seed, owners=OWNERS)
        owners = [np.unique(OWNERS[part]) for part in parts]
        assert all(len(own) == 1 for own in owners)
        for own, part in zip(owners, parts, strict=True):
            assert len(part) == (own[0] == OWNERS).sum()
        chosen.append([int(own[0]) for own in owners])
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] == sorted(chosen[0])


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: deal(Iid(), 3, overlap=True), ["data.overlap", "no effect", "samples_per_client"]),
        (lambda: deal(Dirichlet(alpha=1.0), 3, overlap=True), ["data.overlap", "no effect"]),
        (lambda: deal(Shards(), 3, overlap=True), ["data.overlap", "no effect"]),
        (lambda: deal(Shards(), 3, samples_per_client=5), ["data.samples_per_client=5", "no effect", "shards"]),
        (lambda: deal(Quantity(alpha=1.0), 3, samples_per_client=5), ["data.samples_per_client=5", "quantity"]),
        (lambda: deal(Natural(), 3, samples_per_client=5, owners=OWNERS), ["data.samples_per_client=5", "natural"]),
        (lambda: deal(Natural(), 3), ["data.partition.name=natural", "owners"]),
        (lambda: deal(Natural(), 31, owners=OWNERS), ["data.clients=31", "30 natural owners"]),
        (lambda: deal(Dirichlet(alpha=1.0), 3, samples_per_client=5), ["data.overlap=true", "dirichlet"]),
        (
            lambda: deal(Dirichlet(alpha=1.0, min_size=3), 3, samples_per_client=5, overlap=True),
            ["data.partition.min_size=3", "no effect"],
        ),
        (lambda: deal(Iid(), 3, samples_per_client=1001, overlap=True), ["data.samples_per_client=1001", "1000 rows"]),
        (
            lambda: deal(Dirichlet(alpha=1.0), 3, samples_per_client=1001, overlap=True),
            ["data.samples_per_client=1001", "1000 rows"],
        ),
        (lambda: deal(Iid(), 3, samples_per_client=334), ["3 x 334 = 1002", "has 1000", "data.overlap=true"]),
        (lambda: deal(Iid(), 1001), ["data.clients=1001", "1000 rows"]),
        (lambda: deal(Shards(shards_per_client=20), 51), ["51 x 20 = 1020", "has 1000"]),
        (lambda: deal(Dirichlet(alpha=1.0, min_size=101), 10), ["10 x 101 = 1010", "has 1000"]),
    ],
)
def test_what_cannot_be_or_has_no_effect_is_refused(call: Callable[[], object], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "parameters", "key"),
    [
        (Dirichlet, {"name": "dirichlet"}, "data.partition.alpha"),
        (Dirichlet, {"name": "dirichlet", "alpha": 0}, "data.partition.alpha=0"),
        (Dirichlet, {"name": "dirichlet", "alpha": float("inf")}, "data.partition.alpha=inf"),
        (Shards, {"name": "shards", "shards_per_client": 0}, "data.partition.shards_per_client=0"),
        (Iid, {"name": "iid", "alpha": 1}, "data.partition.alpha: unknown key"),
    ],
)
def test_impossible_parameters_name_their_key(kind: type[Component], parameters: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        kind.create("data.partition", parameters)


def test_class_counts_are_counted_per_client() -> None:
    counts = class_counts(np.array([2, 0, 2, 1]), [np.array([0, 2]), np.array([1]), np.array([3, 2])], 4)
    assert counts == ((0, 0, 2, 0), (1, 0, 0, 0), (0, 1, 1, 0))


def capped_by_hand(labels: np.ndarray, clients: int, alpha: float, rng: np.random.Generator) -> list[np.ndarray]:
    """The capacity rule as plain loops: one class after the other, clients that hold N / n rows are passed over."""
    draws = rng.dirichlet(np.full(clients, alpha), size=len(np.unique(labels)))
    held = [0] * clients
    counts = []
    for label, draw in zip(np.unique(labels), draws, strict=True):
        shares = [share if rows < len(labels) / clients else 0.0 for share, rows in zip(draw, held, strict=True)]
        rows, total, cut, counted = int((labels == label).sum()), sum(shares), 0.0, 0
        last = max(index for index, share in enumerate(shares) if share)
        for client, share in enumerate(shares):
            cut += share / total
            end = rows if client >= last else int(cut * rows + 1e-9)
            held[client] += end - counted
            counted = end
        counts.append(held.copy())
    return [np.array(row) for row in np.diff(np.array([[0] * clients, *counts]), axis=0).T]


@pytest.mark.parametrize("alpha", [0.1, 0.5, 5.0])
def test_a_client_that_holds_its_share_of_the_rows_gets_no_more(alpha: float) -> None:
    labels = np.repeat(np.arange(10), 300)
    parts = Dirichlet(alpha=alpha, capped=True).split(
        labels, 20, np.random.default_rng(4), samples_per_client=None, overlap=False, owners=None
    )
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    counts = [np.bincount(labels[part], minlength=10) for part in parts]
    for client in counts:
        before = np.cumsum(client) - client
        assert (client[before >= len(labels) / 20] == 0).all()
    rng = np.random.default_rng(4)
    expected = capped_by_hand(labels, 20, alpha, rng)
    # The first draw serves where it gives every client a row; else the rule is drawn again.
    while min(sum(client) for client in expected) < 1:
        expected = capped_by_hand(labels, 20, alpha, rng)
    assert np.abs(np.array(counts) - np.array(expected)).max() <= 1


def test_the_capacity_rule_makes_sizes_more_even() -> None:
    labels = np.repeat(np.arange(10), 500)
    sizes = {}
    for capped in (False, True):
        parts = Dirichlet(alpha=0.1, capped=capped).split(
            labels, 20, np.random.default_rng(0), samples_per_client=None, overlap=False, owners=None
        )
        sizes[capped] = max(len(part) for part in parts)
    assert sizes[True] < sizes[False]
    with pytest.raises(ConfigError, match=r"data\.partition\.capped=True: has no effect with data\.samples_per_client"):
        Dirichlet(alpha=0.1, capped=True).split(
            labels, 20, np.random.default_rng(0), samples_per_client=9, overlap=True, owners=None
        )
