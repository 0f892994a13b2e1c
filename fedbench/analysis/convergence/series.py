"""The series of a convergence study: what is run on which problem, with which step size, for each horizon T."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from fedbench.algorithms.fedavg import FedAvg
from fedbench.algorithms.ormo import OrMo, OrMoDA
from fedbench.analysis.convergence.arrivals import ArrivalTrace, follow_arrivals
from fedbench.analysis.convergence.problems import PARAMETERS, KnownProblem, Logistic, Quadratic, equal_groups
from fedbench.analysis.convergence.rounds import RoundTrace, follow_rounds
from fedbench.analysis.convergence.theory import Constants, arrival_step, round_bound, round_step
from fedbench.planning.delays import DelaysSection
from fedbench.planning.schedules import Full, Schedule, Sequential

ProblemName = Literal["quadratic", "logistic", "digits"]

MOMENTUM = 0.9
"""beta of OrMo in all series."""

ARRIVAL_NOISE = 16.0
"""sigma^2 of the quadratic problem in asynchronous series, where no mean over clients lowers it."""

Delays = Literal["gamma", "slow workers", "heavy-tailed delays"]
"""How long gradients take; see `DELAYS`."""

DELAYS: dict[Delays, dict[str, Any]] = {
    "gamma": {},
    "slow workers": {"slow_fraction": 0.25},
    "heavy-tailed delays": {"distribution": {"name": "pareto", "alpha": 1.2}},
}
"""Keys of the configuration section `delays`.

"gamma" is its default, "slow workers" makes a quarter of the workers take ten times as long, and "heavy-tailed delays"
have no variance: now and then a gradient is thousands of arrivals late.
"""

PROBLEM_SEED = 0
"""The known problems are drawn once: the seeds of a study differ in gradients and delays alone."""


@dataclass(frozen=True)
class Series:
    """One method on one problem, to be run for several horizons T and seeds.

    Attributes:
        problem: the problem.
        label: what is varied, in words.
        groups: M, the layer groups; 1: full updates.
        clients: N, the clients of a round; 1 in asynchronous series, where no gradients are averaged.
        steps: local steps of a round.
        workers: K, the tasks in flight of an asynchronous series; None where there are rounds.
        adaptive: whether the learning rate adapts to the delay (OrMo-DA).
        delays: how long gradients take.
    """

    problem: ProblemName
    label: str
    groups: int = 1
    clients: int = 1
    steps: int = 1
    workers: int | None = None
    adaptive: bool = False
    delays: Delays = "gamma"

    @property
    def theorem(self) -> str:
        """The theorem that bounds `bounded` of a `Measurement`."""
        if self.workers is not None:
            return "OrMo, Theorem 2" if self.adaptive else "OrMo, Theorem 1"
        return "FedPart, Theorem 1" if self.groups > 1 else "FedAvg"

    @property
    def cost(self) -> float:
        """About how long one iteration takes, relative to one of the quadratic problem."""
        clients = self.clients if self.workers is None else 1
        return {"quadratic": 1.0, "logistic": 1.0 + clients, "digits": 60.0 * (0.5 + clients)}[self.problem]


@dataclass(frozen=True)
class Measurement:
    """What one run of a series for one horizon gave.

    Attributes:
        series: the series.
        horizon: T.
        seed: seed of the run.
        step_size: gamma or eta.
        capped: whether the step size is the largest that is allowed for any T, rather than falling as 1 / sqrt(T).
        masked: mean of ||S_t * grad f(w_t)||^2; None where there is no mask (asynchronous series).
        whole: mean of ||grad f(w_t)||^2.
        bound: the bound with its constants on `masked`; None where it is not known.
        largest_delay, delay_sum: of an asynchronous series, in arrivals.
    """

    series: Series
    horizon: int
    seed: int
    step_size: float
    capped: bool
    masked: float | None
    whole: float
    bound: float | None = None
    largest_delay: int | None = None
    delay_sum: int | None = None


def all_series(problem: ProblemName) -> tuple[Series, ...]:
    """The series on one problem; those on digits are fewer, since each of their steps trains a network."""
    rounds = [("FedAvg", 1, 4), ("FedPart", 4, 4), ("FedPart", 4, 1)]
    workers = [2, 8]
    if problem != "digits":
        rounds = [
            *(("FedAvg", 1, clients) for clients in (1, 4, 16)),
            *(("FedPart", groups, 4) for groups in (2, 4, 8)),
            *(("FedPart", 4, clients) for clients in (1, 16)),
        ]
        workers = [2, 8, 32]
    synchronous = [
        Series(problem, f"{name}, {f'M={groups}, ' if groups > 1 else ''}N={clients}", groups, clients)
        for name, groups, clients in rounds
    ]
    if problem != "digits":
        synchronous.append(Series(problem, "FedPart, M=4, N=4, 4 local steps", 4, 4, steps=4))
    asynchronous = [
        *(Series(problem, f"OrMo, K={count}", workers=count) for count in workers),
        Series(problem, "OrMo, K=8, 2 slow workers", workers=8, delays="slow workers"),
        Series(problem, "OrMo, K=8, heavy-tailed delays", workers=8, delays="heavy-tailed delays"),
    ]
    if problem != "digits":
        adaptive = "OrMo-DA, K=8, heavy-tailed delays"
        asynchronous.append(Series(problem, adaptive, workers=8, adaptive=True, delays="heavy-tailed delays"))
    return (*synchronous, *asynchronous)


def measure(series: Series, horizon: int, seed: int) -> Measurement:
    """Run a series for one horizon, with the step size that the theorem has for it.

    Args:
        series: the series.
        horizon: T, a multiple of the number of layer groups.
        seed: seed of the run.
    """
    known = constants(series.problem, series.clients, series.workers is not None)
    if series.workers is None:
        return _measure_rounds(series, horizon, seed, known)
    return _measure_arrivals(series, series.workers, horizon, seed, known)


def _measure_rounds(series: Series, rounds: int, seed: int, known: Constants) -> Measurement:
    lr = round_step(
        gap=known.gap,
        smoothness=known.smoothness,
        variance=known.variance,
        groups=series.groups,
        clients=series.clients,
        rounds=rounds,
    )
    trace = _round_trace(series, rounds, seed, lr / series.steps, known)
    bound = None
    if known.problem is not None and series.steps == 1:
        bound = round_bound(known.problem, lr=lr, groups=series.groups, rounds=rounds)
    return Measurement(
        series,
        rounds,
        seed,
        step_size=lr / series.steps,
        capped=lr * known.smoothness >= 1,
        masked=float(trace.masked.mean()),
        whole=float(trace.whole.mean()),
        bound=bound,
    )


def _round_trace(series: Series, rounds: int, seed: int, lr: float, known: Constants) -> RoundTrace:
    if known.problem is None:
        from fedbench.analysis.convergence import network

        config = network.rounds_config(seed, groups=series.groups, clients=series.clients, rounds=rounds, lr=lr)
        return network.follow_network_rounds(config)
    return follow_rounds(
        known.problem,
        equal_groups(PARAMETERS, series.groups),
        FedAvg(),
        round_schedule(series.groups, rounds),
        rounds=rounds,
        steps=series.steps,
        lr=lr,
        seed=seed,
    )


def round_schedule(groups: int, rounds: int) -> Schedule:
    """One layer group after the other, a round each, without full updates; a full update each round for one group."""
    if groups == 1:
        return Full()
    return Sequential(warmup_rounds=0, cycles=rounds // groups, rounds_per_group=1, full_rounds_between_cycles=0)


def _measure_arrivals(series: Series, workers: int, arrivals: int, seed: int, known: Constants) -> Measurement:
    lr = arrival_step(
        gap=known.gap,
        smoothness=known.smoothness,
        variance=known.variance,
        momentum=MOMENTUM,
        workers=workers,
        arrivals=arrivals,
    )
    trace = _arrival_trace(series, workers, arrivals, seed, lr, known)
    return Measurement(
        series,
        arrivals,
        seed,
        step_size=lr,
        capped=lr * 2 * workers * known.smoothness >= (1 - MOMENTUM) * (1 - 1e-12),
        masked=None,
        whole=float(trace.whole.mean()),
        largest_delay=int(trace.delays.max()),
        delay_sum=int(trace.delays.sum()),
    )


def _arrival_trace(series: Series, workers: int, arrivals: int, seed: int, lr: float, known: Constants) -> ArrivalTrace:
    delays = DELAYS[series.delays]
    if known.problem is None:
        from fedbench.analysis.convergence import network

        config = network.arrivals_config(
            seed, workers=workers, arrivals=arrivals, lr=lr, momentum=MOMENTUM, delays=delays
        )
        return network.follow_network_arrivals(config)
    algorithm = OrMoDA(momentum=MOMENTUM, smoothness=known.smoothness) if series.adaptive else OrMo(momentum=MOMENTUM)
    return follow_arrivals(
        known.problem,
        algorithm,
        DelaysSection.model_validate(delays),
        workers=workers,
        arrivals=arrivals,
        lr=lr,
        seed=seed,
    )


@cache
def constants(problem: ProblemName, clients: int, asynchronous: bool) -> Constants:
    """What the step sizes on a problem are made from; known, but for digits, where they are estimated.

    Args:
        problem: the problem.
        clients: N.
        asynchronous: whether gradients are applied one by one.
    """
    if problem == "digits":
        from fedbench.analysis.convergence.network import estimated_constants

        return estimated_constants()
    if problem == "quadratic":
        known: KnownProblem = (
            Quadratic(clients, PROBLEM_SEED, ARRIVAL_NOISE) if asynchronous else Quadratic(clients, PROBLEM_SEED)
        )
    else:
        known = Logistic(clients, PROBLEM_SEED)
    return Constants(known.gap, known.smoothness, known.variance, known)


def horizons(longest: int, count: int) -> Sequence[int]:
    """`count` horizons, each twice the one before, up to `longest`.

    >>> horizons(64, 3)
    [16, 32, 64]
    """
    return [longest >> halvings for halvings in reversed(range(count))]
