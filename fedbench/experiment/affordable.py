"""How many rounds a run may have without spending more than a given number of bytes or FLOPs."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from fedbench.accounting.totals import Costs
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.clocks import VirtualClock
from fedbench.engine.arrivals.dry_run import DryRun
from fedbench.engine.arrivals.loop import ArrivalLoop
from fedbench.errors import ConfigError
from fedbench.experiment.contracts import check_length
from fedbench.experiment.estimate import costs_of, unforeseeable
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import Problem, build_problem

MOST_ROUNDS = 100_000
"""Rounds up to which a budget is looked for; one that buys more is refused."""


def affordable_rounds(
    config: ExperimentConfig, *, total_bytes: float | None = None, client_flops: float | None = None
) -> int:
    """The most rounds that the configured run may have within a budget; `config.rounds` does not matter.

    Args:
        total_bytes: protocol bytes up and down of all clients; None: no bound.
        client_flops: work of all clients; None: no bound.

    Raises:
        FedbenchError: as the run itself would.
        ConfigError: the first round is beyond the budget, the schedule ends before it is spent, or what is spent
            depends on the run itself.
    """
    if reasons := list(unforeseeable(config)):
        raise ConfigError(f"run_budget: only rounds can be fixed here, since {reasons[0]}")
    problem = build_problem(config.model_copy(update={"rounds": 1}), load_federation(config))
    length = check_length(config.schedule, problem.layout.groups)
    sent, worked = 0, 0
    for done, costs in enumerate(itertools.islice(_per_round(problem, length), MOST_ROUNDS)):
        sent, worked = sent + costs.uplink_bytes + costs.downlink_bytes, worked + costs.client_flops
        too_much = (total_bytes is not None and sent > total_bytes) or (
            client_flops is not None and worked > client_flops
        )
        if too_much and not done:
            raise ConfigError(f"run_budget: the first round alone takes {sent / 1e6:g} MB and {worked / 1e12:g} TFLOP")
        if too_much:
            return done
    ends = "" if length is None else f"; schedule.name={config.schedule.name} ends there: raise schedule.cycles"
    raise ConfigError(
        f"run_budget: {length or MOST_ROUNDS} rounds take {sent / 1e6:g} MB and {worked / 1e12:g} TFLOP, less than the "
        f"budget{ends}"
    )


def _per_round(problem: Problem, length: int | None) -> Iterator[Costs]:
    """The costs of each round, up to the schedule's length; without end where it has none."""
    config = problem.config
    if problem.arrivals is not None:
        plan = replace(problem.arrivals, rounds=length or MOST_ROUNDS)
        clock = VirtualClock(config.delays, config.seed, config.data.clients)
        loop = ArrivalLoop(plan, DryRun(plan, problem.costs), clock, problem.costs)
        yield from costs_of(loop.rounds(MOST_ROUNDS, lambda: False))
        return
    done, upto = 0, min(64, length or 64)
    while True:
        projected = problem.costs.project(
            config.schedule,
            upto,
            problem.cohort_size,
            config.seed,
            config.participation.sampler,
            config.chosen_exchange,
            problem.server.clients,
            problem.world,
        )
        yield from projected[done:]
        if upto == length or upto >= MOST_ROUNDS:
            return
        done, upto = upto, min(4 * upto, length or MOST_ROUNDS)
