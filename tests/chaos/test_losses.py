"""Real processes killed in the middle of runs: the model is that of the undisturbed run."""

import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from small import process_of
from warm_pools import WarmPools

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.interfaces import Executor
from fedbench.errors import LostActor
from fedbench.experiment.loop import ExperimentLoop
from fedbench.experiment.result import Result
from fedbench.experiment.run import run
from fedbench.experiment.setup import Problem
from fedbench.randomness import generator
from fedbench.records.observers import RunDescription
from fedbench.records.schema import ClientRecord, RoundRecord

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures"),
]

ROUNDS = 6
SMALL = (
    "data.dataset=digits", "data.clients=6", "data.samples_per_client=20", "model.width=4", "local.batch_size=10",
    f"rounds={ROUNDS}", "tracking.enabled=false", "runtime.checkpoint_every=2",
)  # fmt: skip
RUNS = {
    "fedavg, partial": ("schedule=sequential", "schedule.warmup_rounds=2", "schedule.cycles=2"),
    "scaffold, fedadam": ("algorithm=scaffold", "server=fedadam"),
    "fedmr": ("algorithm=fedmr",),
    "streaming-diloco": ("algorithm=streaming-diloco",),
    "fedbuff": ("algorithm=fedbuff", "algorithm.buffer_size=4", "local.steps=2"),
    "ormo": ("algorithm=ormo", "delays.concurrency=4", "delays.arrivals_per_round=8"),
}
ACTORS = ("client", "server")
LIKE_ANOTHER = {("ormo", "client"), ("streaming-diloco", "server")}
"""A lost task is done again in the same way for every asynchronous method, a lost server for every rule in rounds."""

LOSSES = [(method, which) for method in RUNS for which in ACTORS if (method, which) not in LIKE_ANOTHER]


class Killer:
    """Kills an actor's process after each of some rounds (an observer)."""

    def __init__(self, executor: Executor, which: str, rounds: Sequence[int]) -> None:
        self._executor: Any = executor
        self._which = which
        self._rounds = rounds
        self.killed: list[int] = []

    def run_started(self, run: RunDescription) -> None:
        pass

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        import ray

        if record.round in self._rounds:
            actor = self._executor._server if self._which == "server" else self._executor._cluster.client_actors[1]
            self.killed.append(ray.get(actor.__ray_call__.remote(process_of)))
            if record.round == ROUNDS - 1:
                os.kill(self.killed[-1], signal.SIGKILL)
            else:  # a moment into the next round, or into what follows this one
                threading.Timer(0.05, os.kill, (self.killed[-1], signal.SIGKILL)).start()

    def run_finished(self, summary: dict[str, Any]) -> None:
        pass


def with_deaths(pools: WarmPools, which: str, rounds: Sequence[int], *overrides: str) -> tuple[Result, Killer]:
    config = ExperimentConfig.load(None, [*SMALL, "runtime.actors=2", *overrides])

    def recorded(problem: Problem, executor: Executor) -> tuple[Result, Killer]:
        killer = Killer(executor, which, rounds)
        return ExperimentLoop.create(problem, [killer]).record(executor, lambda: False), killer

    return pools.prepared(config, recorded)


@pytest.mark.parametrize(("method", "which"), LOSSES, ids=map(" - ".join, LOSSES))
def test_an_actor_killed_at_any_point_changes_nothing(method: str, which: str, warm_pools: WarmPools) -> None:
    """At any point is also after the last round, when its model and its memory are still to be asked for."""
    undisturbed = run(ExperimentConfig.load(None, [*SMALL, *RUNS[method], "runtime.executor=inline"]))
    after_the_last_too = method == "fedmr"
    points = [int(generator(0, f"{method} {which}").integers(2 if after_the_last_too else 5))]
    if after_the_last_too:
        points.append(ROUNDS - 1)
    result, killer = with_deaths(warm_pools, which, points, *RUNS[method])
    assert len(set(killer.killed)) == len(points)
    assert result.summary["status"] == "finished"
    assert result.summary["peak_actor_bytes"] > 0
    for key in ("model_sha256", "uplink_bytes", "downlink_bytes", "client_flops"):
        assert result.summary[key] == undisturbed.summary[key]
    assert result.history.column("round").to_pylist() == list(range(ROUNDS))
    accuracy = undisturbed.history.column("test_accuracy")
    assert result.history.column("test_accuracy").equals(accuracy)


def test_a_loss_without_retries_left_ends_the_run(warm_pools: WarmPools) -> None:
    with pytest.raises(LostActor, match=r"runtime\.max_retries=1"):
        with_deaths(warm_pools, "client", [1, 3], *RUNS["scaffold, fedadam"], "runtime.max_retries=1")
