"""The layer groups of a transformer of a billion parameters go through the object store; nothing is trained.

The process that gives them out and takes them back holds no more than a few of them at a time.
"""

import numpy as np
import psutil
import pytest
from large_encoder import large
from small import config
from warm_pools import WarmPools

from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem
from fedbench.protocol.exact_sum import SCALE, accumulate
from fedbench.protocol.layout import BYTES_PER_VALUE, ParameterLayout

DEPTH = 20
SMALL = 2**26
"""Bytes that Ray and the allocators may take beside."""

AT_A_TIME = 5
"""Layer groups in memory, beside what is read in the object store: one that is sent, its sum of int64, comparisons."""


def billion_parameters() -> ParameterLayout:
    chosen = large(DEPTH)
    return build_problem(chosen, load_federation(chosen), foresees=True).layout


def private_memory() -> int:
    """Bytes of this process alone: without the object store, of which it keeps mapped what it has read."""
    used = psutil.Process().memory_info()
    return int(used.rss - used.shared)


@pytest.mark.slow
def test_its_layer_groups_go_through_the_object_store(warm_pools: WarmPools) -> None:
    """Each goes to a worker and back, in the bytes of the protocol; one of each size is added up."""
    import ray

    @ray.remote(num_cpus=0)
    def trained(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        assert not values.flags.writeable  # read where it lies in the object store
        return values + values.dtype.type(0.5)

    layout = billion_parameters()
    assert layout.size > 10**9
    start, moved, before = np.zeros(0, np.float32), 0, private_memory()
    with warm_pools.lent(config("runtime.actors=1").runtime):
        for group in sorted(range(layout.groups), key=layout.group_size):
            size = layout.group_size(group)
            first_of_its_size = size != len(start)
            start = np.zeros(size, np.float32) if first_of_its_size else start
            start[:] = group
            arrived = ray.get(trained.remote(ray.put(start)), timeout=60)
            assert arrived.nbytes == BYTES_PER_VALUE * layout.count([group]) == BYTES_PER_VALUE * size
            assert (arrived == np.float32(group + 0.5)).all()
            moved += arrived.nbytes
            if first_of_its_size:
                total = np.zeros(size, np.int64)
                assert accumulate(total, arrived, start, 1.0)
                assert (total == round(0.5 * SCALE)).all()
            assert private_memory() - before < AT_A_TIME * arrived.nbytes + SMALL
    assert moved == BYTES_PER_VALUE * layout.size
