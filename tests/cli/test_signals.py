"""Signals that follow each other: the first ends a run after its round, the next at once, and each end is recorded."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from command_line import start
from mlflow import MlflowClient
from waiting import wait_until

from fedbench.cli.entry import with_notes
from fedbench.experiment.interrupt import ECHO_SECONDS, stop_signal
from fedbench.records.reader import load_run

LONG_ROUNDS = (
    "run", "rounds=100", "local.epochs=null", "local.steps=2", "schedule=full", "model.width=4",
    "data.clients=10", "data.partition=shards", "data.partition.shards_per_client=1",
    "algorithm=small:Slow", "algorithm.seconds=3", "runtime.executor=inline", "runtime.checkpoint_every=1",
    "output.directory=run",
)  # fmt: skip
"""Rounds of 6 s, however fast the machine is: one client sleeps over each of its minibatches."""
HEEDED_SECONDS = 2.0
"""Seconds in which a busy machine hands on a signal; the next one is then not taken for its echo."""


@pytest.mark.slow
def test_a_run_that_is_told_twice_to_end_says_so_everywhere(run_folder: Path, empty_store: Path) -> None:
    """Either signal is heeded as the first and as the second in the next test, within this process."""
    shutil.copy(empty_store, run_folder / "mlflow.db")
    with start(run_folder, *LONG_ROUNDS) as process:
        assert process.stderr is not None
        assert any(line.startswith("round 1/") for line in process.stderr)
        wait_until(lambda: any(run_folder.glob("run/checkpoints/*/manifest.json")), "no checkpoint of the first round")
        time.sleep(HEEDED_SECONDS / 2)  # the second round has begun
        process.send_signal(signal.SIGTERM)
        time.sleep(HEEDED_SECONDS)
        for repeated in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            process.send_signal(repeated)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr.splitlines() == ["interrupted", f"go on with: fedbench resume {run_folder / 'run'}"]
    _, rounds, _, summary = load_run(run_folder / "run")
    assert (rounds.num_rows, summary["status"]) == (1, "interrupted"), "the round that it was in is not waited for"
    client = MlflowClient(f"sqlite:///{run_folder / 'mlflow.db'}")
    (recorded,) = client.search_runs([client.get_experiment_by_name("fedbench").experiment_id])
    assert recorded.info.status == "KILLED"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_sent_twice_at_once_counts_once_and_a_later_one_ends_at_once(first: int, second: int) -> None:
    """`timeout` sends SIGTERM to its child, and at once to the child's process group."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_signal() as should_stop:
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), second)
        assert should_stop()
        time.sleep(ECHO_SECONDS)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)
        os.kill(os.getpid(), second)  # does not disturb what the one before has set off
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_how_to_go_on_is_said_though_another_interrupt_comes_before_the_end() -> None:
    def interrupted_twice() -> None:
        try:
            first = KeyboardInterrupt()
            first.add_note("go on with: fedbench resume run")
            raise first
        finally:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as last:
        interrupted_twice()
    assert with_notes("interrupted", last.value) == "interrupted\ngo on with: fedbench resume run\n"
