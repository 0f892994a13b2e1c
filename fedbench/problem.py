"""A configuration made concrete: the model laid out for the data, and what its rounds cost.

Whatever can be wrong with an experiment shows here or in `fedbench.federation`, before anything is recorded.
"""

from dataclasses import dataclass
from typing import Any

from fedbench.accounting.costs import CostModel, Costs
from fedbench.accounting.flops import StepFlops
from fedbench.accounting.paper import forward_macs
from fedbench.config import ExperimentConfig
from fedbench.engine.messages import HostSpec
from fedbench.errors import ConfigError
from fedbench.federation import Federation
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.parameters import ParameterLayout, Vector
from fedbench.randomness import torch_seed
from fedbench.schedules import Full
from fedbench.training.flat import FlatModel


@dataclass(frozen=True)
class Problem:
    """All that a run is, apart from where it runs.

    Attributes:
        layout: of the model's parameters.
        vector, statistics: the initial model.
        costs: of clients and rounds.
        rounds: number of rounds.
        cohort_size: participants of a round.
        spec: for client hosts, without their share of a GPU.
        server: keyword arguments of `fedbench.engine.server.Server`.
    """

    config: ExperimentConfig
    federation: Federation
    layout: ParameterLayout
    vector: Vector
    statistics: Vector
    costs: CostModel
    rounds: int
    cohort_size: int
    spec: HostSpec
    server: dict[str, Any]


def build_problem(config: ExperimentConfig, federation: Federation) -> Problem:
    """Build the model, derive its layer groups, and check that configuration, data and model fit together.

    Raises:
        ModelError: the model cannot serve the data.
        ConfigError: options that clash or would have no effect.
    """
    task = federation.task
    initial_seed = torch_seed(config.seed, "model")
    module = build_module(config.model, task, initial_seed)
    groups = derive_layer_groups(module, task)
    layout = parameter_layout(module, groups)
    flops, macs = StepFlops(module, groups, task), forward_macs(module, task)
    model = FlatModel(module, layout)
    vector, statistics = model.vector.numpy(), model.statistics.numpy()
    _check_statistics(config, layout)
    rounds = count_rounds(config, layout.groups)
    keeps_statistics = config.local.batchnorm == "local"
    epochs = config.local.epochs if config.local.epochs or config.local.steps else 1
    data = config.data
    costs = CostModel(
        layout,
        flops,
        macs,
        sizes=federation.sizes,
        batch_size=config.local.batch_size,
        epochs=epochs,
        steps=config.local.steps,
        smallest_batch=model.smallest_batch,
        aggregates_statistics=not keeps_statistics,
    )
    spec = HostSpec(
        model=config.model,
        task=task,
        layout=layout,
        statistics=statistics,
        algorithm=config.algorithm,
        optimizer=config.local.optimizer,
        batch_size=config.local.batch_size,
        epochs=epochs,
        steps=config.local.steps,
        bf16=config.local.precision == "bf16",
        keeps_statistics=keeps_statistics,
        evaluation_statistics=config.evaluation.batchnorm or ("client0" if keeps_statistics else "aggregate"),
        evaluation_batch_size=config.evaluation.batch_size,
        augmentation=data.augment,
        mean=None if data.normalize is False else federation.data.mean,
        std=None if data.normalize is False else federation.data.std,
        seed=config.seed,
        torch_threads=config.runtime.torch_threads,
        deterministic=config.runtime.deterministic,
        gpu_fraction=0.0,
    )
    cohort_size = config.participation.size(data.clients)
    server = {
        "layout": layout,
        "vector": vector,
        "statistics": statistics,
        "aggregates_statistics": not keeps_statistics,
        "sizes": federation.sizes,
        "cohort_size": cohort_size,
        "rounds": rounds,
        "seed": config.seed,
        "algorithm": config.algorithm,
        "schedule": config.schedule,
        "learning_rate": config.local.lr_schedule,
    }
    return Problem(config, federation, layout, vector, statistics, costs, rounds, cohort_size, spec, server)


def count_rounds(config: ExperimentConfig, groups: int) -> int:
    """The number of rounds that the configuration asks for, for a model of `groups` layer groups.

    Raises:
        ConfigError: `rounds: auto` without an end, or more rounds than the schedule has.
    """
    length = config.schedule.length(groups)
    if config.rounds == "auto":
        if length is None:
            raise ConfigError(f"rounds=auto: schedule.name={config.schedule.name} has no end; set rounds to a number")
        return length
    if length is not None and config.rounds > length:
        raise ConfigError(
            f"rounds={config.rounds}: the schedule ends after {length} rounds with {groups} layer groups; "
            "raise schedule.cycles, or set rounds=auto"
        )
    return config.rounds


def full_update_costs(problem: Problem) -> list[Costs]:
    """What the same rounds would cost as full network updates."""
    return problem.costs.project(Full(), problem.rounds, problem.cohort_size, problem.config.seed)


def _check_statistics(config: ExperimentConfig, layout: ParameterLayout) -> None:
    if layout.statistics_size:
        return
    for key, value in (
        ("local.batchnorm", config.local.batchnorm),
        ("evaluation.batchnorm", config.evaluation.batchnorm),
    ):
        if value is not None:
            raise ConfigError(
                f"{key}={value}: has no effect, model.name={config.model.name} has no running statistics; leave it out"
            )
