"""The global generators, seeded for as long as a client trains or a minibatch is scored."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedbench.randomness import global_generators_seeded


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the generators that dropout on `device` draws from, and those of Python and NumPy.

    Afterwards they are as they were.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=bool(devices)), global_generators_seeded(seed):
        if devices:
            torch.manual_seed(seed)
        yield
