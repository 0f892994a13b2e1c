"""The layer groups of a transformer of a billion parameters go through the object store; nothing is trained.

No process holds more than a few of its layer groups at a time. By default it has two of its twenty layers.
"""

import resource

import numpy as np
import pytest
from large_encoder import large
from small import config
from warm_pools import WarmPools

from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem
from fedbench.protocol.exact_sum import SCALE, accumulate
from fedbench.protocol.layout import BYTES_PER_VALUE, ParameterLayout

GIB = 2**30

DEPTHS = pytest.mark.parametrize("depth", [2, pytest.param(20, marks=pytest.mark.exhaustive)])


def layout_of(depth: int) -> ParameterLayout:
    chosen = large(depth)
    return build_problem(chosen, load_federation(chosen), foresees=True).layout


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def moved(layout: ParameterLayout, group: int) -> None:
    """One layer group to a worker and back, where it is added up; its bytes are those of the protocol."""
    import ray

    @ray.remote(num_cpus=0)
    def trained(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        assert not values.flags.writeable  # read where it lies in the object store
        return values + np.float32(0.5)

    size = layout.group_size(group)
    start = np.full(size, group, np.float32)
    reference = ray.put(start)
    arrived = ray.get(trained.remote(reference), timeout=60)
    assert arrived.nbytes == BYTES_PER_VALUE * layout.count([group]) == BYTES_PER_VALUE * size
    total = np.zeros(size, np.int64)
    assert accumulate(total, arrived, start, 1.0)
    assert (total == round(0.5 * SCALE)).all()


@DEPTHS
def test_its_layer_groups_go_through_the_object_store(depth: int, warm_pools: WarmPools) -> None:
    """With two layers, one group of each size."""
    layout = layout_of(depth)
    before = peak_memory()
    with warm_pools.lent(config("runtime.actors=1").runtime):
        for group in range(layout.groups) if depth > 2 else (0, 1, 2, layout.groups - 1):
            moved(layout, group)
    assert peak_memory() - before < GIB
