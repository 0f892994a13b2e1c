"""The data set is in a node's memory once, however many actors read it."""

import sys
from typing import Any

import pytest
from small import config
from warm_pools import WarmPools

pytestmark = pytest.mark.slow


def mapped_from(actor: Any) -> list[tuple[str, str]]:
    """(inode, permissions) of the mappings in which a host's images, labels and rows lie; called in its process."""
    host = actor._host
    addresses = [host._train[0].data_ptr(), host._train[1].data_ptr(), host._rows[0].ctypes.data]
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            borders, permissions, _, _, inode = line.split()[:5]
            start, stop = (int(border, 16) for border in borders.split("-"))
            found += [(inode, permissions) for address in addresses if start <= address < stop]
    return found


def loaded(host: Any) -> set[str]:
    """The modules of the process that calls it."""
    return set(sys.modules)


def test_actors_train_without_what_takes_long_to_import(warm_pools: WarmPools) -> None:
    """PyTorch's compiler takes a second to import, and its optimizer classes import it."""
    import ray

    def after_training(problem: Any, executor: Any) -> Any:
        executor.train(executor.plan(0))
        return ray.get([client.__ray_call__.remote(loaded) for client in executor._cluster.client_actors])

    (modules,) = warm_pools.prepared(config("runtime.actors=1"), after_training)
    assert "torch" in modules
    unused = {
        "torch._dynamo",
        "torch.utils.flop_counter",
        "sympy",
        "sklearn",
        "pandas",
        "matplotlib",
        "mlflow",
        "optuna",
    }
    assert modules & unused == set()


def test_actors_of_a_node_read_the_same_memory(warm_pools: WarmPools) -> None:
    import ray

    def places(problem: Any, executor: Any) -> Any:
        return ray.get([client.__ray_call__.remote(mapped_from) for client in executor._cluster.client_actors])

    first, second = warm_pools.prepared(config("runtime.actors=2"), places)
    assert len(first) == 3
    assert first == second
    for inode, permissions in first:
        assert inode != "0", "memory of the process's own"
        assert permissions.endswith("s"), "not shared"
