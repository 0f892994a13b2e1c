"""Checkpoints: a run that was broken off goes on to the same model and the same records, for every method."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from broken_runs import BreakAfter, Broken, CopyAfter, load, tables
from own_method import OwnMethod

from fedbench import resume
from fedbench.errors import ConfigError
from fedbench.experiment.run import run
from fedbench.records.schema import ClientRecord, RoundRecord

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("run_folder")]


METHODS = {
    "fedavg, partial": ("schedule=sequential", "schedule.warmup_rounds=1", "schedule.cycles=2"),
    "importance": ("schedule=importance", "schedule.warmup_rounds=1", "schedule.rounds_per_group=1"),
    "own statistics": ("local.batchnorm=local", "participation.clients_per_round=3"),
    "moon": ("algorithm=moon",),
    "scaffold with adam": ("algorithm=scaffold", "server=fedadam", "participation.clients_per_round=3"),
    "feddyn": ("algorithm=feddyn",),
    "fedavgm": ("algorithm=fedavgm",),
    "fedmr": ("algorithm=fedmr", "participation.clients_per_round=4"),
    "topk": ("update.compression=topk", "update.compression.fraction=0.1"),
    "ormo": ("algorithm=ormo", "schedule=sequential", "schedule.warmup_rounds=1", "schedule.cycles=2"),
    "shifted momentum": ("algorithm=shifted-momentum",),
    "smega2": ("algorithm=smega2", "delays.slow_fraction=0.2"),
    "dana-zero, own statistics": ("algorithm=dana-zero", "local.batchnorm=local"),
    "ordered adam": ("algorithm=ordered-adam",),
    "fedasync": ("algorithm=fedasync", "local.steps=2", "delays.concurrency=3", "delays.drop_rate=0.2"),
    "fedbuff, topk": ("algorithm=fedbuff", "local.steps=2", "algorithm.buffer_size=4", "update.compression=topk"),
    "fadas": ("algorithm=fadas", "local.steps=2", "algorithm.buffer_size=4"),
    "ca2fl, partial": (
        "algorithm=ca2fl",
        "local.steps=2",
        "algorithm.buffer_size=4",
        "delays.concurrency=3",
        "schedule=per-client",
    ),
    "lock-step": ("algorithm=ssgdm", "delays.arrivals_per_round=4"),
    "by seconds": ("algorithm=ormo", "delays.seconds_per_round=1.5"),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_broken_run_goes_on_to_the_same_model_and_records(method: str) -> None:
    whole = run(load(*METHODS[method], "output.directory=whole"), [CopyAfter(3, "broken")])
    resumed = resume("broken")
    assert resumed.summary["model_sha256"] == whole.summary["model_sha256"]
    assert tables(resumed.directory) == tables(whole.directory)
    changed = {key for key in whole.summary if resumed.summary[key] != whole.summary[key]}
    assert changed <= {"wall_seconds", "peak_actor_bytes"}


def broken_run(after: int = 4, *overrides: str) -> Path:
    with pytest.raises(Broken):
        run(load("rounds=6", *overrides, "output.directory=broken"), [BreakAfter(after)])
    return Path("broken")


def checkpoints(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").glob("round-*"))


def test_the_last_two_checkpoints_are_kept_and_nothing_is_pickled() -> None:
    directory = broken_run(5, "rounds=9")
    assert checkpoints(directory) == ["round-00000002", "round-00000004"]
    kinds = {path.suffix for path in (directory / "checkpoints").rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors", ".parquet"}
    assert not list((directory / "checkpoints").glob(".*"))


@pytest.mark.parametrize("harm", ["cut", "foreign", "missing"])
def test_a_torn_or_foreign_checkpoint_is_refused_and_the_one_before_it_used(harm: str) -> None:
    whole = run(load("rounds=6", "output.directory=whole"))
    last = broken_run() / "checkpoints" / "round-00000004"
    if harm == "cut":
        arrays = last / "arrays.safetensors"
        arrays.write_bytes(arrays.read_bytes()[:-8])
    elif harm == "missing":
        (last / "state.json").unlink()
    else:
        manifest = json.loads((last / "manifest.json").read_text())
        (last / "manifest.json").write_text(json.dumps(manifest | {"config_hash": "0123456789abcdef"}))
    resumed = resume("broken")
    assert resumed.summary["model_sha256"] == whole.summary["model_sha256"]
    (warning,) = (text for text in resumed.warnings if "refused a checkpoint" in text)
    assert "round-00000004" in warning
    assert ("is torn" in warning) == (harm != "foreign")


def test_without_any_checkpoint_a_run_begins_again() -> None:
    whole = run(load("rounds=3", "output.directory=whole"))
    with pytest.raises(Broken):
        run(load("rounds=3", "output.directory=broken"), [BreakAfter(0)])
    assert not checkpoints(Path("broken"))
    assert resume("broken").summary["model_sha256"] == whole.summary["model_sha256"]


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.numpy

    save, failures = safetensors.numpy.save_file, [OSError(28, "No space left on device")]

    def full_disk(arrays: Any, path: Any, **options: Any) -> None:
        if "checkpoints" in str(path) and failures:
            raise failures.pop()
        save(arrays, path, **options)

    monkeypatch.setattr(safetensors.numpy, "save_file", full_disk)
    directory = broken_run(3)
    assert checkpoints(directory) == ["round-00000003"], "tried again after the next round"
    assert not list((directory / "checkpoints").glob(".*"))
    assert resume("broken").summary["status"] == "finished"


def test_a_finished_run_a_run_in_progress_and_another_run_are_refused() -> None:
    run(load("rounds=1", "output.directory=whole"))
    with pytest.raises(ConfigError, match="is finished; nothing is left to do"):
        resume("whole")

    class ResumeMeanwhile(BreakAfter):
        def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
            with pytest.raises(ConfigError, match="another process is at work on this run"):
                resume("busy")

    run(load("rounds=1", "output.directory=busy"), [ResumeMeanwhile(0)])
    broken_run()
    with pytest.raises(ConfigError, match=r"schedule=full: a resumed run is what it was; only runtime"):
        resume("broken", ["schedule=full"])


def test_an_interrupted_run_leaves_a_checkpoint_whatever_the_interval() -> None:
    import signal

    class Interrupt(BreakAfter):
        def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
            if record.round == self._round:
                os.kill(os.getpid(), signal.SIGINT)

    whole = run(load("output.directory=whole"))
    stopped = run(load("output.directory=broken", "runtime.checkpoint_every=100"), [Interrupt(1)])
    assert (stopped.summary["status"], stopped.summary["rounds"]) == ("interrupted", 2)
    assert checkpoints(stopped.directory) == ["round-00000002"]
    resumed = resume("broken")
    assert resumed.summary["model_sha256"] == whole.summary["model_sha256"]
    assert tables(resumed.directory) == tables(whole.directory)


def test_a_run_does_not_go_on_with_other_code_of_ones_own(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = OwnMethod(run_folder, monkeypatch)
    own = "algorithm=own_method:Step"
    with pytest.raises(Broken):
        run(load(own, "output.directory=run"), [BreakAfter(2)])
    before = {path.name: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    method.set_factor(0.5)
    with pytest.raises(ConfigError, match=r"its code is no longer what the run began with \(own_method:Step was "):
        resume("run")
    assert {path.name: path.read_bytes() for path in Path("run").iterdir() if path.is_file()} == before
    method.set_factor(1.0)
    whole = run(load(own, "output.directory=whole"))
    assert resume("run").summary["model_sha256"] == whole.summary["model_sha256"]
