"""Federated averaging as a user would write it in plain PyTorch: what fedbench's rounds are measured against.

Contiguous float32 tensors, a state dict per client, `torch.optim.SGD` tensor by tensor, one process per core.
"""

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedbench.randomness import generator
from fedbench.training.minibatches import minibatches


class BenchmarkCnn(nn.Module):
    """Three convolutions and two linear layers, 155,690 parameters for 10 classes of 32x32x3."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.fc1 = nn.Linear(64 * 4 * 4, 96)
        self.fc2 = nn.Linear(96, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        for convolution in (self.conv1, self.conv2, self.conv3):
            maps = nn.functional.max_pool2d(torch.relu(convolution(maps)), 2)
        return self.fc2(torch.relu(self.fc1(maps.flatten(1))))


def train_clients(
    model: nn.Module,
    state: dict[str, Tensor],
    clients: Sequence[int],
    data: tuple[Tensor, Tensor],
    rows: Sequence[np.ndarray],
    batch_size: int,
    round_index: int,
) -> dict[str, Tensor]:
    """The sum of the clients' state dicts after one epoch each, from `state`."""
    images, labels = data
    total = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    for client in clients:
        model.load_state_dict(state)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        order = generator(0, "minibatches", round_index, client)
        for positions in minibatches(order, len(rows[client]), batch_size, epochs=1, steps=None):
            chosen = torch.from_numpy(rows[client][positions])
            optimizer.zero_grad()
            cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
        for name, tensor in model.state_dict().items():
            total[name] += tensor
    return total


def worker(pipe: Connection, images: np.ndarray, labels: np.ndarray, rows: list[np.ndarray], batch_size: int) -> None:
    """Serve rounds until None arrives."""
    torch.set_num_threads(1)
    data = (torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255, torch.from_numpy(labels))
    model = BenchmarkCnn()
    model.train()
    while (message := pipe.recv()) is not None:
        round_index, clients, state = message
        pipe.send(train_clients(model, state, clients, data, rows, batch_size, round_index))


class BareLoop:
    """Plain processes that share the clients out evenly."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, rows: list[np.ndarray], batch_size: int, processes: int
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._clients = [list(range(first, len(rows), processes)) for first in range(processes)]
        self._count = len(rows)
        self._state = BenchmarkCnn().state_dict()
        self._pipes: list[Any] = []
        self._processes = []
        for _ in range(processes):
            near, far = context.Pipe()
            process = context.Process(target=worker, args=(far, images, labels, rows, batch_size), daemon=True)
            process.start()
            self._pipes.append(near)
            self._processes.append(process)

    def round(self, round_index: int) -> None:
        """One round of federated averaging."""
        for pipe, clients in zip(self._pipes, self._clients, strict=True):
            pipe.send((round_index, clients, self._state))
        totals = [pipe.recv() for pipe in self._pipes]
        self._state = {name: sum(total[name] for total in totals) / self._count for name in self._state}

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()
