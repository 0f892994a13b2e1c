"""Refuses runs whose clients would have to compute for longer than anyone waits."""

from collections.abc import Sequence

from fedbench.errors import ConfigError, TooCostly
from fedbench.experiment.limits import expected_arrivals
from fedbench.experiment.setup import Problem
from fedbench.planning.schedules import Feedback

MOST_STEPS = 1_000_000_000
"""Local steps of all clients in a whole run, at most: those of a tiny model take time, too, and hardly any FLOP."""

SAMPLED_ROUNDS = 32
"""Rounds, evenly spread over the run, from which its work is estimated."""


def check_work(problem: Problem) -> None:
    """Check the clients' work of the whole run against `runtime.max_tflop`, and the number of their steps.

    Raises:
        TooCostly: it is more FLOPs.
        ConfigError: it is more steps.
    """
    steps = estimated_steps(problem)
    if steps is not None and steps > MOST_STEPS:
        raise ConfigError(
            f"about {steps:.3g} local steps in {problem.rounds} rounds, at most {MOST_STEPS:,} are taken; lower "
            "rounds, local.epochs or local.steps, or the number of clients"
        )
    tflop, most = estimated_tflop(problem), problem.config.runtime.max_tflop
    if tflop is not None and tflop > most:
        raise TooCostly(
            f"runtime.max_tflop={most:g}: the clients' work will be about {tflop:.3g} TFLOP; see fedbench cost, and "
            "lower rounds, local.epochs or local.steps, clients or the model, or raise runtime.max_tflop",
            tflop,
            most,
        )


def estimated_trainings(problem: Problem) -> float | None:
    """About how often a client is given something to compute in the whole run; None where nobody knows beforehand."""
    if problem.arrivals is not None:
        return expected_arrivals(problem.config, problem.arrivals)
    return float(problem.rounds * problem.cohort_size)


def estimated_steps(problem: Problem) -> float | None:
    """About how many minibatches all clients train on in the whole run; None where nobody knows beforehand."""
    trainings, sizes = estimated_trainings(problem), problem.federation.sizes
    if trainings is None or (problem.arrivals is not None and problem.arrivals.gradient):
        return trainings
    return trainings * problem.server.local.steps_of(sizes[_median_client(sizes)])


def _median_client(sizes: Sequence[int]) -> int:
    return sorted(range(len(sizes)), key=sizes.__getitem__)[len(sizes) // 2]


def estimated_tflop(problem: Problem) -> float | None:
    """About how much all clients compute in the whole run, in 10^12 FLOP; None where nobody knows beforehand."""
    config, layout, plan = problem.config, problem.layout, problem.arrivals
    sizes = problem.federation.sizes
    client, trainings = _median_client(sizes), estimated_trainings(problem)
    if trainings is None:
        return None
    step = max(1, problem.rounds // SAMPLED_ROUNDS)
    flops = []
    for index in range(0, problem.rounds, step):
        active = config.schedule.active(index, layout.groups, config.seed, Feedback.none(layout)).groups
        if plan is not None and plan.gradient:
            flops.append(problem.costs.minibatch_flops(active, min(config.local.batch_size, sizes[client])))
        else:
            flops.append(problem.costs.client_flops(active, client))
    return trainings * (sum(flops) / len(flops)) / 1e12
