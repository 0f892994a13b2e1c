"""Actors that outlive an experiment, for the next experiment with the same needs; PyTorch is already loaded in them.

Starting actors takes longer than a small experiment. `ClientHost.prepare` and `ReusableServer.reset` set them up again
for each experiment, so that its result is that of fresh actors. Only the `peak_actor_bytes` of actors on CPUs counts
from the start of the process.
"""

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from fedbench.config.runtime import RuntimeSection
from fedbench.engine.on_ray.actors import ActorCluster, check_usable, start_timeout

NOT_ABOUT_ACTORS = frozenset(
    {
        "address",
        "executor",
        "combine",
        "slots",
        "torch_threads",
        "max_failed_clients",
        "round_timeout",
        "max_retries",
        "checkpoint_every",
        "wait_for_nodes",
    }
)
"""Keys of the runtime section that do not matter for whether actors can be taken over."""


class WarmActors:
    """Keeps the actors of the last experiment of this process, and lends them to the next one."""

    def __init__(self) -> None:
        self._cluster: ActorCluster | None = None
        self._wanted: dict[str, Any] = {}

    def lend(self, runtime: RuntimeSection, cohort: int) -> ActorCluster:
        """Actors for an experiment: those that are kept, where they suit it and are alive, else new ones.

        Args:
            runtime: the actors that the experiment asks for.
            cohort: participants of a round.

        Raises:
            FedbenchError: new actors cannot be placed, as for `ActorCluster`.
        """
        wanted = runtime.model_dump(exclude=set(NOT_ABOUT_ACTORS))
        if runtime.actors is None:
            wanted["cohort"] = cohort
        if self._cluster is None or wanted != self._wanted or not self._alive(self._cluster):
            self.close()
            self._cluster, self._wanted = ActorCluster(runtime, cohort), wanted
            self._cluster.keep_on_release = True
        return self._cluster

    @staticmethod
    def _alive(cluster: ActorCluster) -> bool:
        try:
            ray.get(
                [actor.__ray_call__.remote(check_usable) for actor in cluster.all_actors()],
                timeout=start_timeout(cluster.actor_count),
            )
        except (RayError, GetTimeoutError):
            return False
        return True

    def close(self) -> None:
        """End the actors that are kept; may be called twice."""
        if self._cluster is not None:
            self._cluster.close()
        self._cluster = None
