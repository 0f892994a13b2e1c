"""One place's training as a few plain lines of PyTorch: what a run does, without fedbench's engine."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.federation import Federation, scaling
from fedbench.models.groups import build_module
from fedbench.randomness import generator, torch_seed


def new_module(config: ExperimentConfig, federation: Federation) -> nn.Module:
    """The network as a run begins with it."""
    return build_module(config.model, federation.task, torch_seed(config.seed, "model"))


def images(config: ExperimentConfig, federation: Federation, split: str = "train") -> tuple[Tensor, Tensor]:
    """All images [N, C, H, W] of a split as the network takes them, and their labels."""
    rows = getattr(federation.data, split)
    pixels = torch.from_numpy(rows.inputs.astype(np.float32) / 255).permute(0, 3, 1, 2)
    mean, std = scaling(config.data, federation.data)
    if mean is not None and std is not None:
        pixels = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    return pixels, torch.from_numpy(rows.labels)


def train_round(
    module: nn.Module,
    config: ExperimentConfig,
    data: tuple[Tensor, Tensor],
    rows: npt.NDArray[np.int64],
    round_index: int,
    client: int,
    steps: int,
) -> None:
    """`steps` minibatches of SGD on these rows, epoch after epoch, each in a new order; the optimizer is new."""
    settings, size = config.local.optimizer, config.local.batch_size
    optimizer = torch.optim.SGD(module.parameters(), settings.lr, momentum=getattr(settings, "momentum", 0.0))
    rng = generator(config.seed, "minibatches", round_index, client)
    batches: list[npt.NDArray[np.int64]] = []
    while len(batches) < steps:
        order = rows[rng.permutation(len(rows))]
        batches += [order[start : start + size] for start in range(0, len(order), size)]
    module.train()
    for batch in batches[:steps]:
        optimizer.zero_grad()
        chosen = torch.from_numpy(batch)
        cross_entropy(module(data[0][chosen]), data[1][chosen]).backward()
        optimizer.step()


def accuracy(module: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Accuracy in 0..1."""
    module.eval()
    with torch.no_grad():
        return float((module(data[0]).argmax(1) == data[1]).double().mean())
