"""Ray and client actors that outlive a run: the next one cannot tell, and nothing is started twice."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small

import fedbench
from fedbench import ExperimentConfig
from fedbench.api import session as sessions
from fedbench.errors import ClientFailure

QUICK = ("rounds=2", "data.clients=4", "data.samples_per_client=40", "runtime.actors=1")


def tiny(*overrides: str) -> ExperimentConfig:
    return small.config(*QUICK, *overrides)


def digest(config: ExperimentConfig) -> str:
    return str(fedbench.run(config).summary["model_sha256"])


def without_ray(config: ExperimentConfig) -> str:
    return digest(ExperimentConfig.load(config, {"runtime": {"executor": "inline", "actors": None}}))


def processes(config: ExperimentConfig) -> list[int]:
    """The processes of the actors that the open session would lend."""
    import ray

    assert sessions._open is not None
    cluster = sessions._open.actors_for(config).lend(config.runtime, config.slots())
    return ray.get([actor.__ray_call__.remote(small.process_of) for actor in cluster.client_actors])


STEP = """
from fedbench import Algorithm, RuleContext, ServerRule


class Step(Algorithm):
    name: str = "own_step:Step"

    def rule(self) -> ServerRule:
        return Rule()


class Rule(ServerRule):
    def combine(self, previous, update, context: RuleContext):
        return previous + FACTOR * update
"""


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray", "flops_counted_once", "no_figures")
def test_runs_on_kept_actors_give_what_new_actors_give(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(run_folder)
    file = run_folder / "own_step.py"
    file.write_text(STEP.replace("FACTOR", "1.0"))
    model = tiny("model.width=2", "update.compression=int8")
    other = tiny("model=small:TwoLayers", "model.hidden=5", "algorithm=scaffold", "local.optimizer=sgd")
    own = tiny("model.width=2", "algorithm=own_step:Step")
    with fedbench.session():
        first = digest(model)
        actors = processes(model)
        assert digest(other) == without_ray(other)
        assert digest(model) == first == without_ray(model)
        with fedbench.session():  # within another one it is the same
            assert processes(model) == actors
        assert digest(own) == without_ray(own)
        assert processes(model) == actors

        file.write_text(STEP.replace("FACTOR", "0.25"))
        importlib.reload(importlib.import_module("own_step"))
        changed = digest(own)
        assert changed == without_ray(own)
        assert processes(own) != actors

        one_label_each = ("data.partition=shards", "data.partition.shards_per_client=1", "data.clients=10")
        broken = small.config("rounds=2", "algorithm=small:Faulty", "runtime.actors=1", *one_label_each)
        with pytest.raises(ClientFailure):
            digest(broken)
        assert sessions._open is not None
        assert sessions._open._warm is None
    assert sessions._open is None


@pytest.mark.slow
def test_a_session_without_actors_changes_nothing(run_folder: Path) -> None:
    config = ExperimentConfig.load(tiny("model.width=2"), {"runtime": {"executor": "inline", "actors": None}})
    with fedbench.session():
        inside = digest(config)
    assert inside == digest(config)


TWO_RUNS = """
# The first is refused where Ray has started: no node has what it asks for.
import os, signal
import ray
from fedbench import ConfigError, ExperimentConfig, run
from fedbench.records import plots

plots.save_figures = lambda *arguments: None  # drawing takes longer than the runs


def state():
    environment = {name: os.environ.get(name) for name in ("PYTHONBREAKPOINT", "RAY_USAGE_STATS_ENABLED",
                   "RAY_IGNORE_UNHANDLED_ERRORS", "MLFLOW_LOGGING_LEVEL")}
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    return environment, handlers, os.getcwd()

before = state()
config = ExperimentConfig.load("quickstart", {
    "rounds": 1, "data.clients": 2, "data.samples_per_client": 40, "model.width": 2, "local.epochs": 1,
    "schedule": "full", "tracking.enabled": False, "runtime.actors": 1,
})
heads = []
for resources in ({"absent": 1.0}, {}):
    try:
        run(ExperimentConfig.load(config, {"runtime.resources": resources}))
    except ConfigError as error:
        assert "0 present" in str(error) and resources, error
    heads.append(ray.get_runtime_context().gcs_address)
assert heads[0] == heads[1], heads
assert state() == before, [pair for pair in zip(state(), before) if pair[0] != pair[1]]
print(heads[0])
"""


def is_listening(address: str) -> bool:
    import socket

    host, _, port = address.strip().rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_a_process_starts_ray_once_prints_nothing_and_leaves_no_ray_behind(run_folder: Path) -> None:
    environment: dict[str, Any] = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", TWO_RUNS], capture_output=True, text=True, timeout=240, env=environment, cwd=run_folder
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not is_listening(ended.stdout)
