"""PyTorch's global generators, seeded for as long as a client trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the generators that dropout draws from on `device`; afterwards they are as they were.

    On a CPU its generator alone is seeded: `torch.manual_seed` also notes the call stack for every kind of accelerator
    that is not there, which takes longer than a minibatch of a small model.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        yield
