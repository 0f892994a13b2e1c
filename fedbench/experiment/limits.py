"""Refuses runs that could not end or be held in memory, from what is known of them before anything is computed."""

import os

import torch

from fedbench.components.model_folder import PREFIX
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.arrivals.plan import ArrivalPlan
from fedbench.errors import ConfigError, FedbenchError
from fedbench.models.base import Model, Task
from fedbench.models.imported import ImportedModel
from fedbench.protocol.layout import BYTES_PER_VALUE

MOST_ROUNDS = 1_000_000
"""Rounds of a run, at most: each is a row of `rounds.parquet`."""

MOST_ARRIVALS = 100_000_000
"""Arrivals of an asynchronous run, at most: each is a row of `events.parquet`."""

FEWEST_ARRIVALS = 0.01
"""Arrivals that are expected of a whole run, at least; partial updates may be faster than those that are counted."""

COPIES = 3
"""Copies of the parameters that a process holds at least: the module, the flat vector and the server's."""


def check_rounds(rounds: int, given: str) -> None:
    """Check a number of rounds.

    Args:
        rounds: of a run, or of a schedule.
        given: the key and the value that it comes from.

    Raises:
        ConfigError: nobody could record that many.
    """
    if rounds > MOST_ROUNDS:
        raise ConfigError(
            f"{given}: asks for {rounds} rounds, at most {MOST_ROUNDS:,} are recorded; lower rounds or the schedule's"
        )


def check_memory(model: Model, task: Task) -> None:
    """Check, before anything is allocated, that a built-in model's parameters fit into this machine's memory.

    Raises:
        ConfigError: they do not.
    """
    outside = isinstance(model, ImportedModel) or model.name.startswith(PREFIX)
    if outside or not type(model).__module__.startswith("fedbench.models."):
        return
    try:
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in model.build(task).parameters())
    except FedbenchError:  # building it in earnest says the same
        return
    except (RuntimeError, TypeError, OverflowError) as error:  # a size that is no 64-bit number
        raise ConfigError(
            f"model.name={model.name}: is too large to be laid out ({' '.join(str(error).split())[:100]}); choose a "
            "smaller model"
        ) from None
    needed, there = COPIES * BYTES_PER_VALUE * parameters, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise ConfigError(
            f"model.name={model.name}: {parameters:,} parameters need {needed / 1e9:,.1f} GB at least, this machine "
            f"has {there / 1e9:,.1f} GB; choose a smaller model"
        )


def check_arrivals(config: ExperimentConfig, plan: ArrivalPlan | None) -> None:
    """Check how many arrivals an asynchronous run will have.

    Raises:
        ConfigError: more than can be recorded, or none.
    """
    if plan is None or (expected := expected_arrivals(config, plan)) is None:
        return
    by_seconds = plan.seconds_per_round is not None
    key = "seconds_per_round" if by_seconds else "arrivals_per_round"
    given = f"delays.{key}={plan.seconds_per_round if by_seconds else plan.arrivals_per_round}"
    if expected > MOST_ARRIVALS:
        raise ConfigError(
            f"{given}: about {expected:.3g} arrivals in {plan.rounds} rounds; at most {MOST_ARRIVALS:,} are recorded; "
            "lower it, or rounds"
        )
    if expected < FEWEST_ARRIVALS:
        raise ConfigError(
            f"{given}: no update would arrive in {plan.rounds} rounds, a task takes {_task_seconds(config, plan)} s; "
            "raise it"
        )


def expected_arrivals(config: ExperimentConfig, plan: ArrivalPlan) -> float | None:
    """About how many updates arrive in a whole run; None on a clock that nobody knows beforehand."""
    if plan.seconds_per_round is None:
        return float(plan.rounds * (plan.arrivals_per_round or plan.workers))
    if config.delays.clock == "wall" or config.delays.replay is not None:
        return None
    return plan.rounds * plan.workers * (plan.seconds_per_round / (plan.task_seconds or config.delays.mean_seconds))


def _task_seconds(config: ExperimentConfig, plan: ArrivalPlan) -> str:
    """The mean service time, with the key that it comes from."""
    if plan.task_seconds is None:
        return f"delays.mean_seconds={config.delays.mean_seconds:g}"
    return f"{plan.task_seconds:.3g}"
