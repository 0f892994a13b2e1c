"""One Ray connection for several runs, whose actors stay warm between the runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedbench.config.runtime import RuntimeSection

if TYPE_CHECKING:
    from fedbench.engine.on_ray.warm_actors import WarmActors


@contextmanager
def ray_session(runtime: RuntimeSection) -> "Iterator[WarmActors | None]":
    """Context in which several runs share one Ray connection and take over each other's actors.

    A Ray that is already connected, or is kept (`lifetime.ray_kept`), stays connected afterwards.

    Yields:
        The actors to share; None with `runtime.executor=inline`.

    Raises:
        RunError: no cluster answers at `runtime.address`.
    """
    if runtime.executor == "inline":
        yield None
        return
    from fedbench.engine.on_ray.connection import disconnect, join
    from fedbench.engine.on_ray.warm_actors import WarmActors

    has_to_leave = join(runtime.address)
    warm = WarmActors()
    try:
        yield warm
    finally:
        warm.close()
        if has_to_leave:
            disconnect()
