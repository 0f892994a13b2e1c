"""One Ray for several runs: connected before the first, its actors warm between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedbench.config.runtime import RuntimeSection

if TYPE_CHECKING:
    from fedbench.engine.on_ray.warm_actors import WarmActors


@contextmanager
def ray_session(runtime: RuntimeSection) -> "Iterator[WarmActors | None]":
    """While open, runs join one Ray instead of starting one each, and take over each other's actors; None: without Ray.

    A Ray that is there already is joined and left.

    Raises:
        RunError: nothing answers at `runtime.address`.
    """
    if runtime.executor == "inline":
        yield None
        return
    import ray

    from fedbench.engine.on_ray.actors import connect
    from fedbench.engine.on_ray.warm_actors import WarmActors

    found = ray.is_initialized()
    if not found:
        connect(runtime.address)
    warm = WarmActors()
    try:
        yield warm
    finally:
        warm.close()
        if not found:
            ray.shutdown()
