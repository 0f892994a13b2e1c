"""Trial calls of a user's own parts, before anything is recorded: each must keep to what its base class promises.

A part that breaks its contract is refused in one line that names the part and the method. Data sets, partitions and
models are checked where they are loaded and built (`fedbench.data.contract`, `fedbench.models.groups`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar, get_args

import numpy as np
import torch
from torch import nn

from fedbench.algorithms.arrivals import ArrivalRule, AsyncAlgorithm
from fedbench.algorithms.base import Algorithm, Needs, Objective, RoundUpdates, RuleContext, ServerRule
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.divergence import too_few_updates
from fedbench.engine.rounds.rule_result import checked_weights
from fedbench.errors import ConfigError
from fedbench.models.uncompiled import without_compiler
from fedbench.planning.capacities import Clients
from fedbench.planning.checked_groups import checked_groups
from fedbench.planning.samplers import ClientHistory, Sampler, draw_cohort
from fedbench.planning.schedules import Cyclic, Feedback, Schedule
from fedbench.protocol.attacks import Attack, checked_labels, checked_update
from fedbench.protocol.layout import ParameterLayout
from fedbench.randomness import generator
from fedbench.training.optimizers import Optimizer

Part = TypeVar("Part")
Cohort = Callable[[int], Sequence[int]]
"""The participants of a round, from its index."""


def cohorts(config: ExperimentConfig, sizes: tuple[int, ...]) -> Cohort:
    """The participants of a round by its index, as long as no client has reported anything and all are on.

    Any client may arrive in a round of an asynchronous run: another one stands for them in each.
    """
    if config.asynchronous is not None:
        return lambda index: (index % config.data.clients,)
    sampler, size = config.participation.sampler, config.slots()
    return lambda index: draw_cohort(sampler, index, size, sizes, config.seed)


def check_length(schedule: Schedule, groups: int) -> int | None:
    """What `schedule.length` returned for a model of `groups` layer groups.

    Raises:
        ConfigError: neither a whole number of at least 1 nor None.
    """
    length: object = schedule.length(groups)
    if length is None or (isinstance(length, int) and not isinstance(length, bool) and length >= 1):
        return length
    raise ConfigError(
        f"schedule.name={schedule.name}: length({groups}) returned {length!r}; a whole number of at least 1 is needed,"
        " or None for a schedule without an end"
    )


def check_schedule(
    schedule: Schedule, rounds: int, layout: ParameterLayout, seed: int, cohort: Cohort, clients: Clients
) -> None:
    """Ask a schedule for every round of a run, before training.

    One that follows training is asked twice: as if nothing had changed, and as if training had changed the layer groups
    by random amounts, drawn from the seed. What it answers in the run is checked there (`planning.checked_groups`).

    Args:
        rounds: the number of rounds.
        layout: of the model's parameters.
        seed: the run's seed.
        cohort: the clients of a round, from its index.
        clients: what the clients can train.

    Raises:
        ConfigError: as `checked_groups`.
    """
    for imagined in (False, True) if schedule.follows_training else (False,):
        feedback = Feedback.none(layout)
        for index in range(rounds):
            active, trained = checked_groups(
                schedule, index, layout.groups, seed, feedback, cohort(index), clients=clients
            )
            if imagined:
                changed = sorted(set().union(*trained))
                norms = generator(seed, "imagined norms", index).exponential(size=layout.groups)
                imagined_norms = dict(enumerate(norms.tolist()))
                feedback = feedback.after(active, changed, imagined_norms, layout, imagined_norms)


def check_limits(config: ExperimentConfig) -> None:
    """Refuse limits of the clients to which the run would not keep.

    Raises:
        ConfigError: names the schedule, or rounds in which everyone trains the whole network.
    """
    schedule, capacities = config.schedule, config.participation.capacities
    if capacities is None:
        return
    if config.asynchronous is not None:
        raise ConfigError(
            f"participation.capacities: has no effect with algorithm.name={config.method.name}, which has no rounds; "
            "leave it out"
        )
    if not schedule.keeps_to_limits:
        raise ConfigError(
            f"participation.capacities: schedule.name={schedule.name} does not keep to it; set schedule=per-client "
            "or selective, or leave it out"
        )
    if capacities.memory:
        _check_memory(config)
    if isinstance(schedule, Cyclic):
        full = {"warmup_rounds": schedule.warmup_rounds}
        if schedule.cycles > 1:
            full["full_rounds_between_cycles"] = schedule.full_rounds_between_cycles
        for key, rounds in full.items():
            if rounds:
                raise ConfigError(
                    f"schedule.{key}={rounds}: in these rounds clients would train the whole network, which "
                    "participation.capacities does not let them; set it to 0"
                )


def _check_memory(config: ExperimentConfig) -> None:
    """Refuse limits by memory where no memory is known, or where the schedule needs shares."""
    if config.delays.profile is None:
        raise ConfigError("participation.capacities=memory: the memory is that of delays.profile; set that, too")
    if config.schedule.reads_gradient_norms:
        raise ConfigError(
            f"participation.capacities=memory with schedule.name={config.schedule.name}: what layer groups need "
            "together is no sum that it could weigh; set shares, or schedule=per-client"
        )


def check_sampler(sampler: Sampler, rounds: int, size: int, sizes: Sequence[int], seed: int) -> None:
    """Ask a sampler for every round of a run, as if clients had reported losses, drawn from the seed.

    What it answers in the run is checked there (`planning.samplers.draw_cohort`).

    Args:
        rounds: the number of rounds.
        size: participants of a round.
        sizes: training samples of each client of the population.
        seed: the run's seed.

    Raises:
        ConfigError: as `draw_cohort`.
    """
    history = ClientHistory(len(sizes))
    for index in range(rounds):
        cohort = draw_cohort(sampler, index, size, sizes, seed, history)
        losses = generator(seed, "imagined losses", index).exponential(size=size)
        history.reported(index, dict(zip(cohort, losses.tolist(), strict=True)))


def check_attack(attack: Attack, classes: int) -> None:
    """Ask an attack for the message and the labels of an attacker.

    Args:
        classes: number of classes of the data.

    Raises:
        ConfigError: values of another shape or type than those it was given, or labels that are none.
    """
    rng = generator(0, "attack")
    checked_update(attack, np.ones(3, np.float32), rng, ConfigError)
    checked_labels(attack, np.arange(classes, dtype=np.int64), classes, rng, ConfigError)


def check_senders(
    method: Algorithm, layout: ParameterLayout, sent_in_rounds: Iterable[tuple[tuple[int, ...], ...]]
) -> None:
    """Refuse rounds in which a layer group is sent by fewer clients than the server rule can do its work on.

    Args:
        method: gives the rule.
        layout: of the model's parameters.
        sent_in_rounds: for each round, the layer groups that each participant sends.

    Raises:
        ConfigError: names the round and the group.
    """
    fewest = method.rule().fewest
    for index, sent in enumerate(sent_in_rounds):
        for group, count in sorted(Counter(group for groups in sent for group in groups).items()):
            if count < fewest:
                context = RuleContext(layout, (group,), index, count, count)
                raise ConfigError(f"algorithm.name={method.name}: {too_few_updates(method, context, fewest)}")


def check_optimizer(optimizer: Optimizer) -> None:
    """Make an optimizer once over a small tensor.

    Raises:
        ConfigError: `make` returned no `torch.optim.Optimizer`, or `slots` no number of values per parameter.
    """
    owner = f"local.optimizer.name={optimizer.name}"
    with without_compiler():
        made: object = optimizer.make([nn.Parameter(torch.zeros(2))], 1.0)
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigError(f"{owner}: make returned {type(made).__name__}, a torch.optim.Optimizer is needed")
    slots: object = optimizer.slots
    if not isinstance(slots, int) or slots < 0:
        raise ConfigError(f"{owner}: slots is {slots!r}, a whole number of at least 0 is needed")


def check_method(method: Algorithm, layout: ParameterLayout, cohort_size: int, population: int) -> None:
    """Make a method's parts, and let its server apply an update of zeros to the smallest layer group.

    Args:
        layout: of the model's parameters.
        cohort_size: participants of a round, or updates in flight.
        population: clients in all.

    Raises:
        ConfigError: a part of another type, or values of another shape or type than the parameters', or not finite.
    """
    owner = f"algorithm.name={method.name}"
    objective_of(method)
    if isinstance(method, AsyncAlgorithm):
        _check_machine(method, method.count_workers(cohort_size, population))
        return
    for samples in (1, 100):
        weight: object = method.weight(samples)
        if not isinstance(weight, int | float) or not 0 < weight < np.inf:
            raise ConfigError(f"{owner}: weight({samples}) returned {weight!r}; a finite number above 0 is needed")
    rule = _of_type(method.rule(), ServerRule, f"{owner}: rule")
    if method.scales_are_special():
        _check_scales(method, owner)
    name = type(rule).__name__
    if not callable(rule.needs):
        raise ConfigError(f"{owner}: {name}.needs is {rule.needs!r}; it must be a method, needs(self, round_index)")
    needs = rule.needs(0)
    if needs not in get_args(Needs):
        raise ConfigError(f"{owner}: {name}.needs returned {needs!r}; allowed: {', '.join(get_args(Needs))}")
    if rule.own_models:
        if type(rule).recombine is not ServerRule.recombine and not rule.defines_needs():
            raise ConfigError(f'{owner}: {name}.recombine is never called; needs must return "round" where it is to be')
        if needs == "updates":
            raise ConfigError(f'{owner}: {name}.needs returned "updates"; with own_models allowed: mean, round')
        return
    for method_name in ("combine_each", "combine_round", "client_weights"):
        defines = getattr(type(rule), method_name) is not getattr(ServerRule, method_name)
        if defines and not rule.defines_needs():
            raise ConfigError(
                f'{owner}: {type(rule).__name__}.{method_name} is never called; needs must return "updates" for '
                'combine_each, or "round" for combine_round and client_weights'
            )
    smallest = min(layout.all_groups, key=layout.group_size)
    context = RuleContext(layout, (smallest,), 0, cohort_size, population)
    size = layout.group_size(smallest)
    previous, weights = np.zeros(size), np.full(cohort_size, 1 / cohort_size)
    combined: object
    match needs:
        case "updates":
            updates = np.zeros((cohort_size, size))
            method_name, combined = "combine_each", rule.combine_each(previous, updates, weights, context)
        case "round":
            messages = (np.zeros(size, np.float32),) * cohort_size
            whole = RoundUpdates(previous, messages, ((slice(0, size),),) * cohort_size, weights)
            if (by_rule := rule.client_weights(whole, context)) is not None:
                by_rule = checked_weights(by_rule, cohort_size, f"{owner}: {name}", ConfigError)
                whole = replace(whole, weights=by_rule)
            method_name, combined = "combine_round", rule.combine_round(previous, whole, context)
        case "mean":
            method_name, combined = "combine", rule.combine(previous, np.zeros(size), context)
    _check_values(combined, size, f"{owner}: {name}.{method_name}")


def objective_of(method: Algorithm) -> Objective:
    """A new local objective of a method.

    Raises:
        ConfigError: `objective` returned something else.
    """
    return _of_type(method.objective(), Objective, f"algorithm.name={method.name}: objective")


def _check_scales(method: Algorithm, owner: str) -> None:
    """Refuse factors on updates that the server could not correct, or would not use."""
    if not method.sums():
        raise ConfigError(f"{owner}: scales has no effect, since its server rule looks at single updates; leave it out")
    steps = (3, 1, 4, 2)
    whole, part = method.scales((0.25,) * 4, steps), method.scales((0.5,) * 2, steps[:2])
    for scales, clients in ((whole, 4), (part, 2)):
        if len(scales) != clients or not all(0 < scale < np.inf for scale in scales):
            raise ConfigError(
                f"{owner}: scales returned {scales!r} for {clients} clients; finite numbers above 0 needed"
            )
    if not np.isclose(whole[0] / whole[1], part[0] / part[1]):
        raise ConfigError(
            f"{owner}: scales must be one number for all clients times one for each client alone, so that the server "
            f"can leave clients out; for steps {steps} and {steps[:2]} it returned {whole!r} and {part!r}"
        )


def _check_machine(method: AsyncAlgorithm, workers: int) -> None:
    owner, size = f"algorithm.name={method.name}", 3
    try:
        machine: object = method.machine(np.zeros(size, np.float32), workers)
    except TypeError as error:
        if "abstract" in str(error):  # Python's own words for a class without `apply`
            raise ConfigError(f"{owner}: machine: {error}") from None
        raise
    if not isinstance(machine, ArrivalRule):
        raise ConfigError(f"{owner}: machine returned {type(machine).__name__}, a fedbench.ArrivalRule is needed")
    answer: object = None
    for worker in range(workers):
        answer = machine.pull(worker)
    called = f"{owner}: {type(machine).__name__}.pull"
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], int)):
        raise ConfigError(f"{called} returned {answer!r}; (parameters, index) is needed")
    _check_values(answer[0], size, called)
    machine.push(np.zeros(size, np.float32), answer[1], 0)
    _check_values(machine.parameters, size, f"{owner}: {type(machine).__name__}.apply")


def _of_type(made: object, kind: type[Part], called: str) -> Part:
    if not isinstance(made, kind):
        raise ConfigError(f"{called} returned {type(made).__name__}, a fedbench.{kind.__name__} is needed")
    return made


def _check_values(values: object, size: int, called: str) -> None:
    """Raise ConfigError unless these are `size` finite numbers."""
    needed = f"a finite float array of shape [{size}] is needed, like the parameters that it was given"
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating):
        raise ConfigError(f"{called} gave {getattr(values, 'dtype', type(values).__name__)}; {needed}")
    if values.shape != (size,):
        raise ConfigError(f"{called} gave shape {list(values.shape)}; {needed}")
    if not np.isfinite(values).all():
        raise ConfigError(f"{called} gave values that are not finite for an update of zeros; {needed}")
