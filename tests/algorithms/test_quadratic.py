"""Where methods converge to: clients with quadratic losses of their own, many local steps, float64, no network.

Client i has F_i(w) = (w - b_i)' A_i (w - b_i) / 2. The global optimum, that of the mean of the F_i, is known.
"""

from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fedbench.algorithms.base import Algorithm, LocalContext, RuleContext, Values
from fedbench.algorithms.fedavg import FedAvg
from fedbench.algorithms.feddyn import DebiasedMean, FedDyn
from fedbench.algorithms.fednova import FedNova
from fedbench.algorithms.scaffold import Scaffold
from fedbench.protocol.layout import ParameterLayout

LAYOUT = ParameterLayout.build([("a", {"a": (2,)}), ("b", {"b": (3,)})])
CLIENTS = 5
LR = 0.1
ROUNDS = 300


class Quadratics:
    """The clients, and a federation of them that follows a method's own hooks."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        roots = rng.normal(size=(CLIENTS, LAYOUT.size, LAYOUT.size))
        curvature = roots @ roots.transpose(0, 2, 1) / LAYOUT.size + 0.8 * np.eye(LAYOUT.size)
        # Steps of LR = 0.1 then converge for every client.
        self.curvature = 2 * curvature / np.linalg.norm(curvature, 2, axis=(1, 2))[:, None, None]
        self.minima = rng.normal(size=(CLIENTS, LAYOUT.size))

    def optimum(self, weights: npt.ArrayLike = (1,) * CLIENTS) -> Values:
        """Where sum_i weights_i grad F_i = 0."""
        share = np.asarray(weights)[:, None, None]
        pull = (share * self.curvature @ self.minima[:, :, None]).sum(0)[:, 0]
        return np.linalg.solve((share * self.curvature).sum(0), pull)

    def run(
        self,
        algorithm: Algorithm,
        rounds: int,
        *,
        steps: tuple[int, ...] = (20,) * CLIENTS,
        lr: float = LR,
        participants: int = CLIENTS,
        partial: bool = False,
    ) -> Values:
        objective, rule = algorithm.objective(), algorithm.rule()
        states = [dict[str, torch.Tensor]() for _ in range(CLIENTS)]
        self.rule, self.states = rule, states
        w = np.zeros(LAYOUT.size)
        channels = {name: np.zeros(LAYOUT.size) for name in objective.channels}
        rng = np.random.default_rng(1)
        for round_index in range(rounds):
            groups = (round_index % 2,) if partial else (0, 1)
            pieces = LAYOUT.ranges(groups)
            cohort = sorted(rng.choice(CLIENTS, participants, replace=False))
            weights = [1 / participants] * participants
            scales = algorithm.scales(weights, [steps[client] for client in cohort])
            context = RuleContext(LAYOUT, groups, round_index, participants, CLIENTS)
            update = np.zeros(LAYOUT.count(groups))
            added = {name: np.zeros(LAYOUT.count(groups)) for name in channels}
            for client, weight, scale in zip(cohort, weights, scales, strict=True):
                local = self._train(objective, client, w, pieces, groups, steps[client], lr, channels, states[client])
                update += weight * scale * context.gather(local.model.vector.numpy() - w)
                for name in channels:
                    added[name] += weight * context.gather(local.outgoing[name].numpy())
            context.scatter(rule.combine(context.gather(w), update, context), w)
            for name, channel in channels.items():
                context.scatter(rule.combine_channel(context.gather(channel), added[name], context), channel)
        return w

    def _train(self, objective, client, w, pieces, groups, steps, lr, channels, state) -> LocalContext:  # type: ignore[no-untyped-def]
        curvature, minimum = torch.from_numpy(self.curvature[client]), torch.from_numpy(self.minima[client])
        model = SimpleNamespace(vector=torch.tensor(w), gradient=torch.zeros(LAYOUT.size, dtype=torch.float64))
        shared = {name: torch.tensor(channel) for name, channel in channels.items()}
        context = LocalContext(model, torch.tensor(w), groups, pieces, lr, shared, state)  # type: ignore[arg-type]
        objective.begin(context)
        for _ in range(steps):
            model.gradient[:] = curvature @ (model.vector - minimum)
            objective.correct(context)
            for piece in pieces:
                model.vector[piece] -= lr * model.gradient[piece]
        objective.finish(context, steps)
        return context


def distance(found: Values, wanted: Values) -> float:
    return float(np.linalg.norm(found - wanted))


def test_fedavg_stops_short_of_the_optimum() -> None:
    problem = Quadratics()
    assert 0.1 < distance(problem.run(FedAvg(), ROUNDS), problem.optimum()) < 10
    assert distance(problem.run(FedAvg(), 400, steps=(1,) * CLIENTS), problem.optimum()) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("participants", "partial"), [(CLIENTS, False), (3, True)], ids=["all", "3-groups-take-turns"])
@pytest.mark.parametrize("algorithm", [Scaffold(), FedDyn(alpha=0.5)], ids=lambda algorithm: algorithm.name)
def test_scaffold_and_feddyn_reach_the_optimum(algorithm: Algorithm, participants: int, partial: bool) -> None:
    problem = Quadratics()
    found = problem.run(algorithm, ROUNDS, participants=participants, partial=partial)
    assert distance(found, problem.optimum()) < 1e-8


def test_feddyn_of_many_steps_minimises_as_the_paper_asks() -> None:
    """One round in closed form: theta_k minimises the regularised loss, lambda_k is its gradient there."""
    problem, alpha = Quadratics(), 0.5
    theta_k = [
        np.linalg.solve(curvature + alpha * np.eye(LAYOUT.size), curvature @ minimum)
        for curvature, minimum in zip(problem.curvature, problem.minima, strict=True)
    ]
    mean = np.mean(theta_k, axis=0)
    h = -alpha * mean
    found = problem.run(FedDyn(alpha=alpha), 1, steps=(2000,) * CLIENTS)
    np.testing.assert_allclose(found, mean - h / alpha, rtol=1e-10)


def test_feddyns_h_is_the_mean_of_all_clients_duals() -> None:
    problem = Quadratics()
    problem.run(FedDyn(alpha=0.5), 7, participants=3, partial=True)
    duals = [state.get("dual", torch.zeros(LAYOUT.size)).numpy() for state in problem.states]
    assert isinstance(problem.rule, DebiasedMean)
    np.testing.assert_allclose(problem.rule._h, np.mean(duals, axis=0), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_fednova_removes_the_objective_inconsistency() -> None:
    """With small steps FedAvg minimises the losses weighted by their steps, FedNova as they are, up to O(lr)."""
    problem, steps = Quadratics(), (1, 2, 4, 8, 16)
    true, inconsistent = problem.optimum(), problem.optimum(steps)
    gap = distance(true, inconsistent)
    assert gap > 0.3
    averaged = problem.run(FedAvg(), 700, steps=steps, lr=0.002)
    assert distance(averaged, inconsistent) < 0.1 * gap
    assert distance(averaged, true) > 0.9 * gap
    errors = [distance(problem.run(FedNova(), 700, steps=steps, lr=lr), true) for lr in (0.004, 0.002)]
    assert errors[1] < 0.1 * gap
    assert 1.8 < errors[0] / errors[1] < 2.2


def test_fednova_with_equal_steps_is_fedavg_bit_for_bit() -> None:
    problem = Quadratics()
    assert np.array_equal(problem.run(FedNova(), 50), problem.run(FedAvg(), 50))
