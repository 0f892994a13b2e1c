"""Real processes killed in the middle of runs: the model is that of the undisturbed run."""

import os
import signal
import threading
from collections.abc import Mapping, Sequence
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
SCAFFOLD = ("algorithm=scaffold", "server=fedadam", "schedule=sequential", "schedule.warmup_rounds=2")
LAST = ROUNDS - 1
LOSSES: dict[str, tuple[Sequence[str], dict[str, Sequence[int]]]] = {
    "scaffold, fedadam, partial: server, client": (SCAFFOLD, {"server": [2], "client": [LAST]}),
    "streaming-diloco: client": (("algorithm=streaming-diloco",), {"client": [3]}),
    "fedbuff: client": (("algorithm=fedbuff", "algorithm.buffer_size=4", "local.steps=2"), {"client": [2]}),
    "ormo: server": (
        ("algorithm=ormo", "delays.concurrency=4", "delays.arrivals_per_round=8"),
        {"server": [3]},
    ),
    "fedmr: client, server": (("algorithm=fedmr",), {"client": [1], "server": [LAST]}),
}
"""The method, and after which rounds an actor of each kind is killed; after the last one nothing is computed again.
Where a server dies, its run ends those of other methods, too: therefore this order.

A lost task is done again in the same way for every asynchronous method, and a lost actor for every method in rounds:
from a checkpoint, whose state differs between servers, rules and what clients keep.
"""


class Killer:
    """Kills the processes of actors after the rounds that are given for each kind of actor (an observer)."""

    def __init__(self, executor: Executor, deaths: Mapping[str, Sequence[int]]) -> None:
        self._executor: Any = executor
        self._deaths = deaths
        self.killed: list[int] = []

    def run_started(self, run: RunDescription) -> None:
        pass

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        for which, rounds in self._deaths.items():
            if record.round in rounds:
                self._kill(which, at_once=record.round == LAST)

    def _kill(self, which: str, *, at_once: bool) -> None:
        import ray

        actor = self._executor._server.actor if which == "server" else self._executor._cluster.client_actors[1]
        self.killed.append(ray.get(actor.__ray_call__.remote(process_of)))
        if at_once:
            os.kill(self.killed[-1], signal.SIGKILL)
        else:  # a moment into the next round, or into what follows this one
            threading.Timer(0.05, os.kill, (self.killed[-1], signal.SIGKILL)).start()

    def run_finished(self, summary: dict[str, Any]) -> None:
        pass


def with_deaths(pools: WarmPools, deaths: Mapping[str, Sequence[int]], *overrides: str) -> tuple[Result, Killer]:
    place = ["runtime.server=head"] if "server" in deaths else []
    config = ExperimentConfig.load(None, [*SMALL, "runtime.actors=2", *place, *overrides])

    def recorded(problem: Problem, executor: Executor) -> tuple[Result, Killer]:
        killer = Killer(executor, deaths)
        return ExperimentLoop.create(problem, [killer]).record(executor, lambda: False), killer

    return pools.prepared(config, recorded)


def test_a_loss_without_retries_left_ends_the_run(warm_pools: WarmPools) -> None:
    with pytest.raises(LostActor, match=r"runtime\.max_retries=0 is used up"):
        with_deaths(warm_pools, {"client": [1]}, *SCAFFOLD, "runtime.max_retries=0")


@pytest.mark.parametrize("case", LOSSES)
def test_an_actor_killed_at_any_point_changes_nothing(case: str, warm_pools: WarmPools) -> None:
    """At any point is also after the last round, when its model and its memory are still to be asked for."""
    overrides, deaths = LOSSES[case]
    undisturbed = run(ExperimentConfig.load(None, [*SMALL, *overrides, "runtime.executor=inline"]))
    result, killer = with_deaths(warm_pools, deaths, *overrides, "runtime.max_retries=1")
    assert len(set(killer.killed)) == sum(map(len, deaths.values()))
    assert result.summary["status"] == "finished"
    assert result.summary["peak_actor_bytes"] > 0
    for key in ("model_sha256", "uplink_bytes", "downlink_bytes", "client_flops"):
        assert result.summary[key] == undisturbed.summary[key]
    assert result.history.column("round").to_pylist() == list(range(ROUNDS))
    accuracy = undisturbed.history.column("test_accuracy")
    assert result.history.column("test_accuracy").equals(accuracy)
