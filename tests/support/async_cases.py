"""What tests of asynchronous runs share. All runs are in this process."""

from typing import Any

import pyarrow.parquet as pq
import torch
from small import asynchronous

from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.federation import load_federation
from fedbench.experiment.run import Result
from fedbench.experiment.setup import Problem, build_problem
from fedbench.models.groups import build_module
from fedbench.randomness import torch_seed

PERCEPTRON = ("model=small:TwoLayers", "model.hidden=8")
SEQUENTIAL = ("schedule=sequential", "schedule.warmup_rounds=1", "schedule.rounds_per_group=1")
UNCUT = "data.samples_per_client=null"
ONE_WORKER = ("data.clients=1", "delays.arrivals_per_round=4", "evaluation.every=3")
EQUAL_TIMES = ("delays.distribution=constant", "data.samples_per_client=32")


def inline(*overrides: str) -> ExperimentConfig:
    return asynchronous("runtime.executor=inline", *overrides)


def events_of(result: Result) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(result.directory / "events.parquet").to_pylist()
    return rows


def without_wall(result: Result) -> list[dict[str, Any]]:
    return [event | {"wall_seconds": 0.0} for event in events_of(result)]


def problem_of(config: ExperimentConfig) -> Problem:
    return build_problem(config, load_federation(config))


def config_with(config: ExperimentConfig, *overrides: str) -> ExperimentConfig:
    """The same, changed."""
    from fedbench.config.merge import parse_overrides

    values = config.to_mapping()
    for text in overrides:
        for section, changes in parse_overrides([text]).items():
            values[section] = values[section] | changes
    return ExperimentConfig.from_mapping(values)


def initial(config: ExperimentConfig) -> torch.nn.Module:
    """The model that a run starts from."""
    return build_module(config.model, load_federation(config).task, torch_seed(config.seed, "model")).train()
