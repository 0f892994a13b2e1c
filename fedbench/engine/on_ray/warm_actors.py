"""Actors that outlive an experiment: the next one that wants the same takes them over, PyTorch loaded.

Starting actors takes longer than a small experiment. What an experiment finds in them is set up anew by
`ClientHost.prepare` and `Renewable.renew`, so that its result is that of fresh actors. Only `peak_actor_bytes` counts
from the process' start.
"""

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from fedbench.config.runtime import RuntimeSection
from fedbench.engine.on_ray.actors import Cluster, start_timeout

ELSEWHERE = frozenset(
    {
        "address",
        "executor",
        "combine",
        "torch_threads",
        "max_failed_clients",
        "round_timeout",
        "max_retries",
        "checkpoint_every",
        "wait_for_nodes",
    }
)
"""Of the runtime section, what says nothing about the actors themselves."""


class WarmActors:
    """Holds the actors of one experiment at a time, within one process, and lends them to the next."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._wanted: dict[str, Any] = {}

    def lend(self, runtime: RuntimeSection, cohort: int) -> Cluster:
        """The actors that an experiment asks for: those that are here, if they are the same and alive, else new ones.

        Args:
            cohort: participants of a round.

        Raises:
            FedbenchError: as `Cluster` does.
        """
        wanted = runtime.model_dump(exclude=set(ELSEWHERE))
        if runtime.actors is None:
            wanted["cohort"] = cohort
        if self._cluster is None or wanted != self._wanted or not self._alive(self._cluster):
            self.close()
            self._cluster, self._wanted = Cluster(runtime, cohort), wanted
            self._cluster.kept = True
        return self._cluster

    @staticmethod
    def _alive(cluster: Cluster) -> bool:
        try:
            ray.get(
                [actor.__ray_ready__.remote() for actor in cluster.everyone()], timeout=start_timeout(cluster.actors)
            )
        except (RayError, GetTimeoutError):
            return False
        return True

    def close(self) -> None:
        """End the actors, e.g. after an experiment that failed half-way; may be called twice."""
        if self._cluster is not None:
            self._cluster.close()
        self._cluster = None
