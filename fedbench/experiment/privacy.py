"""What a run's noise buys: the test that every combination of options has to pass, and the epsilon that is stated.

The epsilon of `privacy_epsilon` holds for one mechanism (`fedbench.protocol.privacy`): in every round the noise of the
sums is z times the largest part that one client can have in them. `check_privacy` refuses every run for which that does
not hold, and names all reasons at once.
"""

import importlib.util
from collections.abc import Iterator
from typing import Any

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.exchanging import sent_groups
from fedbench.planning.capacities import ALL_ALIKE, Clients
from fedbench.planning.exchange import Trained
from fedbench.planning.samplers import Uniform, draw_cohort
from fedbench.protocol.message import PARAMETERS, PartTable
from fedbench.protocol.privacy import epsilon, noise_over_sensitivity
from fedbench.training.minibatches import LocalLength

TOLERANCE = 1e-9
"""The relative amount by which a round's noise over sensitivity may fall below z, for rounding."""


def check_privacy(
    config: ExperimentConfig,
    table: PartTable,
    sizes: tuple[int, ...],
    local: LocalLength,
    rounds: int,
    limits: Clients = ALL_ALIKE,
) -> None:
    """Refuse noise where it would not buy the epsilon that is stated for it.

    Args:
        table: the parts of a transfer.
        sizes: training samples of each client of the population.
        local: number of minibatches that a client trains on.
        rounds: rounds of the run.
        limits: what the clients can train.

    Raises:
        ConfigError: names every reason, and what to do about each, in one line.
    """
    noise = config.update.noise_multiplier
    if noise is None:
        return
    reasons = list(_reasons(config, table)) or list(_weak_rounds(config, table, sizes, local, rounds, limits))
    if reasons:
        listed = reasons[0] if len(reasons) == 1 else " ".join(f"({n}) {text};" for n, text in enumerate(reasons, 1))
        raise ConfigError(f"update.noise_multiplier={noise}: {listed.rstrip(';')}")


def _reasons(config: ExperimentConfig, table: PartTable) -> Iterator[str]:
    """What keeps the noise from making the run private, whatever its data."""
    method, update = config.method, config.update
    if update.clip_norm is None:
        yield "needs a bound on what one client can change; set update.clip_norm"
    beside = sorted({part.channel for part in table.parts} - {PARAMETERS})
    if "statistics" in beside:
        yield "running statistics would be sent without noise; set local.batchnorm=local"
    if channels := [channel for channel in beside if channel != "statistics"]:
        yield f"{method.name} would send {', '.join(channels)} without noise; choose another algorithm"
    if config.asynchronous is not None:
        yield f"its noise is a share of that of a round's sum, and {method.name} has no rounds; choose another"
    elif config.chosen_exchange.compares_updates:
        yield f"exchange.name={config.chosen_exchange.name} looks at single updates, of which noise says nothing"
    elif config.schedule.compares_updates:
        yield f"schedule.name={config.schedule.name} looks at single updates, of which noise on their sum says nothing"
    elif not method.sums():
        yield f"{method.name} looks at single updates, of which noise on their sum says nothing; choose another rule"
    elif method.weight(1) != method.weight(2):
        yield f"needs equal weights; set {uniform_option(config)}"
    if method.scales_are_special():
        yield f"{method.name} multiplies clipped updates by factors of its own; choose another algorithm"
    if config.schedule.follows_training and not config.schedule.same_for_all:
        yield (
            f"with schedule.name={config.schedule.name} clients train different layer groups, and which ones is not "
            "known beforehand; choose another schedule"
        )
    if not update.compression.lossless:
        yield f"shares of noise do not survive update.compression={update.compression.name}; leave it out"
    if (failures := config.runtime.max_failed_clients) > 0:
        yield f"every share of noise must arrive; set runtime.max_failed_clients=0 in place of {failures}"
    if (deadline := config.participation.round_deadline) is not None:
        yield f"every share of noise must arrive; leave out participation.round_deadline={deadline}"
    if (virtual_deadline := config.delays.deadline) is not None:
        yield f"every share of noise must arrive; leave out delays.deadline={virtual_deadline:g}"
    if config.delays.availability is not None:
        yield "its epsilon assumes that all clients are drawn alike and answer; leave out delays.availability"
    if not isinstance(sampler := config.participation.sampler, Uniform):
        yield (
            f"participation.sampler={sampler.name} does not draw all clients alike, as its epsilon assumes; set uniform"
        )
    if importlib.util.find_spec("opacus") is None:
        yield "its epsilon is computed by Opacus, which is not installed: pip install opacus"


def uniform_option(config: ExperimentConfig) -> str:
    """The option by which all participants of a round count the same."""
    if config.server is not None:
        has_option = "weighting" in type(config.server).model_fields
        return "server.weighting=uniform" if has_option else "server=fedavg and server.weighting=uniform"
    has_option = "weighting" in type(config.algorithm).model_fields
    return "algorithm.weighting=uniform" if has_option else "server=fedavg and server.weighting=uniform"


def _weak_rounds(
    config: ExperimentConfig,
    table: PartTable,
    sizes: tuple[int, ...],
    local: LocalLength,
    rounds: int,
    limits: Clients,
) -> Iterator[str]:
    """The first round in which the noise is less than z times the sensitivity of the sums, and why."""
    method, exchange, noise = config.method, config.chosen_exchange, config.update.noise_multiplier
    by_schedule = isinstance(exchange, Trained)
    verb = "train" if by_schedule else "send"
    chosen = f"schedule.name={config.schedule.name}" if by_schedule else f"exchange.name={exchange.name}"
    layout, cohort_size = table.layout, config.slots()
    pipeline = config.update.pipeline(cohort_size)
    assert noise is not None
    assert pipeline.clip_norm is not None

    def cohort_of(index: int) -> tuple[int, ...]:
        return draw_cohort(config.participation.sampler, index, cohort_size, sizes, config.seed)

    for index, groups in enumerate(sent_groups(config, layout, rounds, cohort_of, limits)):
        if not any(groups):
            continue
        cohort = cohort_of(index)
        samples = [sizes[client] for client in cohort]
        weights, scales = method.weights_and_scales(samples, [local.steps_of(count) for count in samples])
        factors = [weight * scale for weight, scale in zip(weights, scales, strict=True)]
        bought = noise_over_sensitivity(pipeline.noise_std, pipeline.clip_norm, factors, groups)
        if bought >= noise * (1 - TOLERANCE):
            continue
        if len(set(groups)) > 1:
            yield (
                f"with {chosen} clients {verb} different layer groups, so that round {index + 1} "
                f"has noise of only {bought:.3g} times the most that one client can change; choose another"
            )
        else:
            yield (
                f"{method.name} does not let all clients count the same, so that round {index + 1} has noise of only "
                f"{bought:.3g} times the most that one client can change; choose another algorithm"
            )
        return


def privacy_entries(config: ExperimentConfig, cohort_size: int, columns: dict[str, list[Any]]) -> dict[str, Any]:
    """The entries of a summary that say what the noise has bought so far.

    Args:
        cohort_size: m, the participants of a round.
        columns: the rounds that were recorded, {column: values}.

    Returns:
        `privacy_epsilon`, the epsilon of (epsilon, update.delta)-differential privacy: None without noise, or where a
        share of the noise went missing with a rejected update. `privacy_note`, what has to be known with it; None where
        the epsilon is a proven bound, or there is no noise.
    """
    update, clients = config.update, config.data.clients
    if update.noise_multiplier is None:
        return {"privacy_epsilon": None, "privacy_note": None}
    if missing := sum(columns["rejected_clients"]) + sum(columns["dropped_clients"]):
        note = f"no epsilon can be stated: the shares of the noise of {missing} updates that did not arrive are missing"
        return {"privacy_epsilon": None, "privacy_note": note}
    bought = epsilon(update.noise_multiplier, cohort_size / clients, len(columns["round"]), update.delta)
    if cohort_size < clients:
        note = (
            "the epsilon is an estimate, not a proven bound: its accountant assumes that each client takes part "
            f"independently of the others, and every round has exactly {cohort_size} of {clients} clients"
        )
        return {"privacy_epsilon": bought, "privacy_note": note}
    return {"privacy_epsilon": bought, "privacy_note": None}
