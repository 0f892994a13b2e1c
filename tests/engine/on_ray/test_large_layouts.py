"""The layer groups of a transformer of a billion parameters go through the object store; nothing is trained.

The process that gives them out and takes them back holds no more than a few of them at a time.
"""

import resource

import numpy as np
from large_encoder import large
from small import config
from warm_pools import WarmPools

from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem
from fedbench.protocol.exact_sum import SCALE, accumulate
from fedbench.protocol.layout import BYTES_PER_VALUE, ParameterLayout

DEPTH = 20
AT_A_TIME = 8
"""Layer groups in memory, or read in the object store, at a time: a sum of int64 counts as two."""


def billion_parameters() -> ParameterLayout:
    chosen = large(DEPTH)
    return build_problem(chosen, load_federation(chosen), foresees=True).layout


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_its_layer_groups_go_through_the_object_store(warm_pools: WarmPools) -> None:
    """Each goes to a worker and back, in the bytes of the protocol; one of each size is added up."""
    import ray

    @ray.remote(num_cpus=0)
    def trained(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        assert not values.flags.writeable  # read where it lies in the object store
        return values + values.dtype.type(0.5)

    layout = billion_parameters()
    assert layout.size > 10**9
    start, moved, before = np.zeros(0, np.float32), 0, peak_memory()
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
                del total
    assert moved == BYTES_PER_VALUE * layout.size
    assert peak_memory() - before < AT_A_TIME * arrived.nbytes
