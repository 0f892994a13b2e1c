"""What checkpoints cost, of the time of a run: those that are written by time, and one after every round.

Prints shares, judges nothing:

    pytest tests/benchmarks/test_checkpoint_cost.py -m benchmark -s
"""

import time
from pathlib import Path

import pytest

from fedbench.config.experiment import ExperimentConfig
from fedbench.experiment.checkpointing import Saving
from fedbench.experiment.run import run

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

STATES = {
    "fedavg": ("algorithm=fedavg",),
    "scaffold with fedadam": ("algorithm=scaffold", "server=fedadam"),
    "fedmr": ("algorithm=fedmr",),
}
ROUNDS_BY_TIME, ROUNDS_EACH = 30, 8


def config(*overrides: str) -> ExperimentConfig:
    return ExperimentConfig.load(
        None,
        [
            *("schedule=full", "data.dataset=random_images:RandomImages", "data.dataset.rows=4000"),
            *("data.clients=20", "data.samples_per_client=200", "model=resnet8", "local.batch_size=32"),
            *("local.epochs=1", "evaluation.every=1000", "tracking.enabled=false", "runtime.actors=2"),
            *overrides,
        ],
    )


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("state", STATES)
def test_checkpoints_against_the_run(
    state: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spent: list[float] = []
    original = Saving.save

    def timed(self: Saving, *arguments: object) -> None:
        began = time.perf_counter()
        original(self, *arguments)  # type: ignore[arg-type]
        spent.append(time.perf_counter() - began)

    monkeypatch.setattr(Saving, "save", timed)
    lines = []
    for how, rounds, options in (
        ("by time", ROUNDS_BY_TIME, ()),
        ("after every round", ROUNDS_EACH, ("runtime.checkpoint_every=1",)),
    ):
        spent.clear()
        result = run(config(*STATES[state], f"rounds={rounds}", *options))
        whole = sum(result.history.column("wall_seconds").to_pylist()) + sum(spent)
        share = sum(spent) / whole
        each = f", {1e3 * sum(spent) / len(spent):.0f} ms each" if spent else ""
        lines.append(f"  {how}: {len(spent)} in {whole:.0f} s{each}, {share:.2%} of the time")
    newest = sorted((result.directory / "checkpoints").glob("round-*"))[-1]
    size = sum(path.stat().st_size for path in newest.iterdir()) / 1e6
    with capsys.disabled():
        print(f"\ncheckpoints of {state}, 20 clients of 200 images, resnet8, {size:.1f} MB:", *lines, sep="\n")
