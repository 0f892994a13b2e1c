"""Gradients of minibatches as an expert would compute them in plain PyTorch: what arrivals are measured against.

One process per core with one thread each. A process has its own network and its minibatches ready as float32 tensors,
and does nothing but zero_grad(set_to_none), forward, backward: it sends no gradient, applies none, and never waits.
"""

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from fedbench.engine.on_ray.allocator import keep_freed_memory
from fedbench.models.base import Model, Task
from fedbench.models.groups import build_module

RAY_WORKER_NICENESS = 15
"""Niceness that Ray gives its workers (its default). A bare process has it, too: a busy machine slows both alike."""

MINIBATCHES = 16
"""Minibatches that a process takes in turn."""


def worker(pipe: Connection, model: Model, task: Task, batch_size: int, channels_last: bool) -> None:
    """Compute as many gradients as each message says, and answer when they are there."""
    os.nice(RAY_WORKER_NICENESS)
    keep_freed_memory()
    torch.set_num_threads(1)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    module = build_module(model, task, 0).to(memory_format=memory_format)  # type: ignore[call-overload]
    module.train()
    images = [torch.rand(batch_size, 3, 32, 32).contiguous(memory_format=memory_format) for _ in range(MINIBATCHES)]
    labels = [torch.randint(0, 10, (batch_size,)) for _ in range(MINIBATCHES)]
    while True:
        count = pipe.recv()
        for number in range(count):
            module.zero_grad(set_to_none=True)
            cross_entropy(module(images[number % MINIBATCHES]), labels[number % MINIBATCHES]).backward()
        pipe.send(count)


class BareGradients:
    """Plain processes, each of which computes its share of a number of gradients of CIFAR-10's shape."""

    def __init__(self, model: Model, task: Task, batch_size: int, processes: int, *, channels_last: bool) -> None:
        """Args:
        model: the network.
        task: its task, with 10 classes of 3x32x32 images.
        batch_size: samples of a minibatch.
        processes: number of processes.
        channels_last: whether images and weights lie in memory with the channels last.
        """
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Any] = []
        self._processes = []
        for _ in range(processes):
            near, far = context.Pipe()
            process = context.Process(target=worker, args=(far, model, task, batch_size, channels_last), daemon=True)
            process.start()
            self._pipes.append(near)
            self._processes.append(process)

    def seconds(self, gradients: int) -> float:
        """Seconds until all processes have computed their shares of `gradients`."""
        began = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(gradients // len(self._pipes))
        for pipe in self._pipes:
            pipe.recv()
        return time.perf_counter() - began

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
