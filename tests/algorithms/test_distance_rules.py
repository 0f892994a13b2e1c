"""Krum, multi-Krum and the geometric median against plain statements, alone, at the server, and in whole runs."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from small import config

from fedbench.algorithms import round_updates
from fedbench.algorithms.base import Algorithm, RoundUpdates, RuleContext
from fedbench.algorithms.geometric_median import GeometricMedian
from fedbench.algorithms.krum import Krum, MultiKrum
from fedbench.errors import ConfigError, RunError
from fedbench.experiment.run import Result, run
from fedbench.protocol.layout import ParameterLayout
from fedbench.records.kept import load_message, load_model

LAYOUT = ParameterLayout.build([("first", {"a": (6,)}), ("second", {"b": (5,)})], statistics=[])
WHOLE = (slice(0, 6), slice(6, 11))


def round_of(sent: np.ndarray, weights: np.ndarray | None = None) -> RoundUpdates:
    """Updates, one a row, as a rule is given them."""
    previous = np.random.default_rng(1).normal(size=sent.shape[1]).astype(np.float32).astype(float)
    clients = len(sent)
    even = np.full(clients, 1 / clients) if weights is None else weights
    return RoundUpdates(previous, tuple((previous + sent).astype(np.float32)), (WHOLE,) * clients, even)


def weights_of(method: Algorithm, updates: RoundUpdates) -> np.ndarray:
    context = RuleContext(LAYOUT, (0, 1), 0, len(updates), len(updates))
    weights = method.rule().client_weights(updates, context)
    assert weights is not None
    return weights


def krum_by_hand(sent: np.ndarray, f: int) -> list[int]:
    """All clients by their score, the best first."""
    n, scores = len(sent), []
    for i in range(n):
        distances = sorted(float(np.sum((sent[i] - sent[j]) ** 2)) for j in range(n) if j != i)
        scores.append((sum(distances[: n - f - 2]), i))
    return [i for _, i in sorted(scores)]


def attacked(clients: int, attackers: int, seed: int = 0) -> np.ndarray:
    """Updates around a common direction; the last ones are far off on the other side."""
    rng = np.random.default_rng(seed)
    sent = 1.0 + 0.3 * rng.normal(size=(clients, 11))
    sent[clients - attackers :] *= -4
    return sent.astype(np.float32).astype(float)


@pytest.mark.parametrize(("clients", "f"), [(5, 1), (9, 3), (12, 2)])
def test_krum_takes_the_update_with_the_smallest_score(clients: int, f: int) -> None:
    updates = round_of(attacked(clients, f))
    sent = np.array([updates.update(i) for i in range(clients)])
    (chosen,) = np.flatnonzero(weights_of(Krum(f=f), updates))
    assert chosen == krum_by_hand(sent, f)[0]
    np.testing.assert_array_equal(updates.mean(weights_of(Krum(f=f), updates)), sent[chosen])


@pytest.mark.parametrize("m", [None, 1, 3])
def test_multi_krum_takes_the_mean_of_the_m_best(m: int | None) -> None:
    updates = round_of(attacked(9, 2))
    sent = np.array([updates.update(i) for i in range(9)])
    weights = weights_of(MultiKrum(f=2, m=m), updates)
    best = krum_by_hand(sent, 2)[: 7 if m is None else m]
    np.testing.assert_allclose(updates.mean(weights), sent[best].mean(axis=0), atol=1e-12)


def test_the_share_of_byzantine_clients_is_rounded_up() -> None:
    assert [Krum(byzantine_share=0.07).byzantine(n) for n in (10, 100, 101)] == [1, 7, 8]
    assert Krum(byzantine_share=0).byzantine(10) == 0


@pytest.mark.parametrize("uneven", [False, True])
def test_the_geometric_median_minimises_the_sum_of_distances(uneven: bool) -> None:
    alphas = np.random.default_rng(2).dirichlet(np.ones(8)) if uneven else np.full(8, 1 / 8)
    updates = round_of(attacked(8, 2), alphas)
    sent = np.array([updates.update(i) for i in range(8)])
    found = minimize(lambda v: float(alphas @ np.linalg.norm(sent - v, axis=1)), np.median(sent, axis=0), tol=1e-12)
    median = updates.mean(weights_of(GeometricMedian(iterations=200), updates))
    np.testing.assert_allclose(median, found.x, atol=1e-4)


def test_the_geometric_median_is_weiszfelds_iteration() -> None:
    updates = round_of(attacked(7, 2))
    sent = np.array([updates.update(i) for i in range(7)])
    v = sent.mean(axis=0)
    for _ in range(5):
        beta = updates.weights / np.maximum(0.1, np.linalg.norm(sent - v, axis=1))
        v = (beta[:, None] * sent).sum(axis=0) / beta.sum()
    weights = weights_of(GeometricMedian(iterations=5, nu=0.1), updates)
    np.testing.assert_allclose(updates.mean(weights), v, atol=1e-9)
    np.testing.assert_allclose(weights_of(GeometricMedian(iterations=0), updates), updates.weights)


def test_of_equal_updates_the_geometric_median_is_their_value() -> None:
    updates = round_of(np.ones((4, 11)))
    np.testing.assert_allclose(updates.mean(weights_of(GeometricMedian(), updates)), updates.update(0), atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_distances_are_over_the_whole_model_in_any_pieces(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(round_updates, "_CHUNK", chunk)
    updates = round_of(attacked(6, 1))
    sent = [updates.update(i) for i in range(6)]
    by_hand = [[float(np.sum((a - b) ** 2)) for b in sent] for a in sent]
    np.testing.assert_allclose(updates.squared_distances(), by_hand, atol=1e-10)


def test_updates_of_different_layer_groups_have_no_distance() -> None:
    updates = round_of(attacked(3, 1))
    mixed = RoundUpdates(
        updates.previous, (updates.messages[0], updates.messages[1][:6]), (WHOLE, WHOLE[:1]), np.full(2, 0.5)
    )
    with pytest.raises(RunError, match="have trained different layer groups"):
        mixed.products()


ATTACK = ("participation.byzantine=sign-flip", "participation.byzantine.share=0.3", "participation.byzantine.factor=5")
SMALL = (
    "data.clients=10", "data.samples_per_client=40", "rounds=3", "schedule=full", "local.optimizer=sgd",
    "local.optimizer.lr=0.1", "runtime.executor=inline",
)  # fmt: skip
KEPT = ("runtime.keep_models=[1-3]", "runtime.keep_messages=[0-9]")

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")


def by_numpy(result: Result, rule: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(the recorded model, the model that `rule` makes of the recorded messages) after each round, with statistics."""
    models = []
    for number in (1, 2, 3):
        before, after = (load_model(result.directory, count) for count in (number - 1, number))
        messages = [load_message(result.directory, number, client)[0] for client in range(10)]
        names = list(messages[0])
        weights = rule(
            np.array([np.concatenate([m[n].ravel() for n in names if "running" not in n]) for m in messages])
        )
        for name in names:
            mean = sum(weight * message[name].astype(float) for weight, message in zip(weights, messages, strict=True))
            models.append((after[name], before[name].astype(float) + mean))
    return models


def krum(sent: np.ndarray) -> np.ndarray:
    return np.eye(len(sent))[krum_by_hand(sent.astype(float), 3)[0]]


def multi_krum(sent: np.ndarray) -> np.ndarray:
    return np.isin(range(10), krum_by_hand(sent.astype(float), 3)[:7]) / 7


def geometric_median(sent: np.ndarray) -> np.ndarray:
    weights = np.full(10, 0.1)
    for _ in range(32):
        distances = np.linalg.norm(sent - weights @ sent.astype(float), axis=1)
        weights = 1 / np.maximum(1e-6, distances)
        weights /= weights.sum()
    return weights


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (("algorithm=krum", "algorithm.byzantine_share=0.3"), krum),
        (("algorithm=multi-krum", "algorithm.f=3"), multi_krum),
        (("algorithm=geometric-median",), geometric_median),
    ],
    ids=["krum", "multi-krum", "geometric-median"],
)
def test_three_rounds_are_numpys_running_statistics_included(method: tuple[str, ...], rule: Any) -> None:
    result = run(config(*SMALL, *method, *ATTACK, *KEPT, "participation.byzantine.statistics=true"))
    for recorded, expected in by_numpy(result, rule):
        np.testing.assert_allclose(recorded, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_mean_collapses_under_scaled_sign_flips_and_the_robust_rules_do_not() -> None:
    # Enough training that chance (10 %) and a digits classifier are far apart; a network without running statistics.
    learning = (*SMALL, "model=small:TwoLayers", "data.samples_per_client=100", "rounds=8", "local.epochs=3")
    rules = {
        "mean": ("algorithm=fedavg",),
        "krum": ("algorithm=krum", "algorithm.f=3"),
        "multi-krum": ("algorithm=multi-krum", "algorithm.f=3"),
        "median": ("algorithm=median",),
        "geometric median": ("algorithm=geometric-median",),
    }
    final = {
        name: run(config(*learning, *rule, *ATTACK, f"output.directory={name.replace(' ', '-')}")).summary
        for name, rule in rules.items()
    }
    accuracy = {name: summary["final_accuracy"] for name, summary in final.items()}
    assert accuracy.pop("mean") < 0.3
    assert min(accuracy.values()) > 0.6, accuracy


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("algorithm=krum", "algorithm.f=4"), r"algorithm.name=krum: .* f=4 .* 2 f \+ 3 = 11 participants .* not 10"),
        (("server=krum", "server.byzantine_share=0.4"), r"server.name=krum: is robust against f=4"),
        (("algorithm=multi-krum", "algorithm.m=11"), r"multi-krum: cannot take the mean of m=11 of 10 updates"),
        (("algorithm=krum", "schedule=per-client"), r"krum with schedule.name=per-client: compares whole updates"),
        (("server=geometric-median", "schedule=per-client"), r"server.name=geometric-median with schedule.name=per"),
        (("server=krum", "exchange=rotate"), r"server.name=krum with exchange.name=rotate: compares whole updates"),
        (("algorithm=multi-krum", "exchange=intervals"), r"name=multi-krum with exchange.name=intervals: compares"),
    ],
)
def test_what_they_cannot_do_is_refused_by_name(overrides: tuple[str, ...], problem: str, run_folder: Path) -> None:
    settings = [text for text in SMALL if not text.startswith("schedule=") or "schedule=per-client" not in overrides]
    with pytest.raises(ConfigError, match=problem):
        run(config(*settings, *overrides))


def test_the_order_of_arrival_changes_no_bit() -> None:
    """The server takes messages in any order; here they come in every order of four groups of clients."""
    from fedbench.engine.rounds.server import Server
    from fedbench.experiment.federation import load_federation
    from fedbench.experiment.setup import build_problem

    configuration = config(*SMALL, "algorithm=krum")
    problem = build_problem(configuration, load_federation(configuration))
    results = set()
    for order in itertools.permutations(range(4)):
        server = Server(problem.server)
        plan = server.plan(0)
        parts = problem.spec.table.uploaded(plan.active.groups)
        sent = np.random.default_rng(0).normal(size=(10, problem.spec.table.values(parts))).astype(np.float32)
        for group in order:
            clients = tuple(range(10))[group::4]
            server.receive(sent[list(clients)].ravel(), clients)
        server.finish()
        results.add(b"".join(array.tobytes() for array in server.model()))
    assert len(results) == 1
