"""Every random draw is a function of (seed, purpose, indices): no generator is shared.

So two methods under the same seed meet the same cohorts and minibatches, and a client that is run again, on
another actor or another machine, draws the same numbers. The global generators are seeded for foreign code alone, and
only while it runs.
"""

import random
import sys
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

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


@contextmanager
def global_generators_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, of NumPy and, where it is imported, of PyTorch on the CPU.

    Models, data sets and other parts of a user's own may draw from them. Afterwards they are as they were.

    Args:
        seed: in 0..2**63-1.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()
    # torch.manual_seed also notes the call stack for every kind of accelerator that is not there, which takes longer
    # than a minibatch of a small model. Another thread may be in the middle of the import.
    of_torch = getattr(sys.modules.get("torch"), "default_generator", None)
    torch_state = None if of_torch is None else of_torch.get_state()
    random.seed(seed)
    np.random.seed([seed >> shift & 0xFFFFFFFF for shift in (0, 32)])
    if of_torch is not None:
        of_torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        if of_torch is not None:
            of_torch.set_state(torch_state)


def seeded_if_foreign(part: object, seed: int, purpose: str, *indices: int) -> AbstractContextManager[None]:
    """Seed the global generators, as `global_generators_seeded`, while a part that is not fedbench's own computes.

    Args:
        part: an object of a class; those of fedbench draw from no global generator, and are spared the time.
        seed: the experiment's seed.
        purpose: what the part computes.
        indices: what it computes it for, e.g. the round.
    """
    if type(part).__module__.startswith("fedbench."):
        return nullcontext()
    return global_generators_seeded(torch_seed(seed, purpose, *indices))
