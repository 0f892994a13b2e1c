"""Client actors, and the Ray that they run on, kept from one run to the next of the same process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedbench.components.own_code import source_digests
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.on_ray.lifetime import ray_kept

if TYPE_CHECKING:
    from fedbench.engine.on_ray.warm_actors import WarmActors


class Session:
    """The client actors of the last run, lent to the next one where they suit it."""

    def __init__(self) -> None:
        self._warm: WarmActors | None = None
        self._address: str | None = None
        self._sources: dict[str, str] = {}

    def actors_for(self, config: ExperimentConfig) -> "WarmActors":
        """What lends a run its actors; those that are kept are ended first where the run could tell them from new ones.

        That is where they are on another cluster, or where a source file of one's own has changed since they imported
        it.
        """
        from fedbench.engine.on_ray.warm_actors import WarmActors

        sources = source_digests(config.to_mapping())
        has_changed = any(self._sources.get(module, content) != content for module, content in sources.items())
        if has_changed or config.runtime.address != self._address:
            self.release()
        self._address = config.runtime.address
        self._sources |= sources
        self._warm = self._warm or WarmActors()
        return self._warm

    def release(self) -> None:
        """End the actors that are kept; the next run starts new ones."""
        if self._warm is not None:
            self._warm.close()
        self._warm = None
        self._sources = {}


_open: Session | None = None
"""The session that is open in this process."""


@contextmanager
def session() -> Iterator[None]:
    """Context in which runs take over each other's client actors, with PyTorch loaded and data in reach.

    Starting actors takes longer than a small run. A run's result is that of new actors, whatever ran before. Without a
    session each run starts its own; a local Ray is kept to the end of the process either way. Actors end with the
    context, or when a run wants others: another number, another cluster, changed code of one's own. Runs without Ray
    (`runtime.executor=inline`) have none. A session within another one is the same.

    >>> with session():  # doctest: +SKIP
    ...     results = [run(ExperimentConfig.load("quickstart", {"seed": seed})) for seed in range(3)]
    """
    global _open
    if _open is not None:
        yield
        return
    _open = Session()
    try:
        with ray_kept():
            yield
    finally:
        ended, _open = _open, None
        with ray_kept():
            ended.release()


@contextmanager
def lent_actors(config: ExperimentConfig) -> "Iterator[WarmActors | None]":
    """Context of one run: the session's actors for it; None without a session, or without actors.

    A run that fails may leave actors in any state: then they are ended.
    """
    if _open is None or config.runtime.executor == "inline":
        yield None
        return
    warm = _open.actors_for(config)
    try:
        yield warm
    except BaseException:
        release_actors()
        raise


def release_actors() -> None:
    """End the actors that a session keeps, to make room for those of a suite or a study."""
    if _open is not None:
        _open.release()
