"""The data set is in a node's memory once, however many actors read it."""

from typing import Any

import pytest
from small import config

from fedbench.experiment.run import prepared

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def mapped_from(host: Any) -> list[tuple[str, str]]:
    """(inode, permissions) of the mappings in which a host's images, labels and rows lie; called in its process."""
    addresses = [host._train[0].data_ptr(), host._train[1].data_ptr(), host._rows[0].ctypes.data]
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            borders, permissions, _, _, inode = line.split()[:5]
            start, stop = (int(border, 16) for border in borders.split("-"))
            found += [(inode, permissions) for address in addresses if start <= address < stop]
    return found


def test_actors_of_a_node_read_the_same_memory() -> None:
    import ray

    with prepared(config("runtime.actors=2")) as (_, executor):
        clients = executor._cluster.client_actors  # type: ignore[attr-defined]
        first, second = ray.get([client.__ray_call__.remote(mapped_from) for client in clients])
    assert len(first) == 3
    assert first == second
    for inode, permissions in first:
        assert inode != "0", "memory of the process's own"
        assert permissions.endswith("s"), "not shared"
