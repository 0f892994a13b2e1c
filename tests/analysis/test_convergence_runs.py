"""Runs on known problems: fedbench's own engine on the same problem, closed forms, and the sum of the delays."""

import numpy as np
import pytest
import torch
from logistic_problem import engine_config

from fedbench.algorithms.fedavg import FedAvg
from fedbench.algorithms.ormo import OrMo
from fedbench.analysis.convergence.arrivals import follow_arrivals
from fedbench.analysis.convergence.problems import PARAMETERS, Logistic, Quadratic, equal_groups
from fedbench.analysis.convergence.rounds import follow_rounds, squared_norm
from fedbench.analysis.convergence.series import DELAYS, Series, all_series, measure, round_schedule
from fedbench.analysis.convergence.theory import arrival_step, round_bound, round_step
from fedbench.engine.arrivals.clocks import make_clock
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.engine.interfaces import ArrivalExecutor, RoundExecutor
from fedbench.engine.rounds.loop import RoundLoop
from fedbench.experiment.run import prepared
from fedbench.planning.delays import DelaysSection

pytestmark = pytest.mark.usefixtures("flops_counted_once")


def test_the_masked_norm_is_the_norm_of_the_slice() -> None:
    layout, vector = equal_groups(PARAMETERS, 4), np.arange(PARAMETERS, dtype=np.float64)
    assert squared_norm(vector, layout, (2,)) == float(np.square(vector[16:24]).sum())
    assert squared_norm(vector, layout, (0, 3)) == float(np.square(vector[:8]).sum() + np.square(vector[24:]).sum())
    assert squared_norm(vector, layout, layout.all_groups) == float(vector @ vector)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("groups", [1, 4])
def test_rounds_are_those_of_fedbenchs_engine_on_the_same_problem(groups: int, steps: int) -> None:
    rounds, seed, lr, clients = 12, 3, 0.7, 4
    schedule = ["schedule=full"]
    if groups > 1:
        schedule = ["schedule=sequential", "schedule.warmup_rounds=0", "schedule.rounds_per_group=1"]
        schedule += ["schedule.full_rounds_between_cycles=0", f"schedule.cycles={rounds // groups}"]
    config = engine_config(
        clients, seed, lr, f"model.groups={groups}", f"local.steps={steps}", f"rounds={rounds}", *schedule
    )
    problem, layout = Logistic(clients, 0), equal_groups(PARAMETERS, groups)
    squares = []
    with prepared(config) as (made, executor):
        assert isinstance(executor, RoundExecutor)
        for _ in RoundLoop(executor, made.costs, rounds=rounds).rounds(rounds, lambda: False):
            gradient = problem.gradient(executor.model()[0].astype(np.float64))
            squares.append(float(gradient @ gradient))
    trace = follow_rounds(
        problem,
        layout,
        FedAvg(),
        round_schedule(groups, rounds),
        rounds=rounds,
        steps=steps,
        lr=lr,
        seed=seed,
    )
    np.testing.assert_allclose(trace.whole[1:], squares[:-1], rtol=1e-3)
    assert trace.whole[-1] < 0.9 * trace.whole[0]
    if groups == 1:
        np.testing.assert_array_equal(trace.masked, trace.whole)
    else:
        assert (trace.masked < trace.whole).all()


@pytest.mark.parametrize("delays", DELAYS)
def test_delays_are_those_of_fedbenchs_engine(delays: str) -> None:
    workers, arrivals, seed = 8, 60, 5
    section = DelaysSection.model_validate(DELAYS[delays])  # type: ignore[index]
    config = engine_config(
        workers,
        seed,
        0.01,
        "algorithm=ormo",
        f"rounds={arrivals}",
        "delays.arrivals_per_round=1",
        f"delays.slow_fraction={section.slow_fraction}",
        *(["delays.distribution.name=pareto", "delays.distribution.alpha=1.2"] if delays.startswith("heavy") else []),
    )
    staleness = []
    with prepared(config) as (made, executor):
        assert isinstance(executor, ArrivalExecutor)
        assert made.arrivals is not None
        loop = ArrivalLoop(made.arrivals, executor, make_clock(config, executor.ready), made.costs)
        for finished in loop.rounds(arrivals, lambda: False):
            staleness += [arrival.staleness for arrival in finished.arrivals]
    trace = follow_arrivals(Quadratic(1, 0), OrMo(), section, workers=workers, arrivals=arrivals, lr=0.001, seed=seed)
    assert trace.delays.tolist() == staleness


def test_one_worker_is_heavy_ball_sgd() -> None:
    problem, lr, arrivals, seed = Quadratic(1, 0), 0.01, 40, 2
    trace = follow_arrivals(problem, OrMo(), DelaysSection(), workers=1, arrivals=arrivals, lr=lr, seed=seed)
    w = torch.nn.Parameter(torch.tensor(problem.start))
    optimizer = torch.optim.SGD([w], lr=lr, momentum=0.9)
    squares = []
    for t in range(arrivals):
        at = w.detach().numpy().copy()
        squares.append(float(np.square(problem.gradient(at)).sum()))
        w.grad = torch.from_numpy(problem.worker_gradient(at, seed, 0, t))
        optimizer.step()
    np.testing.assert_allclose(trace.whole, squares, rtol=1e-9)
    assert not trace.delays.any()


@pytest.mark.parametrize("workers", [1, 2, 8, 32])
@pytest.mark.parametrize("delays", DELAYS.values(), ids=DELAYS.keys())
def test_delays_sum_up_to_at_most_k_minus_1_times_t(delays: dict[str, object], workers: int) -> None:
    arrivals, problem = 300, Quadratic(1, 0)
    trace = follow_arrivals(
        problem, OrMo(), DelaysSection.model_validate(delays), workers=workers, arrivals=arrivals, lr=1e-4, seed=1
    )
    assert 0 <= trace.delays.sum() <= (workers - 1) * arrivals


def test_heavy_tails_make_delays_far_above_k() -> None:
    trace = follow_arrivals(
        Quadratic(1, 0),
        OrMo(),
        DelaysSection.model_validate(DELAYS["heavy-tailed delays"]),
        workers=8,
        arrivals=2000,
        lr=1e-4,
        seed=1,
    )
    assert trace.delays.max() > 20 * 8
    assert trace.delays.sum() <= 7 * 2000


def test_step_sizes_and_bound_are_those_of_the_formulas() -> None:
    problem = Quadratic(4, 0)
    gap, smoothness, variance = problem.gap, problem.smoothness, problem.variance
    known = {"gap": gap, "smoothness": smoothness, "variance": variance}
    lr = round_step(**known, groups=2, clients=4, rounds=4096)
    assert lr == pytest.approx(np.sqrt(2 * gap * 8 / (smoothness * variance * 4096)))
    bound = round_bound(problem, lr=lr, groups=2, rounds=4096)
    assert bound == pytest.approx(2 * np.sqrt(2 * gap * smoothness * variance / (8 * 4096)))
    assert round_step(**known, groups=8, clients=16, rounds=1) == 1 / smoothness
    eta = arrival_step(**known, momentum=0.9, workers=8, arrivals=1)
    assert eta == pytest.approx(0.1 / (16 * smoothness))


@pytest.mark.parametrize("groups", [1, 4])
def test_what_is_measured_lies_below_the_bound(groups: int) -> None:
    series = Series("quadratic", "", groups=groups, clients=4)
    for horizon in (16, 256):
        measured = [measure(series, horizon, seed) for seed in range(4)]
        bound = measured[0].bound
        assert bound is not None
        means = [value.masked for value in measured if value.masked is not None]
        assert 0.1 * bound < np.mean(means) < bound


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FedPart, M=4, N=1", "OrMo, K=8, heavy-tailed delays"])
def test_digits_run_in_the_engine(name: str) -> None:
    (series,) = (series for series in all_series("digits") if series.label == name)
    first, again = measure(series, 8, 1), measure(series, 8, 1)
    assert first == again
    assert first.bound is None
    if series.workers is None:
        assert first.masked is not None
        assert 0 < first.masked < first.whole
    else:
        assert first.delay_sum is not None
        assert 0 < first.delay_sum <= 7 * 8
