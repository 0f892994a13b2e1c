"""The methods that OrMo is compared with, each against a few plain lines that say the same."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fedbench.algorithms.arrivals import ArrivalRule, AsyncAlgorithm
from fedbench.algorithms.asgd import Asgd, NaiveAsgdm
from fedbench.algorithms.ca2fl import Ca2fl
from fedbench.algorithms.dana import DanaZero, LookAhead
from fedbench.algorithms.fadas import Fadas
from fedbench.algorithms.fedasync import FedAsync
from fedbench.algorithms.fedbuff import FedBuff
from fedbench.algorithms.shifted_momentum import ShiftedMomentum
from fedbench.algorithms.smega2 import Smega2
from fedbench.algorithms.ssgd import SyncNesterov, SyncSgdm

WORKERS = [1, 2, 3, 4, 7, 16]
BETA = 0.8
START = np.array([1.0, -2.0, 0.5])
CURVATURE = np.array([0.1, 0.5, 1.0])

Step = Callable[[np.ndarray, int, float], tuple[np.ndarray, np.ndarray]]
"""A gradient, its worker and the learning rate, to w and to what the worker is sent."""


def plain(workers: int) -> Step:
    w = START

    def step(g: np.ndarray, k: int, lr: float) -> tuple[np.ndarray, np.ndarray]:
        nonlocal w
        w = w - lr * g
        return w, w

    return step


def naive_momentum(workers: int) -> Step:
    steps: list[np.ndarray] = []

    def step(g: np.ndarray, k: int, lr: float) -> tuple[np.ndarray, np.ndarray]:
        steps.append(lr * g)
        ages = range(len(steps) - 1, -1, -1)
        w = START - sum(sum(BETA**i for i in range(age + 1)) * s for age, s in zip(ages, steps, strict=True))
        return w, w

    return step


def momentum_per_worker(workers: int) -> Step:
    w, mine = START, {k: [] for k in range(workers)}

    def step(g: np.ndarray, k: int, lr: float) -> tuple[np.ndarray, np.ndarray]:
        nonlocal w
        mine[k].insert(0, g)
        w = w - lr * sum(BETA**age * old for age, old in enumerate(mine[k]))
        return w, w

    return step


def look_ahead(workers: int) -> Step:
    w, v = START, {k: np.zeros_like(START) for k in range(workers)}

    def step(g: np.ndarray, k: int, lr: float) -> tuple[np.ndarray, np.ndarray]:
        nonlocal w
        v[k] = BETA * v[k] + g
        w = w - lr * v[k]
        return w, w - lr * BETA * sum(v.values())

    return step


def single_buffer(workers: int) -> Step:
    w, m, cycle = START, np.zeros_like(START), []

    def step(g: np.ndarray, k: int, lr: float) -> tuple[np.ndarray, np.ndarray]:
        nonlocal w, m, cycle
        w = w - lr * (g + BETA * m)
        cycle = [*cycle, g]
        if len(cycle) == workers:
            m, cycle = BETA * m + sum(cycle) / workers, []
        s, a = len(cycle), sum(cycle)
        return w, w - lr * BETA * ((workers + s * (BETA - 1)) * m + s / workers * a)

    return step


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(
    ("method", "stated"),
    [
        (Asgd(), plain),
        (NaiveAsgdm(momentum=BETA), naive_momentum),
        (ShiftedMomentum(momentum=BETA), momentum_per_worker),
        (DanaZero(momentum=BETA), look_ahead),
        (Smega2(momentum=BETA), single_buffer),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_parameters_and_what_is_sent_are_as_stated(
    method: AsyncAlgorithm, stated: Callable[[int], Step], workers: int
) -> None:
    rng = np.random.default_rng(workers)
    machine, step = method.machine(START, workers), stated(workers)
    held = [machine.pull(worker) for worker in range(workers)]
    expected = [START] * workers
    for sent, index in held:
        np.testing.assert_array_equal(sent, START)
        assert index == 0
    for t in range(60):
        worker, noise, lr = int(rng.integers(workers)), rng.normal(size=START.shape), rng.uniform(0.005, 0.02)
        held[worker] = machine.push(CURVATURE * held[worker][0] + noise, held[worker][1], worker, lr)
        w, expected[worker] = step(CURVATURE * expected[worker] + noise, worker, lr)
        assert held[worker][1] == t + 1
        np.testing.assert_allclose(machine.parameters, w, rtol=0, atol=1e-12)
        np.testing.assert_allclose(held[worker][0], expected[worker], rtol=0, atol=1e-12)


def test_danas_sum_is_that_of_the_buffers_also_after_gradients_a_million_times_larger() -> None:
    rng = np.random.default_rng(0)
    machine = DanaZero(momentum=BETA).machine(START.astype(np.float32), workers=4)
    assert isinstance(machine, LookAhead)
    for t in range(400):
        scale = 1e6 if t < 50 else 1.0
        machine.push((scale * rng.normal(size=3)).astype(np.float32), t, int(rng.integers(4)), lr=1e-3)
    exact = machine.buffers.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(machine.total, exact, rtol=0, atol=4e-6 * np.abs(machine.buffers).max())


STALENESS: dict[str, tuple[FedAsync, Callable[[int], float]]] = {
    "constant": (FedAsync(staleness="constant"), lambda tau: 1.0),
    "polynomial": (FedAsync(), lambda tau: 1 / math.sqrt(tau + 1)),
    "polynomial with exponent": (FedAsync(mixing=0.9, a=2), lambda tau: 1 / (tau + 1) ** 2),
    "hinge": (FedAsync(staleness="hinge"), lambda tau: 1.0 if tau <= 4 else 1 / (10 * (tau - 4) + 1)),
    "hinge with a and b": (
        FedAsync(staleness="hinge", mixing=1.0, a=0.5, b=0),
        lambda tau: 1.0 if tau <= 0 else 1 / (0.5 * tau + 1),
    ),
}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("case", list(STALENESS))
def test_fedasync_mixes_the_clients_models(case: str, workers: int) -> None:
    method, weight = STALENESS[case]
    rng = np.random.default_rng(workers)
    machine = method.machine(START, workers)
    held = [machine.pull(worker) for worker in range(workers)]
    w = START
    delays = set()
    for t in range(80):
        worker = int(rng.integers(workers))
        sent, index = held[worker]
        client = 0.7 * sent + rng.normal(size=START.shape)
        # The paper's server computes w_t, t = 1, 2, ..., and a client that started from w_{t-1} has the staleness 1.
        staleness = (t + 1) - index
        delays.add(staleness)
        alpha = method.mixing * weight(staleness)
        w = (1 - alpha) * w + alpha * client
        held[worker] = machine.push(sent - client, index, worker)
        np.testing.assert_allclose(machine.parameters, w, rtol=0, atol=1e-12)
    assert min(delays) == 1
    assert max(delays) > 4 or workers < 4


def test_a_model_that_none_has_overtaken_has_the_staleness_1() -> None:
    machine = FedAsync(mixing=0.8, a=1.0).machine(START, workers=1)
    machine.pull(0)
    machine.push(START, 0, 0)  # the client's model is 0
    np.testing.assert_allclose(machine.parameters, (1 - 0.8 / 2) * START, rtol=0, atol=1e-15)


def test_fedasync_keeps_no_copy_of_what_it_sent() -> None:
    machine = FedAsync().machine(START, workers=2)
    assert machine.pull(0)[0] is START
    assert machine.sent[0] is START  # type: ignore[attr-defined]
    sent, _ = machine.push(np.ones(3), 0, worker=0)
    assert machine.sent[0] is sent is machine.parameters  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 3, 16])
@pytest.mark.parametrize(("size", "server_lr"), [(1, 1.0), (3, 0.5), (10, 1.0)])
def test_fedbuff_steps_once_in_m_answers(size: int, server_lr: float, workers: int) -> None:
    method = FedBuff(buffer_size=size, server_lr=server_lr)
    assert method.period(workers) == size
    rng = np.random.default_rng(0)
    machine = method.machine(START, workers)
    held = [machine.pull(worker) for worker in range(workers)]
    models, buffer = [START], []
    begun = [0] * workers
    for _ in range(65):
        worker = int(rng.integers(workers))
        sent, index = held[worker]
        assert index == begun[worker]
        client = 0.7 * models[begun[worker]] + rng.normal(size=START.shape)
        buffer.append((models[begun[worker]] - client, begun[worker]))
        held[worker] = machine.push(sent - client, index, worker)
        if len(buffer) == size:
            steps = len(models) - 1
            mean = sum(delta / math.sqrt(1 + steps - start) for delta, start in buffer) / size
            models.append(models[-1] - server_lr * mean)
            buffer = []
        begun[worker] = len(models) - 1
        np.testing.assert_allclose(machine.parameters, models[-1], rtol=0, atol=1e-12)
    assert machine.index == len(models) - 1 == 65 // size


@pytest.mark.parametrize("workers", [1, 3, 16])
@pytest.mark.parametrize("delay_adaptive", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_fadas_takes_an_adaptive_step_once_in_m_answers(size: int, delay_adaptive: bool, workers: int) -> None:
    method = Fadas(buffer_size=size, server_lr=0.1, delay_adaptive=delay_adaptive, delay_threshold=2, eps=1e-2)
    assert method.period(workers) == size
    rng = np.random.default_rng(0)
    machine = method.machine(START, workers)
    held = [machine.pull(worker) for worker in range(workers)]
    w, m, v, seen, arrived, rates = START, np.zeros(3), np.zeros(3), [np.zeros(3)], [], set()
    for _ in range(64):
        worker = int(rng.integers(workers))
        sent, index = held[worker]
        client = 0.7 * sent + rng.normal(size=3)
        arrived.append((client - sent, machine.index - index))
        held[worker] = machine.push(sent - client, index, worker)
        if len(arrived) == size:
            change = sum(delta for delta, _ in arrived) / size
            m, v = 0.9 * m + 0.1 * change, 0.99 * v + 0.01 * change**2
            seen.append(v)
            latest = max(delay for _, delay in arrived)
            rate = 0.1 / latest if delay_adaptive and latest > 2 else 0.1
            w = w + rate * m / (np.sqrt(np.max(seen, axis=0)) + 1e-2)
            rates.add(rate)
            arrived = []
        np.testing.assert_allclose(machine.parameters, w, rtol=0, atol=1e-12)
        assert held[worker][1] == len(seen) - 1
    assert (len(rates) > 1) == (delay_adaptive and workers > 1)


@pytest.mark.parametrize("clients", [1, 3, 16])
@pytest.mark.parametrize(("size", "server_lr"), [(1, 1.0), (3, 0.5), (10, 1.0)])
def test_ca2fl_calibrates_its_steps_with_what_it_keeps_of_each_client(
    size: int, server_lr: float, clients: int
) -> None:
    method = Ca2fl(buffer_size=size, server_lr=server_lr)
    assert method.period(clients) == size
    assert method.count_workers(tasks=2, clients=clients) == clients
    rng = np.random.default_rng(0)
    machine = method.machine(START, clients)
    w, h, buffer = START, np.zeros((clients, 3)), []
    for t in range(65):
        client = int(rng.integers(clients))
        sent, index = machine.pull(client)
        assert index == t // size
        delta = sent - 0.7 * sent + rng.normal(size=3)
        buffer.append((client, delta))
        machine.push(delta, index, client)
        if len(buffer) == size:
            v = h.mean(axis=0) + sum(answer - h[i] for i, answer in buffer) / size
            w = w - server_lr * v
            for i, answer in buffer:
                h[i] = answer
            buffer = []
        np.testing.assert_allclose(machine.parameters, w, rtol=0, atol=1e-12)
    assert machine.index == 65 // size


def test_ca2fl_is_fedbuff_without_its_weights_while_nothing_is_cached() -> None:
    """In the first step, whichever clients answer, even twice; and for good if the caches are emptied."""
    calibrated, buffered = Ca2fl(buffer_size=4).machine(START, 5), FedBuff(buffer_size=4).machine(START, 5)
    rng = np.random.default_rng(3)
    for step in range(6):
        for client in rng.integers(5, size=4):
            delta = rng.normal(size=3)
            calibrated.push(delta, calibrated.index, int(client))
            buffered.push(delta, buffered.index, int(client))
        np.testing.assert_allclose(calibrated.parameters, buffered.parameters, rtol=0, atol=1e-12)
        calibrated.cached.clear()  # type: ignore[attr-defined]
        calibrated.cached_sum.fill(0)  # type: ignore[attr-defined]
        assert calibrated.index == step + 1


def test_ca2fl_with_one_client_and_buffer_1_takes_each_answer_whole() -> None:
    machine, w = Ca2fl(buffer_size=1).machine(START, 1), START
    for delta in np.random.default_rng(4).normal(size=(9, 3)):
        machine.push(delta, machine.index, 0)
        w = w - delta
        np.testing.assert_allclose(machine.parameters, w, rtol=0, atol=1e-12)


def test_ca2fl_with_buffer_1_moves_by_the_answers_of_all_after_one_each() -> None:
    """First arrivals meet empty caches: the i-th of N moves w by its answer and by 1/N of each one before it."""
    deltas = np.random.default_rng(5).normal(size=(4, 3))
    machine, w = Ca2fl(buffer_size=1).machine(START, 4), START
    for client, delta in enumerate(deltas):
        machine.push(delta, machine.index, client)
        w = w - delta - deltas[:client].sum(axis=0) / 4
        np.testing.assert_allclose(machine.parameters, w, rtol=0, atol=1e-12)


def test_ca2fl_keeps_one_vector_for_each_client_that_has_answered() -> None:
    machine = Ca2fl(buffer_size=2).machine(START, 1000)
    for client in (7, 3, 7, 999):
        machine.push(np.ones(3), machine.index, client)
    assert sorted(machine.state()["cached"]) == [3, 7, 999]
    assert machine.state()["latest"] == {}


def lock_steps(machine: ArrivalRule, workers: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The gradients of each lock-step and the parameters after it; the workers answer in any order."""
    rng = np.random.default_rng(workers)
    made = []
    for _ in range(count):
        sent, index = machine.pull(0)
        gradients = rng.normal(size=(workers, len(START))) + CURVATURE * sent
        for n, worker in enumerate(rng.permutation(workers)):
            assert machine.parameters is sent, "changed before all have answered"
            assert machine.push(gradients[worker], index, int(worker), lr=0.05)[1] == index + n + 1
        assert machine.parameters is not sent
        made.append((gradients, machine.parameters))
    return made


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("method", [SyncSgdm(momentum=BETA), SyncNesterov(momentum=BETA)], ids=lambda one: one.name)
def test_synchronous_momentum_is_torchs_on_the_summed_gradient(method: SyncSgdm, workers: int) -> None:
    assert method.barrier
    assert method.period(workers) == workers
    parameter = torch.nn.Parameter(torch.from_numpy(START.copy()))
    nesterov = isinstance(method, SyncNesterov)
    reference = torch.optim.SGD([parameter], lr=0.05, momentum=BETA, nesterov=nesterov)
    for gradients, after in lock_steps(method.machine(START, workers), workers, count=12):
        parameter.grad = torch.from_numpy(gradients.sum(axis=0))
        reference.step()
        np.testing.assert_allclose(after, parameter.detach().numpy(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("workers", WORKERS)
def test_synchronous_heavy_ball_is_the_papers_shift_once_a_lock_step(workers: int) -> None:
    w, u = START, np.zeros_like(START)
    for gradients, after in lock_steps(SyncSgdm(momentum=BETA).machine(START, workers), workers, count=12):
        w, u = w - BETA * u, BETA * u
        for gradient in gradients:
            w, u = w - 0.05 * gradient, u + 0.05 * gradient
        np.testing.assert_allclose(after, w, rtol=0, atol=1e-11)
