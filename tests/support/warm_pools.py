"""Runs on Ray that take over each other's actors: starting one, with PyTorch, takes longer than a small run."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.result import Result
from fedbench.experiment.run import prepared, run
from fedbench.records.observers import Observer

if TYPE_CHECKING:
    from fedbench.engine.on_ray.warm_actors import WarmActors


class WarmPools:
    """Actors of earlier runs, one set for each number of actors."""

    def __init__(self) -> None:
        self._pools: dict[int, WarmActors] = {}

    def run(self, config: ExperimentConfig, observers: Sequence[Observer] = ()) -> Result:
        """The experiment, on as many actors as its `runtime.actors`."""
        return self._with_actors(config, lambda warm: run(config, observers, should_stop=lambda: False, warm=warm))

    def prepared(self, config: ExperimentConfig, use: Callable[[Any, Any], Any]) -> Any:
        """What `use(problem, executor)` gives."""

        def inside(warm: "WarmActors") -> Any:
            with prepared(config, warm) as (problem, executor):
                return use(problem, executor)

        return self._with_actors(config, inside)

    def _with_actors(self, config: ExperimentConfig, use: Callable[["WarmActors"], Any]) -> Any:
        from fedbench.engine.on_ray.warm_actors import WarmActors

        assert config.runtime.actors is not None, "a pool has a number of actors"
        warm = self._pools.setdefault(config.runtime.actors, WarmActors())
        try:
            return use(warm)
        except BaseException:
            warm.close()  # what a run that failed half-way left in them is not for the next
            raise

    def close(self) -> None:
        """End all actors."""
        while self._pools:
            self._pools.popitem()[1].close()
