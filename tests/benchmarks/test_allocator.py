"""What keeping freed memory in the process is worth: the same rounds with and without it, in fresh processes.

Prints a ratio; judges nothing.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

SCRIPT = """
import json, sys, time
from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.on_ray.allocator import keep_freed_memory
from fedbench.experiment.run import prepared
if sys.argv[1] == "keep":
    assert keep_freed_memory()
config = ExperimentConfig.load(None, [
    "rounds=9", "data.dataset=random_images:RandomImages", "data.dataset.rows=1000", "data.clients=2",
    "model=plain_networks:PooledCnn", "local.epochs=1", "runtime.executor=inline"])
times = []
with prepared(config) as (problem, executor):
    for index in range(problem.rounds):
        began = time.perf_counter()
        executor.train(executor.plan(index))
        times.append(time.perf_counter() - began)
        executor.finish()
print(json.dumps(times[2:]))
"""


def median_seconds(mode: str) -> float:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return statistics.median(json.loads(done.stdout))


def test_kept_memory_against_returned_memory(capsys: pytest.CaptureFixture[str]) -> None:
    ratios = sorted(median_seconds("keep") / median_seconds("return") for _ in range(3))
    low, middle, high = ratios
    with capsys.disabled():
        print(f"\na round with freed memory kept, against one without: {middle:.2f} ({low:.2f} to {high:.2f})")
