"""Ordered Adam against PyTorch's Adam, the sums that its moments are, and a plain statement of its steps."""

import math

import numpy as np
import pytest
import torch

from fedbench.algorithms.ordered_adam import OrderedAdam, OrderedMoments

WORKERS = [1, 2, 3, 4, 7, 16]
BETA1, BETA2, EPS = 0.8, 0.95, 1e-3
METHOD = OrderedAdam(beta1=BETA1, beta2=BETA2, eps=EPS)
START = np.array([1.0, -2.0, 0.5])


def machine_of(method: OrderedAdam, workers: int) -> OrderedMoments:
    machine = method.machine(START, workers)
    assert isinstance(machine, OrderedMoments)
    return machine


def arrivals(workers: int, count: int) -> list[tuple[np.ndarray, int]]:
    """Random gradients of workers of very different speeds, and the index each was computed on."""
    rng = np.random.default_rng(workers)
    order = rng.choice(workers, size=count, p=rng.dirichlet(np.full(workers, 0.5)))
    held = dict.fromkeys(range(workers), 0)
    made = []
    for t, worker in enumerate(order):
        made.append((rng.normal(size=START.shape), held[worker]))
        held[worker] = t + 1
    return made


def moments_of(came: list[tuple[np.ndarray, int]], workers: int, beta: float, power: int) -> np.ndarray:
    """The closed form of m (power 1) or v (power 2) after these arrivals."""
    current = math.ceil((len(came) - 1) / workers)
    return sum(
        beta ** (current - math.ceil(ite / workers)) * (1 - beta) * gradient**power / workers for gradient, ite in came
    )


@pytest.mark.parametrize("settings", [{}, {"beta1": 0.0}, {"beta1": 0.5, "beta2": 0.9, "eps": 1e-2}], ids=str)
def test_k1_is_torchs_adam(settings: dict[str, float]) -> None:
    method = OrderedAdam(server_lr=0.5, **settings)
    parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    reference = torch.optim.Adam([parameter], lr=0.02, betas=(method.beta1, method.beta2), eps=method.eps)
    machine = machine_of(method, workers=1)
    sent, index = machine.pull(0)
    for noise in np.random.default_rng(0).normal(size=(200, *START.shape)):
        parameter.grad = torch.from_numpy(3 * parameter.detach().numpy() + noise)
        reference.step()
        sent, index = machine.push(3 * sent + noise, index, 0, lr=0.04)
        np.testing.assert_allclose(sent, parameter.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("workers", WORKERS)
def test_moments_have_their_closed_form_after_every_arrival(workers: int) -> None:
    came = arrivals(workers, count=70)
    machine = machine_of(METHOD, workers)
    for n, (gradient, ite) in enumerate(came, start=1):
        machine.push(gradient, ite, 0, lr=0.1)
        np.testing.assert_allclose(machine.first, moments_of(came[:n], workers, BETA1, 1), rtol=0, atol=1e-13)
        np.testing.assert_allclose(machine.second, moments_of(came[:n], workers, BETA2, 2), rtol=0, atol=1e-13)


@pytest.mark.parametrize("workers", WORKERS)
def test_each_step_is_the_momentum_that_is_due_over_the_root_of_the_new_second_moment(workers: int) -> None:
    # What is due to a gradient by bucket c is (1 + ... + beta_1^d) (1 - beta_1) / K of it: a step is what it grew by.
    came = arrivals(workers, count=70)
    machine = machine_of(METHOD, workers)
    due, w = np.zeros_like(START), START
    for n, (gradient, ite) in enumerate(came, start=1):
        machine.push(gradient, ite, 0, lr=0.1)
        current = math.ceil((n - 1) / workers)
        lates = [current - math.ceil(one / workers) for _, one in came[:n]]
        before, due = (
            due,
            sum(
                sum(BETA1**i for i in range(late + 1)) * (1 - BETA1) / workers * one
                for late, (one, _) in zip(lates, came[:n], strict=True)
            ),
        )
        corrected = moments_of(came[:n], workers, BETA2, 2) / (1 - BETA2 ** (current + 1))
        w = w - 0.1 * (due - before) / (1 - BETA1 ** (current + 1)) / (np.sqrt(corrected) + EPS)
        np.testing.assert_allclose(machine.parameters, w, rtol=0, atol=1e-11)


@pytest.mark.parametrize("workers", WORKERS)
def test_k_updates_in_lock_step_move_a_parameter_by_the_learning_rate(workers: int) -> None:
    machine = machine_of(OrderedAdam(beta2=0.99, eps=1e-12), workers)
    held = [0] * workers
    marks = []
    for _ in range(600):
        for worker in range(workers):
            held[worker] = machine.push(np.array([5.0, -0.1, 1e-4]), held[worker], worker, lr=0.01)[1]
        marks.append(machine.parameters)
    np.testing.assert_allclose(marks[-1] - marks[-2], [-0.01, 0.01, -0.01], rtol=0.02)


def test_the_first_step_is_longer_by_the_root_of_k() -> None:
    sent, _ = machine_of(OrderedAdam(eps=1e-12), workers=16).push(np.array([5.0, -0.1, 1e-4]), 0, 0, lr=0.01)
    np.testing.assert_allclose(sent - START, np.array([-1, 1, -1]) * 0.01 / 16 * 4)
