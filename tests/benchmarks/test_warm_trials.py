"""What it saves that the actors of a trial stay for the next one."""

import time
from pathlib import Path

import pytest
import small

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.on_ray.warm_actors import WarmActors
from fedbench.experiment.run import run

pytestmark = pytest.mark.benchmark

TRIALS = 4


def trial(seed: int) -> ExperimentConfig:
    return small.config("rounds=3", "data.samples_per_client=100", "model.width=4", "runtime.actors=1", f"seed={seed}")


def seconds(warm: WarmActors | None, seeds: range) -> float:
    began = time.perf_counter()
    for seed in seeds:
        run(trial(seed), should_stop=lambda: False, warm=warm)
    return (time.perf_counter() - began) / len(seeds)


@pytest.mark.usefixtures("local_ray")
def test_a_small_trial_with_warm_and_with_fresh_actors(run_folder: Path) -> None:
    seconds(None, range(1))  # what is loaded once per process
    fresh = seconds(None, range(1, 1 + TRIALS))
    warm = WarmActors()
    seconds(warm, range(1))
    kept = seconds(warm, range(1, 1 + TRIALS))
    warm.close()
    print(f"\ntrial of 3 small rounds: fresh actors {fresh:.2f} s, warm {kept:.2f} s, warm/fresh {kept / fresh:.2f}")
