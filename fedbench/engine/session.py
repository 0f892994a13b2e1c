"""One Ray for several runs: connected before the first, left open between them."""

from collections.abc import Iterator
from contextlib import contextmanager

from fedbench.runtime import RuntimeSection


@contextmanager
def ray_session(runtime: RuntimeSection) -> Iterator[None]:
    """While open, runs join one Ray instead of starting one each; a Ray that is there already is joined and left.

    Raises:
        RunError: nothing answers at `runtime.address`.
    """
    if runtime.executor == "inline":
        yield
        return
    import ray

    from fedbench.engine.cluster import connect

    if ray.is_initialized():
        yield
        return
    connect(runtime.address)
    try:
        yield
    finally:
        ray.shutdown()
