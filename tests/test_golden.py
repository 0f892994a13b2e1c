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

import pytest
import torch

RECORDED = Path(__file__).parent / "golden" / "hashes.json"
RECORD = "python tests/test_golden.py --record"

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
}


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


def model_of(name: str) -> str:
    """The `model_sha256` of one experiment, run in the working directory."""
    from small import config

    from fedbench import run

    return str(run(config("runtime.executor=inline", *GOLDEN[name])).summary["model_sha256"])


@pytest.mark.parametrize("name", GOLDEN)
def test_the_model_is_the_recorded_one(name: str, run_folder: Path) -> None:
    key = platform_key()
    known = recorded().get(key)
    if known is None:
        pytest.skip(f"nothing recorded for {key}; {RECORD}")
    assert model_of(name) == known.get(name), (
        f"{name}: another model than recorded for {key}. If results were meant to change, record them: {RECORD}"
    )


def test_hashes_are_recorded_for_every_experiment_and_no_other() -> None:
    assert all(set(models) == set(GOLDEN) for models in recorded().values())


def record() -> None:
    """Run every experiment and keep its hash, beside those of other platforms."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        models = {name: model_of(name) for name in GOLDEN}
        os.chdir("/")
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps(recorded() | {platform_key(): models}, indent=2, sort_keys=True) + "\n")
    print(f"{RECORDED}: recorded for {platform_key()}")


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"]:
        sys.exit(f"usage: {RECORD}")
    RECORDED = RECORDED.resolve()
    sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))
    record()
