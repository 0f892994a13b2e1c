"""Every random draw is a function of (seed, purpose, indices): no generator is shared, no global one is seeded.

So two methods under the same seed meet the same cohorts and minibatches, and a client that is run again, on
another actor or another machine, draws the same numbers.
"""

import zlib

import numpy as np


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """A fresh generator for one purpose.

    Args:
        seed: the experiment's seed.
        purpose: what is drawn ("cohort", "minibatches", ...).
        indices: what it is drawn for, e.g. (round, client).

    >>> bool(generator(0, "cohort", 3).integers(100) == generator(0, "cohort", 3).integers(100))
    True
    """
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *indices]))


def torch_seed(seed: int, purpose: str, *indices: int) -> int:
    """A seed in 0..2**63-1 for a `torch.Generator`, by the same rule."""
    return int(generator(seed, purpose, *indices).integers(2**63))
