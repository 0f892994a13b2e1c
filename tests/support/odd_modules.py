"""A small network with whatever a module may hold beside its parameters, and data that draw from global generators.

Importable by path: "odd_modules:Odd", "odd_modules:Clamped", "odd_modules:Noisy", "odd_modules:NoisyPartition",
"odd_modules:NoisyRule", "odd_modules:NoisySchedule", "odd_modules:NoisyArrivals".
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from fedbench.algorithms.arrivals import Array, ArrivalRule, AsyncAlgorithm
from fedbench.algorithms.base import Algorithm, RuleContext, ServerRule, Values
from fedbench.data.base import FederatedData, IntArray, Split
from fedbench.data.digits import Digits
from fedbench.data.partition import Iid
from fedbench.planning.schedules import ActiveGroups, Feedback, Schedule

WIDTH = 8

PARTS = (
    "centres", "assigned", "mask", "counter", "attribute", "shared", "twice", "frozen", "weight_norm", "spectral_norm",
    "pruned", "cumulative", "synchronised", "recurrent", "global_random", "dropout", "scored", "unsaved", "private",
    "listed",
)  # fmt: skip
"""The kinds of odd part that `Odd` can have, by name."""


class Odd(nn.Module):
    """A perceptron over 8x8 images with odd parts.

    Attributes:
        parts: names of `PARTS`, joined by "+".
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, parts: str = "") -> None:
        super().__init__()
        self.parts = frozenset(parts.split("+"))
        height, width, channels = input_shape
        self.first: nn.Module = nn.Linear(height * width * channels, WIDTH)
        self.second: nn.Module = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, num_classes)
        if "shared" in self.parts:
            self.third, self.fourth = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.fourth.weight = self.third.weight
        if "twice" in self.parts:
            self.before = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
            self.after = self.before
        if "frozen" in self.parts:
            self.first.requires_grad_(False)
        if "weight_norm" in self.parts:
            self.second = (
                nn.utils.weight_norm(self.second)
                if "pruned" in self.parts
                else parametrizations.weight_norm(self.second)
            )
        elif "spectral_norm" in self.parts:
            self.second = parametrizations.spectral_norm(self.second)
        elif "pruned" in self.parts:
            prune.random_unstructured(self.second, "weight", amount=0.5)
        if "cumulative" in self.parts:
            self.norm: nn.Module = nn.BatchNorm1d(WIDTH, momentum=None)
        elif "synchronised" in self.parts:
            self.norm = nn.SyncBatchNorm(WIDTH)
        if "recurrent" in self.parts:
            self.memory = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.register_buffer("centres", torch.randn(num_classes, WIDTH))
        self.register_buffer("average", torch.zeros(WIDTH))
        self.register_buffer("mask", torch.full((WIDTH,), float("-inf")).diag())
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("recent", torch.zeros(WIDTH), persistent=False)
        self.calls = self._calls = 0
        self.sizes: list[int] = []
        self.scale = random.random() + float(np.random.rand()) if "global_random" in self.parts else 1.0

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.first(images.flatten(1)))
        hidden = torch.relu(self.second(hidden)) * self.scale
        if "shared" in self.parts:
            hidden = self.fourth(torch.relu(self.third(hidden)))
        if "twice" in self.parts:
            hidden = self.after(torch.relu(self.before(hidden)))
        if "recurrent" in self.parts:
            hidden = self.memory(hidden[:, None])[0][:, -1]
        if {"cumulative", "synchronised"} & self.parts:
            hidden = self.norm(hidden)
        if "dropout" in self.parts:
            hidden = F.dropout(hidden, 0.2)
        if self.training or "scored" in self.parts:
            self.change(hidden.detach())
        distances = torch.cdist(hidden, self.centres) if "centres" in self.parts else 0.0
        counted = self.steps + self.calls + self._calls + len(self.sizes)
        return self.last(hidden + self.average + self.recent + 0.01 * counted) - 0.1 * distances

    def change(self, hidden: Tensor) -> None:
        """Change buffers and attributes as a training step may, and with "scored" an evaluation, too."""
        if "centres" in self.parts:
            self.centres += 0.1 * (hidden.mean(0) - self.centres)
        if "assigned" in self.parts:
            self.average = 0.9 * self.average + 0.1 * hidden.mean(0)
        if "counter" in self.parts:
            self.steps += 1
        if "attribute" in self.parts:
            self.calls += 1
        if "private" in self.parts:
            self._calls += 1
        if "listed" in self.parts:
            self.sizes.append(len(hidden))
        if "unsaved" in self.parts:
            self.recent += 0.1 * (hidden.mean(0) - self.recent)
        if "global_random" in self.parts:
            self.average = self.average + random.random() * 0.01 + float(np.random.rand()) * 0.01


class Clamped(nn.Module):
    """Two linear layers that keep their weights small, without regard to autograd.

    Attributes:
        in_evaluation: whether they do so in evaluation, too.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, in_evaluation: bool = False) -> None:
        super().__init__()
        height, width, channels = input_shape
        self.in_evaluation = in_evaluation
        self.first = nn.Linear(height * width * channels, WIDTH)
        self.last = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        if self.training or self.in_evaluation:
            self.first.weight.data.clamp_(-0.05, 0.05)
        return self.last(torch.relu(self.first(images.flatten(1))))


class Noisy(Digits):
    """Digits in an order that the global generators of Python, NumPy and PyTorch draw."""

    name: str = "odd_modules:Noisy"

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        data = super().load(root, test_fraction=test_fraction, seed=seed)
        order = np.random.permutation(len(data.train))
        order = np.roll(order[torch.randperm(len(order)).numpy()], random.randrange(len(order)))
        train = Split(data.train.inputs[order], data.train.labels[order])
        return replace(data, train=train, fingerprint=str(order[:5]))


class NoisyPartition(Iid):
    """Equal shares of rows that NumPy's global generator draws."""

    name: str = "odd_modules:NoisyPartition"

    def split(self, labels: IntArray, clients: int, rng: np.random.Generator, **options: Any) -> list[IntArray]:
        rows = np.random.permutation(len(labels))[: clients * options["samples_per_client"]]
        return list(np.sort(rows.reshape(clients, -1)))


class NoisyRule(Algorithm):
    """FedAvg whose server adds noise from NumPy's global generator."""

    name: str = "odd_modules:NoisyRule"

    def rule(self) -> ServerRule:
        return AddsNoise()


class AddsNoise(ServerRule):
    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        return previous + update + 0.01 * np.random.normal(size=update.shape)


class NoisySchedule(Schedule):
    """One layer group a round, which Python's global generator draws."""

    name: str = "odd_modules:NoisySchedule"

    def length(self, groups: int) -> int | None:
        return None

    def active(self, round_index: int, groups: int, seed: int, feedback: Feedback) -> ActiveGroups:
        return ActiveGroups((random.randrange(groups),), partial=True)


class NoisyArrivals(AsyncAlgorithm):
    """Asynchronous SGD whose server adds noise from NumPy's global generator."""

    name: str = "odd_modules:NoisyArrivals"

    def machine(self, parameters: Array, workers: int) -> ArrivalRule:
        return AddsNoiseOnArrival(parameters, workers)


class AddsNoiseOnArrival(ArrivalRule):
    def apply(self, update: Array, index: int, worker: int, lr: float) -> None:
        noise = 0.01 * np.random.normal(size=update.shape)
        self.parameters = self.parameters - lr * update + noise.astype(np.float32)
