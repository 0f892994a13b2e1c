"""What a user should know of a combination of options, one line each."""

from collections.abc import Iterator, Sequence

from torch import nn

from fedbench.algorithms.base import Algorithm
from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.privacy import uniform_option
from fedbench.models.kept_state import unknown_under_averaging
from fedbench.planning.samplers import Weighted
from fedbench.planning.schedules import Feedback
from fedbench.protocol.layout import ParameterLayout


def counted_twice(config: ExperimentConfig, method: Algorithm) -> Iterator[str]:
    """A line where large clients take part more often, and count for more when they do."""
    sampler = config.participation.sampler
    if isinstance(sampler, Weighted) and method.weight(1) != method.weight(2) and not method.pools_rows:
        yield (
            f"participation.sampler={sampler.name}: draws clients in proportion to their samples, and {method.name} "
            "weights their updates by samples, so that large clients count twice; for a mean without bias set "
            f"{uniform_option(config)}"
        )


def no_step(config: ExperimentConfig, rounds: int) -> Iterator[str]:
    """A line where an asynchronous run has fewer arrivals than a step of the server takes: nothing is learnt."""
    method, delays = config.asynchronous, config.delays
    if method is None or delays.seconds_per_round is not None:
        return
    workers = config.slots()
    period = method.period(method.count_workers(workers, config.data.clients))
    arrivals = rounds * (delays.arrivals_per_round or workers)
    if arrivals < period:
        yield (
            f"algorithm.name={method.name}: the server takes a step for {period} updates, and rounds={rounds} has "
            f"{arrivals} arrivals, so that the model stays as it was drawn; raise rounds, or lower the number of "
            "updates that a step takes"
        )


def cut_schedule(config: ExperimentConfig, layout: ParameterLayout, rounds: int) -> Iterator[str]:
    """A line on the layer groups that are never trained alone, where the run ends before its schedule does."""
    length = config.schedule.length(layout.groups)
    if length is None or rounds >= length:
        return
    none = Feedback.none(layout)
    before, after = set[int](), set[int]()
    for r in range(length):
        active = config.schedule.active(r, layout.groups, config.seed, none)
        if active.partial:
            (before if r < rounds else after).update(active.groups)
        if len(before | after) == layout.groups:
            break
    left = [layout.group_names[group] for group in sorted(after - before)]
    never = f", so that {', '.join(left)} {'is' if len(left) == 1 else 'are'} never trained alone" if left else ""
    yield (
        f"rounds={rounds}: is less than the {length} rounds of schedule.name={config.schedule.name}{never}; "
        "rounds=auto runs all of it"
    )


def averaged_buffers(config: ExperimentConfig, module: nn.Module) -> Iterator[str]:
    """One line where buffers are averaged of which it is not known whether their mean has a meaning."""
    names = unknown_under_averaging(module)
    if names and config.local.batchnorm != "local" and config.method.has_global_model:
        yield (
            f"model.name={config.model.name}: buffers {', '.join(names)} are averaged over clients as running "
            "statistics are; if their mean has no meaning, keep them with the clients by local.batchnorm=local"
        )


def idle_objectives(
    config: ExperimentConfig, method: Algorithm, layout: ParameterLayout, module: nn.Module, rounds: int
) -> Iterator[str]:
    """One line for each set of active groups with which the method does nothing of its own."""
    objective = method.objective()
    actives = (config.schedule.active(r, layout.groups, config.seed, Feedback.none(layout)) for r in range(rounds))
    for groups in dict.fromkeys(active.groups for active in actives):
        reason = objective.idle_reason(groups, layout, module)
        if reason is not None:
            yield reason


def work_left_out(operators: Sequence[str]) -> Iterator[str]:
    """One line on the operators whose FLOPs are in no figure of the run's work, where there are any.

    Args:
        operators: `StepFlops.uncounted` of the model.
    """
    if operators:
        yield (
            f"the client work leaves out {', '.join(operators)}, whose FLOPs PyTorch's counter does not know; "
            "torch.utils.flop_counter.register_flop_formula can tell it"
        )
