"""OrMo against its closed form, a hand example, asynchronous SGD, and PyTorch's Nesterov momentum."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fedbench.algorithms.arrivals import ArrivalRule, AsyncAlgorithm
from fedbench.algorithms.asgd import Asgd
from fedbench.algorithms.ormo import OrderedMomentum, OrMo, OrMoDA, OrMoDAFree, OrMoVanilla

WORKERS = [1, 2, 3, 4, 7, 16]
BETA = 0.8
START = np.array([1.0, -2.0, 0.5])


@dataclass(frozen=True)
class Arrival:
    """A gradient, the index of the parameters it was computed on, and the learning rate when it arrives."""

    gradient: np.ndarray
    ite: int
    lr: float


def arrivals(order: list[int], seed: int = 0) -> list[Arrival]:
    """Random gradients and learning rates, from workers that answer in this order."""
    rng = np.random.default_rng(seed)
    held = dict.fromkeys(order, 0)
    made = []
    for t, worker in enumerate(order):
        made.append(Arrival(rng.normal(size=START.shape), held[worker], rng.uniform(0.01, 0.1)))
        held[worker] = t + 1
    return made


def random_order(workers: int, count: int, seed: int = 0) -> list[int]:
    """Workers of very different speeds, so that some delays are many times K."""
    rng = np.random.default_rng(seed)
    speeds = rng.dirichlet(np.full(workers, 0.5))
    return [int(worker) for worker in rng.choice(workers, size=count, p=speeds)]


def shuffled_rounds(workers: int, count: int, seed: int = 0) -> list[int]:
    """Each worker answers once a round, so that no delay exceeds 2K - 2."""
    rng = np.random.default_rng(seed)
    return [int(worker) for _ in range(count) for worker in rng.permutation(workers)]


def pushed(algorithm: AsyncAlgorithm, came: list[Arrival], workers: int) -> ArrivalRule:
    machine = algorithm.machine(START, workers)
    for arrival in came:
        machine.push(arrival.gradient, arrival.ite, 0, arrival.lr)
    return machine


def powers(beta: float, first: int, last: int) -> float:
    """beta^first + ... + beta^last."""
    return sum(beta**i for i in range(first, last + 1))


def closed_form(came: list[Arrival], workers: int, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """u and w after all of them."""
    current = math.ceil((len(came) - 1) / workers)
    u, w = np.zeros_like(START), START.copy()
    for arrival in came:
        late = current - math.ceil(arrival.ite / workers)
        u += beta**late * arrival.lr * arrival.gradient
        w -= powers(beta, 0, late) * arrival.lr * arrival.gradient
    return u, w


def check_closed_form(machine: ArrivalRule, came: list[Arrival], workers: int) -> None:
    assert isinstance(machine, OrderedMomentum)
    u, w = closed_form(came, workers, BETA)
    np.testing.assert_allclose(machine.buffer, u, rtol=0, atol=1e-13)
    np.testing.assert_allclose(machine.parameters, w, rtol=0, atol=1e-13)


def test_hand_example_digit_for_digit() -> None:
    machine = OrMo(momentum=0.5).machine(np.array([0.0]), workers=2)
    assert isinstance(machine, OrderedMomentum)
    seen = []
    for t, (gradient, ite) in enumerate([(1.0, 0), (2.0, 1), (4.0, 0), (8.0, 2)]):
        sent, index = machine.push(np.array([gradient]), ite, worker=0)
        assert sent is machine.parameters
        assert index == t + 1
        seen.append((machine.buffer.item(), sent.item()))
    assert seen == [(1.0, -1.0), (2.5, -3.5), (4.5, -9.5), (6.25, -23.75)]


@pytest.mark.parametrize("workers", WORKERS)
def test_momentum_and_parameters_have_their_closed_form_after_every_arrival(workers: int) -> None:
    came = arrivals(random_order(workers, count=70))
    for n in range(1, len(came) + 1):
        check_closed_form(pushed(OrMo(momentum=BETA), came[:n], workers), came[:n], workers)


@pytest.mark.parametrize("workers", WORKERS[1:])
def test_the_order_of_arrival_changes_nothing(workers: int) -> None:
    came = arrivals(random_order(workers, count=70))
    rng = np.random.default_rng(2)
    for _ in range(5):
        waiting, other = list(came), []
        while waiting:
            # What has been sent out by now may arrive: its index is not above the number of those that came.
            possible = [i for i, arrival in enumerate(waiting) if arrival.ite <= len(other)]
            other.append(waiting.pop(int(rng.choice(possible))))
        assert [arrival.ite for arrival in other] != [arrival.ite for arrival in came]
        check_closed_form(pushed(OrMo(momentum=BETA), other, workers), came, workers)


@pytest.mark.parametrize("workers", WORKERS)
def test_vanilla_has_a_closed_form_that_knows_when_each_gradient_came(workers: int) -> None:
    # A gradient that came d buckets late, and would be D late by now: 1 at once, then beta^(d+1) + ... + beta^D.
    came = arrivals(random_order(workers, count=70))
    machine = pushed(OrMoVanilla(momentum=BETA), came, workers)
    current = math.ceil((len(came) - 1) / workers)
    w = START.copy()
    for t, arrival in enumerate(came):
        own = math.ceil(arrival.ite / workers)
        late = math.ceil(t / workers) - own
        w -= (1 + powers(BETA, late + 1, current - own)) * arrival.lr * arrival.gradient
    np.testing.assert_allclose(machine.parameters, w, rtol=0, atol=1e-13)
    assert isinstance(machine, OrderedMomentum)
    np.testing.assert_allclose(machine.buffer, closed_form(came, workers, BETA)[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", [OrMo, OrMoVanilla, OrMoDAFree])
@pytest.mark.parametrize("workers", WORKERS)
def test_without_momentum_it_is_asynchronous_sgd_bit_for_bit(method: type[OrMo], workers: int) -> None:
    came = arrivals(shuffled_rounds(workers, count=70 // workers))
    assert pushed(method(momentum=0), came, workers).parameters.tobytes() == (
        pushed(Asgd(), came, workers).parameters.tobytes()
    )


@pytest.mark.parametrize("workers", WORKERS[1:])
@pytest.mark.parametrize("barrier", [True, False], ids=["barrier", "round robin"])
def test_lock_step_is_nesterovs_momentum_on_the_summed_gradient(workers: int, barrier: bool) -> None:
    # Whether a worker is sent what the server has at the barrier or right after its own update: the bucket is the same.
    rng = np.random.default_rng(3)
    parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    reference = torch.optim.SGD([parameter], lr=0.05, momentum=BETA, nesterov=True)
    machine = OrMo(momentum=BETA).machine(START, workers)
    held = [0] * workers
    for _ in range(8):
        gradients = rng.normal(size=(workers, *START.shape))
        if barrier:
            gradients += machine.parameters  # that of a quadratic, at the parameters that all of them have
            held = [machine.index] * workers
        parameter.grad = torch.from_numpy(gradients.sum(axis=0))
        reference.step()
        for worker, gradient in enumerate(gradients):
            held[worker] = machine.push(gradient, held[worker], worker, lr=0.05)[1]
        np.testing.assert_allclose(machine.parameters, parameter.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("workers", WORKERS)
def test_delays_add_up_to_at_most_k_minus_1_an_arrival(workers: int) -> None:
    count = 20 * workers
    lock_step = list(range(workers)) * 20
    orders = [random_order(workers, count, seed) for seed in range(5)] + [
        lock_step,
        shuffled_rounds(workers, count=20),
        [workers - 1] * (count - workers) + list(range(workers)),  # all but one starve
    ]
    for order in orders:
        machine = OrMo().machine(START, workers)
        held = [machine.pull(worker)[1] for worker in range(workers)]
        delays = []
        for worker in order:
            delays.append(machine.index - held[worker])
            held[worker] = machine.push(np.zeros(3), held[worker], worker)[1]
        assert min(delays) >= 0
        assert sum(delays) <= (workers - 1) * count
        if order == lock_step:
            assert sum(delays) == (workers - 1) * count - workers * (workers - 1) // 2


@pytest.mark.parametrize("adaptive", [OrMoDA(momentum=BETA, smoothness=100), OrMoDAFree(momentum=BETA)])
@pytest.mark.parametrize("workers", WORKERS)
def test_delay_adaptive_is_ormo_while_delays_are_at_most_2k(adaptive: OrMo, workers: int) -> None:
    came = arrivals(shuffled_rounds(workers, count=10))
    plain = pushed(OrMo(momentum=BETA), came, workers).parameters
    assert pushed(adaptive, came, workers).parameters.tobytes() == plain.tobytes()


@pytest.mark.parametrize("workers", WORKERS[1:])
def test_delay_adaptive_differs_from_a_delay_of_2k_plus_1_on(workers: int) -> None:
    for delay, differs in [(2 * workers, False), (2 * workers + 1, True)]:
        came = arrivals([1] * delay + [0])
        assert len(came) - 1 - came[-1].ite == delay
        plain = pushed(OrMo(momentum=BETA), came, workers).parameters
        for adaptive in (OrMoDA(momentum=BETA, smoothness=100), OrMoDAFree(momentum=BETA)):
            assert (pushed(adaptive, came, workers).parameters != plain).all() == differs


@pytest.mark.parametrize("workers", WORKERS[1:])
def test_delay_adaptive_is_ormo_at_the_adapted_learning_rate(workers: int) -> None:
    came = arrivals(random_order(workers, count=120))
    delays = [t - arrival.ite for t, arrival in enumerate(came)]
    assert max(delays) > 2 * workers
    for smoothness in (0.01, 0.3, 20.0):
        rates = [
            arrival.lr if delay <= 2 * workers else min(arrival.lr, 1 / (4 * smoothness * delay))
            for arrival, delay in zip(came, delays, strict=True)
        ]
        adapted = [Arrival(a.gradient, a.ite, rate) for a, rate in zip(came, rates, strict=True)]
        check_closed_form(pushed(OrMoDA(momentum=BETA, smoothness=smoothness), came, workers), adapted, workers)


@pytest.mark.parametrize("workers", WORKERS[1:])
def test_the_stand_in_without_smoothness_scales_by_2k_over_the_delay(workers: int) -> None:
    came = arrivals(random_order(workers, count=120))
    adapted = [Arrival(a.gradient, a.ite, a.lr * min(1, 2 * workers / max(t - a.ite, 1))) for t, a in enumerate(came)]
    assert adapted != came
    check_closed_form(pushed(OrMoDAFree(momentum=BETA), came, workers), adapted, workers)
