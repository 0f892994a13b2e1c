"""Places on the cluster at which trials run: how many there are, and the processes that hold them."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedbench.components.named_code import Shipment
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.on_ray.actors import node_resources
from fedbench.engine.on_ray.connection import disconnect, join
from fedbench.engine.on_ray.liveness import ResultWaiter, ray_answers
from fedbench.engine.on_ray.placement import count_actors, fitting_on_node, gpu_share
from fedbench.errors import ConfigError, RunError
from fedbench.studies.file import StudyFile
from fedbench.studies.trial_runner import Assignment, Surroundings, TrialOutcome, TrialRunner

CLOSE_TIMEOUT = 20.0
"""Seconds that runners are given to free their places."""

ANSWER_SECONDS = 2.0
"""Seconds that a runner is given to answer how far its trial is."""

MOST_DEATHS = 3
"""So many runners in a row may die before they have run anything."""


class TrialActor(TrialRunner):
    """A runner of trials in a process of its own."""


class TrialSlot:
    """One runner, and what it is doing.

    Attributes:
        number: the number of its trial; None while it starts or waits for one.
        ready: it has its places on the cluster.
    """

    def __init__(self, actor: Any, started: Any) -> None:
        self.actor = actor
        self.awaited: Any = started
        self.number: int | None = None
        self.ready = False


class RaySlots:
    """Runners of trials, one per place on the cluster; made anew when they die (a `TrialSlots`)."""

    def __init__(self, study: StudyFile, storage: str, config: ExperimentConfig, most: int | None) -> None:
        """Join Ray, or start it, and start the runners.

        Args:
            config: the configuration of a trial, which says what resources it needs.
            most: the number of trials that there can be at all; None: no bound.

        Raises:
            ConfigError: not even one trial has room, or not as many as asked for.
        """
        self._owns_ray = join(config.runtime.address)
        self._study = study
        self._storage = storage
        self._config = config
        self._deaths = 0
        self._here = ray.get_runtime_context().get_node_id()
        self._waiter = ResultWaiter()
        try:
            self.count = count_slots(study, config, most, self._here)
            self._slots = [self._start() for _ in range(self.count)]
        except BaseException:
            if self._owns_ray:
                disconnect()
            raise

    def _start(self) -> TrialSlot:
        inline = self._config.runtime.executor == "inline"
        # Runners stay on this machine, where the study's files are; the client actors go where there is room.
        actor: Any = (
            ray.remote(TrialActor)
            .options(
                num_cpus=self._config.runtime.torch_threads if inline else 0,
                max_concurrency=2,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._here, soft=False),
            )
            .remote(Shipment(self._study), self._storage, Surroundings.here())
        )
        return TrialSlot(actor, actor.warm_up.remote(self._config))

    def idle(self) -> Iterator[TrialSlot]:
        """The slots that could run a trial now."""
        return (slot for slot in self._slots if slot.ready and slot.number is None)

    def running(self) -> int:
        """The number of trials that are being run."""
        return sum(slot.number is not None for slot in self._slots)

    def begin(self, slot: TrialSlot, assignment: Assignment) -> None:
        """Start a trial in a slot."""
        slot.number = assignment.number
        slot.awaited = slot.actor.run.remote(assignment)

    def where(self) -> dict[int, str]:
        """How far each running trial is, by number, of those whose process says so at once."""
        asked = {slot.actor.where.remote(): slot.number for slot in self._slots if slot.number is not None}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
        progress = {}
        for reference in answered:
            with suppress(RayError):
                progress[asked[reference]] = ray.get(reference)
        return dict(sorted(progress.items()))

    def stop(self) -> None:
        """Ask all running trials to end at their round."""
        for slot in self._slots:
            slot.actor.stop.remote()

    def wait(self, seconds: float) -> Iterator[tuple[int, TrialOutcome]]:
        """Trials that have ended, waiting so long for the first; runners that died are made anew meanwhile.

        Raises:
            FedbenchError: runners cannot be started, or Ray does not answer any more.
        """
        self._waiter.check()
        awaited = {slot.awaited: slot for slot in self._slots if slot.awaited is not None}
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=seconds) if awaited else ([], [])
        for reference in ready:
            slot = awaited[reference]
            slot.awaited, number = None, slot.number
            try:
                result = ray.get(reference)
            except RayError as error:
                outcome = self._replace(slot, error)
                if number is not None:
                    yield number, outcome
                continue
            if number is None:
                slot.ready = bool(result)
                if not slot.ready:  # others use the cluster: ask again
                    slot.awaited = slot.actor.warm_up.remote(self._config)
                continue
            self._deaths, slot.number = 0, None
            yield number, result

    def _replace(self, slot: TrialSlot, error: RayError) -> TrialOutcome:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ConfigError):
            raise cause
        self._deaths += 1
        reason = str(error).strip().splitlines()[-1 if not isinstance(error, RayActorError) else 0]
        if slot.number is None and self._deaths >= MOST_DEATHS:
            raise RunError(f"the processes that run trials do not start: {reason}") from error
        self._waiter.wait_for_head()
        ray.kill(slot.actor)
        self._slots[self._slots.index(slot)] = self._start()
        return TrialOutcome("failed", {}, 0.0, (), (), f"its process died: {reason}")

    def close(self) -> None:
        """End the runners; may be called twice."""
        if ray_answers():
            closing = [slot.actor.close.remote() for slot in self._slots]
            with suppress(RayError, GetTimeoutError):
                ray.get(closing, timeout=CLOSE_TIMEOUT)
            for slot in self._slots:
                ray.kill(slot.actor)
        self._slots = []
        if self._owns_ray:
            disconnect()


def count_slots(study: StudyFile, config: ExperimentConfig, most: int | None, here: str) -> int:
    """Count the trials that run at a time: as asked for, or as many as there is room for.

    Args:
        config: the configuration of a trial.
        most: the number of trials that there can be at all; None: no bound.
        here: the node on which runners stay.

    Raises:
        ConfigError: there is no room for so many.
    """
    runtime = config.runtime
    if runtime.executor == "inline":
        listed: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        resources = next(node["Resources"] for node in listed if node["NodeID"] == here)
        room, each = int(resources.get("CPU", 0.0)) // runtime.torch_threads, 1
    else:
        nodes = node_resources()
        present = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in set().union(*nodes)}
        gpus_each = gpu_share(runtime, int(present.get("GPU", 0)), config.slots())
        takes = {"CPU": runtime.cpus_per_client} | ({"GPU": gpus_each} if gpus_each else {}) | runtime.resources
        room = sum(fitting_on_node(node, takes) for node in nodes)
        each = count_actors(
            cohort=config.slots(),
            actors=runtime.actors,
            clients_per_actor=runtime.clients_per_actor,
            each=takes,
            present=present,
            room=room,
        )
    fitting = room // each
    if study.concurrency == "auto":
        return max(1, min(fitting, most or fitting))
    if study.concurrency > max(1, fitting):
        raise ConfigError(
            f"concurrency={study.concurrency}: {study.concurrency} trials x {each} actors have no room, {fitting} "
            "trials do; set it to that or auto, or give each trial less"
        )
    return min(study.concurrency, most or study.concurrency)
