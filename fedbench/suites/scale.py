"""Smaller runs of the same shape: rounds and data scaled, cycles of layer groups kept whole."""

import math
from typing import Any

from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.federation import outline_federation
from fedbench.models.base import Task
from fedbench.planning.schedules import Cyclic, Schedule

Values = dict[str, Any]


def scaled(config: ExperimentConfig, factor: float, groups: int, cycles_read: int = 1) -> tuple[ExperimentConfig, str]:
    """Scale an experiment to about `factor` of the rounds, and `factor` of the data where it can be drawn.

    Cycles get fewer rounds a group and fewer full rounds first, one at least of what there is; then there are fewer
    cycles, but all that are read. So many short cycles may be more rounds than `factor` of them. A client keeps a
    minibatch at least. Milestones of the learning rate, the rounds of `runtime.keep_models`, and the arrivals of a
    round that stands for an epoch, go along. Data that a partition deals out whole (Dirichlet and others without
    `data.samples_per_client`) stays.

    Args:
        factor: greater than 0, at most 1.
        groups: layer groups of the model.
        cycles_read: the number of cycles at whose end something is read.

    Returns:
        The scaled configuration, and its rounds and data in words.
    """
    if factor == 1:
        return config, ""
    values = config.to_mapping()
    before = rounds_of(config, groups)
    if config.rounds != "auto":
        values["rounds"] = max(1, round(config.rounds * factor))
    if isinstance(config.schedule, Cyclic):
        values["schedule"] |= _shorter(config.schedule, factor, groups, cycles_read)
    share = _scale_data(config, values, factor)
    _scale_milestones(values, factor)
    if share < 1 and values["delays"]["arrivals_per_round"] is not None:
        values["delays"]["arrivals_per_round"] = max(1, round(values["delays"]["arrivals_per_round"] * share))
    after = rounds_of(ExperimentConfig.from_mapping(values), groups)
    _scale_kept_rounds(values, before, after)
    result = ExperimentConfig.from_mapping(values)
    samples = "data whole"
    if result.data.samples_per_client is not None and share < 1:
        samples = f"{result.data.samples_per_client} samples a client"
    return result, f"{after} of {before} rounds, {samples}"


def rounds_of(config: ExperimentConfig, groups: int) -> int:
    """The rounds of a run; 0 where `rounds: auto` has no schedule to go by."""
    return config.rounds if config.rounds != "auto" else config.schedule.length(groups) or 0


def _shorter(schedule: Cyclic, factor: float, groups: int, cycles_read: int) -> Values:
    whole = schedule.length(groups)
    counts = {
        key: max(1, round(getattr(schedule, key) * factor)) if getattr(schedule, key) else 0
        for key in ("warmup_rounds", "rounds_per_group", "full_rounds_between_cycles")
    }
    cycles = schedule.cycles
    while cycles > max(1, cycles_read) and _length(schedule, counts | {"cycles": cycles}, groups) > whole * factor:
        cycles -= 1
    return counts | {"cycles": cycles}


def _length(schedule: Cyclic, changes: Values, groups: int) -> int:
    changed: Schedule = schedule.model_copy(update=changes)
    return changed.length(groups) or 0


def _scale_data(config: ExperimentConfig, values: Values, factor: float) -> float:
    """Scale the data in `values`; returns the share of the samples that is left."""
    samples = config.data.samples_per_client
    if samples is None:
        outline = config.data.dataset.outline() if config.data.partition.name == "iid" else None
        if outline is None:
            return 1.0
        samples = int(len(outline.train) * (1 - config.data.validation_fraction)) // config.data.clients
    kept = max(min(samples, config.local.batch_size), round(samples * factor))
    values["data"]["samples_per_client"] = kept
    return kept / samples


def _scale_milestones(values: Values, factor: float) -> None:
    learning_rate = values["local"]["lr_schedule"]
    if "milestones" in learning_rate:
        learning_rate["milestones"] = sorted({max(1, round(round_ * factor)) for round_ in learning_rate["milestones"]})


def _scale_kept_rounds(values: Values, before: int, after: int) -> None:
    """Keep the models of those of `after` rounds that are where the kept ones of `before` rounds are in the run."""
    kept = values["runtime"]["keep_models"]
    if kept and before:
        values["runtime"]["keep_models"] = sorted({max(1, math.ceil(number * after / before)) for number in kept})


class LayerCounts:
    """Counts the layer groups of a configuration's model; each model is built once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, config: ExperimentConfig) -> int:
        """Raises:
        FedbenchError: data or model that cannot be had.
        """
        key = f"{config.data.dataset!r} {config.model!r}"
        if key not in self._known:
            self._known[key] = _count_groups(config)
        return self._known[key]


def _count_groups(config: ExperimentConfig) -> int:
    from fedbench.experiment.federation import load_federation
    from fedbench.models.groups import build_module, derive_layer_groups

    outline = outline_federation(config)
    task: Task = (load_federation(config) if outline is None else outline).task
    return len(derive_layer_groups(build_module(config.model, task, 0), task))
