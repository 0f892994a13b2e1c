"""The problems of a convergence study: gradients and constants against autograd and closed forms."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from fedbench.algorithms.base import Values
from fedbench.analysis.convergence.problems import PARAMETERS, KnownProblem, Logistic, Quadratic, equal_groups

SEED = 0


def loss_in_torch(problem: KnownProblem, w: Tensor) -> Tensor:
    """f(w) once more, from what the problem was drawn as."""
    if isinstance(problem, Quadratic):
        differences = w - torch.from_numpy(problem._centres)
        return torch.einsum("bp,bpq,bq->b", differences, torch.from_numpy(problem._blocks), differences).mean() / 2
    assert isinstance(problem, Logistic)
    features = torch.from_numpy(problem.pixels.reshape(-1, PARAMETERS) / 127.5 - 1)
    labels = torch.from_numpy(problem.labels.reshape(-1)).double()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(features @ w, labels)
    return losses + problem.penalty / 2 * w.square().sum()


def somewhere(seed: int) -> Values:
    return np.random.default_rng(seed).normal(size=PARAMETERS)


@pytest.fixture(params=[Quadratic, Logistic], ids=["quadratic", "logistic"])
def problem(request: pytest.FixtureRequest) -> KnownProblem:
    made: KnownProblem = request.param(4, SEED)
    return made


def test_loss_and_gradient_are_those_of_autograd(problem: KnownProblem) -> None:
    for seed in range(3):
        w = torch.tensor(somewhere(seed), requires_grad=True)
        loss = loss_in_torch(problem, w)
        (gradient,) = torch.autograd.grad(loss, w)
        assert problem.loss(w.detach().numpy()) == pytest.approx(float(loss.detach()), rel=1e-12)
        np.testing.assert_allclose(problem.gradient(w.detach().numpy()), gradient.numpy(), rtol=1e-10, atol=1e-13)


def test_no_curvature_is_larger_than_the_smoothness_constant(problem: KnownProblem) -> None:
    largest = []
    for w in (problem.start, somewhere(1), 10 * somewhere(2)):
        hessian = torch.func.hessian(lambda v: loss_in_torch(problem, v))(torch.from_numpy(w))
        largest.append(float(torch.linalg.eigvalsh(hessian)[-1]))
    assert max(largest) <= problem.smoothness * (1 + 1e-12)
    # The quadratic has one curvature; logistic regression has its largest one at 0, where it starts.
    assert largest[0] == pytest.approx(problem.smoothness, rel=1e-9)


def test_the_minimum_is_what_a_minimiser_finds(problem: KnownProblem) -> None:
    found = minimize(problem.loss, problem.start, jac=problem.gradient, method="BFGS", options={"gtol": 1e-10})
    assert problem.minimum == pytest.approx(found.fun, rel=1e-9)
    assert problem.gap > 0.1


def test_the_problem_is_the_same_for_every_number_of_clients(problem: KnownProblem) -> None:
    w = somewhere(3)
    for clients in (1, 2, 16):
        other = type(problem)(clients, SEED)  # type: ignore[call-arg]
        assert other.loss(w) == pytest.approx(problem.loss(w), rel=1e-12)
        np.testing.assert_allclose(other.gradient(w), problem.gradient(w), rtol=1e-12, atol=1e-14)
        assert (other.smoothness, other.variance) == pytest.approx((problem.smoothness, problem.variance))


def test_the_clients_exact_gradients_differ_and_have_the_whole_one_as_their_mean(problem: KnownProblem) -> None:
    w = somewhere(4)
    points = np.tile(w, (4, 1))
    if isinstance(problem, Quadratic):
        exact = problem.client_gradients(points, [np.zeros(PARAMETERS)] * 4)
    else:
        exact = problem.client_gradients(points, [np.arange(256)] * 4)
    np.testing.assert_allclose(exact.mean(0), problem.gradient(w), rtol=1e-10, atol=1e-13)
    assert np.linalg.norm(exact[0] - exact[1]) > 0.02


def test_gradients_are_unbiased_and_their_variance_is_bounded(problem: KnownProblem) -> None:
    rounds, w = 1500, problem.start
    points = np.tile(w, (4, 1))
    drawn = np.stack(
        [problem.client_gradients(points, problem.round_draws(SEED, index, 1)[0]) for index in range(rounds)]
    )
    noise = drawn - drawn.mean(0)
    measured = float(np.square(noise).sum(2).mean())
    assert measured <= problem.variance * 1.05
    if isinstance(problem, Quadratic):
        assert measured == pytest.approx(problem.variance, rel=0.05)
    error = np.linalg.norm(drawn.mean((0, 1)) - problem.gradient(w))
    assert error < 4 * np.sqrt(problem.variance / (4 * rounds))


def test_every_worker_draws_from_all_of_the_data(problem: KnownProblem) -> None:
    w, visits = somewhere(5), 1024
    for worker in (0, 3):
        drawn = np.stack([problem.worker_gradient(w, SEED, worker, visit) for visit in range(visits)])
        error = np.linalg.norm(drawn.mean(0) - problem.gradient(w))
        assert error < 4 * np.sqrt(problem.variance / visits)


def test_groups_of_unequal_size_are_refused() -> None:
    assert equal_groups(PARAMETERS, 8).group_size(7) == 4
    with pytest.raises(ValueError, match="3 groups of equal size cannot hold 32 parameters"):
        equal_groups(PARAMETERS, 3)
