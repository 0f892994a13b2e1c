"""The logistic problem of a convergence study, as a data set and a model. Importable by path."""

import hashlib
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedbench.analysis.convergence.problems import PARAMETERS, Logistic
from fedbench.config.experiment import ExperimentConfig
from fedbench.data.base import Dataset, FederatedData, Split
from fedbench.models.base import LayerGroup, Model, Task

PROBLEM_SEED = 0


class Rows(Dataset):
    """The rows of the problem, each with its client as its natural owner.

    Attributes:
        clients: N.
    """

    name: str = "logistic_problem:Rows"
    clients: int = 4

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        problem = Logistic(self.clients, PROBLEM_SEED)
        inputs = problem.pixels.reshape(-1, 1, PARAMETERS, 1)
        owners = np.repeat(np.arange(self.clients), problem.labels.shape[1])
        split = Split(inputs, problem.labels.reshape(-1), owners)
        return FederatedData(
            name=self.name,
            kind="image",
            train=split,
            test=Split(inputs[:8], split.labels[:8]),
            class_names=("minus", "plus"),
            mean=None,
            std=None,
            vocabulary_size=0,
            padding_index=-1,
            source="drawn",
            fingerprint=hashlib.sha256(inputs.tobytes()).hexdigest(),
        )


class Margin(Model):
    """Logits (0, x'w), whose cross-entropy is the logistic loss; w is 0 at first.

    Attributes:
        groups: M, layer groups of equal size.
    """

    name: str = "logistic_problem:Margin"
    groups: int = 4

    def build(self, task: Task) -> nn.Module:
        return MarginModule(self.groups)


class MarginModule(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.pieces = nn.ParameterList(map(torch.zeros, repeat(PARAMETERS // groups, groups)))

    def layer_groups(self) -> list[LayerGroup]:
        return [LayerGroup(f"group{number}", (f"pieces.{number}",)) for number in range(len(self.pieces))]

    def forward(self, images: Tensor) -> Tensor:
        margins = images.flatten(1) @ torch.cat(list(self.pieces))
        return torch.stack([torch.zeros_like(margins), margins], 1)


def engine_config(clients: int, seed: int, lr: float, *overrides: str) -> ExperimentConfig:
    """A run of the problem in this process."""
    return ExperimentConfig.load(
        None,
        [
            f"seed={seed}",
            "data.dataset=logistic_problem:Rows",
            f"data.dataset.clients={clients}",
            f"data.clients={clients}",
            "data.partition=natural",
            "data.normalize={mean: 0.5, std: 0.5}",
            "model=logistic_problem:Margin",
            f"local.batch_size={Logistic.batch}",
            f"local.optimizer.lr={lr!r}",
            f"local.optimizer.weight_decay={Logistic.penalty}",
            "tracking.enabled=false",
            "runtime.executor=inline",
            "runtime.device=cpu",
            *overrides,
        ],
    )
