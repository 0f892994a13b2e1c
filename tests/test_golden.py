"""The models of a few small experiments, to the bit, as they were recorded on this kind of machine.

A change that should not alter results is shown not to. Record anew, after a change that should, or on another
machine: python tests/test_golden.py --record
"""

import hashlib
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))  # for `--record`, without pytest

from small import config

from fedbench import ExperimentConfig, resume, run

RECORDED = Path(__file__).resolve().parent / "golden" / "hashes.json"
COSTS = Path(__file__).resolve().parent / "golden" / "costs.json"
RECORD = "python tests/test_golden.py --record"

COUNTED = ("uplink_bytes", "downlink_bytes", "client_flops", "paper_comm_gb", "paper_comp_tflop")
"""Entries of the summary that depend on no processor, and are compared on every machine."""

SGD = ("local.optimizer=sgd", "local.optimizer.lr=0.05")
SKEWED = ("data.partition=dirichlet", "data.partition.alpha=0.5")
SAMPLED = "participation.clients_per_round=4"
ARRIVALS = (
    "data.clients=4",
    "data.samples_per_client=40",
    "model=cnn-bn",
    "model.width=4",
    "local.epochs=null",
    "local.batch_size=16",
    *SGD,
    "delays.slow_fraction=0.25",
)
DELTAS = (*ARRIVALS, "local.steps=2")
FULL = "schedule=full"
PARTIAL = ("schedule=sequential", "schedule.warmup_rounds=1", "schedule.rounds_per_group=1")

GOLDEN: dict[str, tuple[str, ...]] = {
    "full updates with SGD": ("schedule.warmup_rounds=4", "local.optimizer=sgd", "local.optimizer.lr=0.1"),
    "partial updates with Adam": ("rounds=6", "local.optimizer.lr=0.002"),
    "partial updates with local statistics and skewed labels": (
        "rounds=5",
        "data.partition=dirichlet",
        "data.partition.alpha=0.5",
        "local.batchnorm=local",
    ),
    "sampled cohorts in random order": ("rounds=6", "schedule=random", "participation.clients_per_round=3", "seed=3"),
    "SCAFFOLD": ("algorithm=scaffold", SAMPLED, *SGD, *SKEWED),
    "MOON": ("algorithm=moon", *SGD, *SKEWED),
    "FedMR": ("algorithm=fedmr", "algorithm.first_stage_rounds=1", SAMPLED, *SGD, *SKEWED),
    "FedPart with Adam and local statistics": ("rounds=auto", "schedule.cycles=1", "local.batchnorm=local", *SKEWED),
    "FedAdam": ("algorithm=fedadam", *SGD, *SKEWED),
    "top-k compression": ("update.compression=topk", "update.compression.fraction=0.1", *SGD),
    "int8 compression": ("update.compression=int8", *SGD),
    "another group for each client": ("schedule=per-client", SAMPLED, *SGD),
    "OrMo on gradients": ("algorithm=ormo", FULL, *ARRIVALS),
    "FedBuff on deltas": ("algorithm=fedbuff", "algorithm.buffer_size=2", FULL, *DELTAS),
    "FedPart and OrMo": ("algorithm=ormo", *PARTIAL, *ARRIVALS),
}
"""The overrides of `small.config` for each experiment, run in one process."""

RESUMED = "SCAFFOLD"
"""The experiment that is also stopped after its first round and resumed."""


def platform_key() -> str:
    """What the bits of a result depend on besides fedbench: PyTorch, and the processor that it finds."""
    wanted = ("flags", "Features", "model name")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [f"model name: {platform.processor()}"]
    stated = {line.split(":")[0].strip(): " ".join(sorted(line.partition(":")[2].split())) for line in lines}
    processor = json.dumps([torch.backends.cpu.get_cpu_capability(), {name: stated.get(name) for name in wanted}])
    return f"torch {torch.__version__}, processor {hashlib.sha256(processor.encode()).hexdigest()[:12]}"


def recorded() -> dict[str, dict[str, str]]:
    return json.loads(RECORDED.read_text()) if RECORDED.exists() else {}


def experiment(name: str) -> ExperimentConfig:
    """The configuration of one experiment."""
    return config("data.samples_per_client=null", "runtime.executor=inline", *GOLDEN[name])


def costs_of(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in COUNTED}


pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")


@pytest.mark.parametrize("name", GOLDEN)
def test_the_model_and_its_costs_are_the_recorded_ones(name: str) -> None:
    summary = run(experiment(name)).summary
    costs, recorded_costs = costs_of(summary), json.loads(COSTS.read_text())[name]
    undefined = {key for key, value in recorded_costs.items() if value is None}
    assert {key for key, value in costs.items() if value is None} == undefined
    for key in recorded_costs.keys() - undefined:
        assert costs[key] == pytest.approx(recorded_costs[key], rel=1e-12), key
    check_hash(name, summary)


def test_a_resumed_run_ends_with_the_recorded_model() -> None:
    stopped = run(experiment(RESUMED), should_stop=lambda: True)
    assert (stopped.summary["status"], stopped.summary["rounds"]) == ("interrupted", 1)
    check_hash(RESUMED, resume(stopped.directory).summary)


def check_hash(name: str, summary: dict[str, Any]) -> None:
    key = platform_key()
    expected = recorded().get(key, {}).get(name)
    if expected is None:
        pytest.skip(f"no hash of {name!r} is recorded for {key}; {RECORD}")
    assert summary["model_sha256"] == expected, (
        f"{name}: another model than recorded for {key}. If results were meant to change, record them: {RECORD}"
    )


def test_no_hash_is_recorded_for_an_experiment_that_is_gone() -> None:
    assert all(set(models) <= set(GOLDEN) for models in recorded().values())
    assert set(json.loads(COSTS.read_text())) == set(GOLDEN)


def record() -> None:
    """Run every experiment and keep its costs, and its hash beside those of other platforms."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        summaries = {name: run(experiment(name)).summary for name in GOLDEN}
        os.chdir("/")
    models = {name: summary["model_sha256"] for name, summary in summaries.items()}
    costs = {name: costs_of(summary) for name, summary in summaries.items()}
    write_json(RECORDED, recorded() | {platform_key(): models})
    write_json(COSTS, costs)
    print(f"{RECORDED}: recorded for {platform_key()}")


def write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"]:
        sys.exit(f"usage: {RECORD}")
    record()
