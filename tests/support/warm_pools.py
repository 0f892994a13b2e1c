"""Runs on Ray that take over each other's actors: starting one, with PyTorch, takes longer than a small run."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.runtime import RuntimeSection
from fedbench.experiment.result import Result
from fedbench.experiment.run import prepared, run
from fedbench.records.observers import Observer

if TYPE_CHECKING:
    from fedbench.engine.on_ray.actors import ActorCluster
    from fedbench.engine.on_ray.warm_actors import WarmActors

MOST_ACTORS = 3
ANSWER_TIMEOUT = 60.0
"""Seconds in which an actor ends what the test before has asked of it, or starts."""

RESOURCE = "warm"
"""Ray's resource that the actors hold instead of CPUs, which are for what other tests start."""


class WarmPools:
    """Three client actors and the servers of earlier runs; a run has as many of the actors as it asks for.

    What a run asks of its actors beside their number and the place of the server is not looked at.
    """

    def __init__(self) -> None:
        self._all: ActorCluster | None = None

    def run(self, config: ExperimentConfig, observers: Sequence[Observer] = ()) -> Result:
        """The experiment, on as many actors as its `runtime.actors`."""
        with self.lent(config.runtime) as actors:
            return run(config, observers, should_stop=lambda: False, warm=cast("WarmActors", Lender(actors)))

    def prepared(self, config: ExperimentConfig, use: Callable[[Any, Any], Any]) -> Any:
        """What `use(problem, executor)` gives."""
        with (
            self.lent(config.runtime) as actors,
            prepared(config, cast("WarmActors", Lender(actors))) as (problem, executor),
        ):
            return use(problem, executor)

    @contextmanager
    def lent(self, runtime: RuntimeSection) -> "Iterator[ActorCluster]":
        """Context with a cluster of the first `runtime.actors` actors, which may be killed and replaced in it."""
        from fedbench.engine.on_ray.actors import silent

        if self._all is None:
            self._all = make_actors()
        count = runtime.actors
        assert count is not None
        assert count <= MOST_ACTORS, "there are not so many"
        actors = copy.copy(self._all)
        actors.actor_count = actors._most_actors = count
        actors.client_actors = self._all.client_actors[:count]
        actors._runtime = self._all._runtime.model_copy(update={"server": runtime.server})
        actors.keep_on_release = True
        for index in silent(actors.client_actors, ANSWER_TIMEOUT):  # the test before may have killed it
            actors.replace_client(index)
        if silent(list(actors._servers.values()), ANSWER_TIMEOUT):
            actors.end_servers()
        try:
            yield actors
        finally:
            if actors._group is self._all._group:
                self._all.client_actors[:count] = actors.client_actors
            else:  # a test had all of them placed anew
                actors.close()
                self._all = None

    def close(self) -> None:
        """End all actors."""
        if self._all is not None:
            self._all.close()
        self._all = None


def make_actors() -> "ActorCluster":
    """As many actors as any run may ask for, which hold no CPUs."""
    from fedbench.engine.on_ray.actors import ActorCluster

    class WithoutCpus(ActorCluster):
        def _resources_per_actor(self) -> dict[str, float]:
            return dict(self._runtime.resources)

    each = RuntimeSection(actors=MOST_ACTORS, resources={RESOURCE: 1 / MOST_ACTORS})
    return WithoutCpus(each.model_copy(update={"cpus_per_client": 0.0}), cohort=MOST_ACTORS)


class Lender:
    """Gives a run the actors that it is to have, as `WarmActors` does."""

    def __init__(self, actors: "ActorCluster") -> None:
        self._actors = actors

    def lend(self, runtime: RuntimeSection, cohort: int) -> "ActorCluster":
        return self._actors
