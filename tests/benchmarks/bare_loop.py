"""Federated averaging as an expert would write it in plain PyTorch: what fedbench's rounds are measured against.

One process per core with one thread, each with its clients' images ready as float32 in the faster memory format; the
training loop is that of `expert_loop`; parameters cross the processes as plain arrays, one sum a process. The C
library's allocator keeps freed memory, as it does in fedbench's actors.
"""

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from expert_loop import ExpertLoop
from plain_networks import NETWORKS

from fedbench.engine.on_ray.allocator import keep_freed_memory

Arrays = list[np.ndarray]

RAY_WORKER_NICENESS = 15
"""Niceness that Ray gives its workers (its default). A bare process has it, too: a busy machine slows both alike."""


def worker(
    pipe: Connection,
    network: str,
    memory_format: str,
    images: np.ndarray,
    labels: np.ndarray,
    clients: Sequence[np.ndarray],
    batch_size: int,
) -> None:
    """Serve rounds until None arrives.

    Args:
        pipe: receives (round, parameters), and sends the sum of the clients' parameters after an epoch each.
        network: one of `NETWORKS`.
        memory_format: as for `ExpertLoop`.
        images: uint8 [N, H, W, C], the images of this process's clients.
        labels: int64 [N].
        clients: for each client its rows of `images`.
        batch_size: samples of a minibatch.
    """
    os.nice(RAY_WORKER_NICENESS)
    keep_freed_memory()
    torch.set_num_threads(1)
    loop = ExpertLoop(NETWORKS[network](), torch.from_numpy(images), torch.from_numpy(labels), memory_format, lr=0.05)
    parameters = [parameter.detach() for parameter in loop.module.parameters()]
    while (message := pipe.recv()) is not None:
        round_index, arrays = message
        start = [torch.from_numpy(array) for array in arrays]
        total = [torch.zeros_like(tensor) for tensor in start]
        for number, rows in enumerate(clients):
            torch._foreach_copy_(parameters, start)
            order = np.random.default_rng((round_index, number)).permutation(rows)
            loop.epoch(order, batch_size)
            torch._foreach_add_(total, parameters)
        pipe.send([tensor.numpy() for tensor in total])


class BareLoop:
    """Plain processes that share the clients out evenly.

    Args:
        network: one of `NETWORKS`.
        memory_format: as for `ExpertLoop`.
        images: uint8 [N, H, W, C].
        labels: int64 [N].
        rows: for each client its rows.
        batch_size: samples of a minibatch.
        processes: number of processes.
    """

    def __init__(
        self,
        network: str,
        memory_format: str,
        images: np.ndarray,
        labels: np.ndarray,
        rows: Sequence[np.ndarray],
        batch_size: int,
        processes: int,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._count = len(rows)
        self._state: Arrays = [parameter.detach().numpy() for parameter in NETWORKS[network]().parameters()]
        self._pipes: list[Any] = []
        self._processes = []
        for first in range(processes):
            of_process = rows[first::processes]
            chosen = np.concatenate(of_process)
            borders = np.cumsum([len(of_client) for of_client in of_process])[:-1]
            clients = np.split(np.arange(len(chosen)), borders)
            near, far = context.Pipe()
            arguments = (far, network, memory_format, images[chosen], labels[chosen], clients, batch_size)
            process = context.Process(target=worker, args=arguments, daemon=True)
            process.start()
            self._pipes.append(near)
            self._processes.append(process)

    def round(self, round_index: int) -> None:
        """One round of federated averaging."""
        for pipe in self._pipes:
            pipe.send((round_index, self._state))
        totals = [pipe.recv() for pipe in self._pipes]
        self._state = [sum(arrays) / self._count for arrays in zip(*totals, strict=True)]

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()
