"""What a command writes to: full disks, readers that have gone, plain terminals, signals meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import COMMAND, Finished, start

from fedbench.experiment.interrupt import stop_signal, undisturbed
from fedbench.records.reader import load_run

TINY = (
    "run",
    "rounds=2",
    "data.clients=2",
    "schedule=full",
    "model.width=8",
    "runtime.executor=inline",
    "output.directory=run",
)


@pytest.mark.slow
def test_a_log_on_a_full_disk_does_not_end_the_run(run_folder: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with start(run_folder, *TINY, "tracking.enabled=false", stderr=full) as process:
        os.close(full)
        stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "accuracy" in stdout
    assert load_run(run_folder / "run")[3]["status"] == "finished"


def test_a_log_whose_reader_has_gone_does_not_end_the_run(
    call: Callable[..., Finished], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as log:
        monkeypatch.setattr(sys, "stderr", log)
        finished = call(*TINY, "tracking.enabled=false")
        assert os.path.samestat(os.fstat(log.fileno()), os.stat(os.devnull)), "nothing more is written to the pipe"
    assert finished.status == 0
    assert "accuracy" in finished.stdout
    assert load_run(run_folder / "run")[3]["status"] == "finished"


def test_a_result_that_cannot_be_written_is_an_error_and_a_reader_that_has_gone_is_none(run_folder: Path) -> None:
    with start(run_folder, "list", "presets", figures=True) as process:
        assert process.stdout is not None
        process.stdout.close()  # as head does
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    command = f"{COMMAND} list presets > /dev/full"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "error: standard output could not be written: No space left on device\n"


@pytest.mark.slow
def test_a_terminal_of_few_characters_gets_a_report_all_the_same(
    call: Callable[..., Finished], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        assert call(*TINY[:-1], f"output.directory=run{seed}", f"seed={seed}", "tracking.enabled=false").status == 0
    with start(run_folder, "report", "run0", "run1", PYTHONIOENCODING="ascii") as process:
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert (stdout + stderr).isascii()
    assert "+-" in stdout


@pytest.mark.slow
def test_sigterm_to_the_process_group_ends_a_run_on_a_local_ray_after_its_round(run_folder: Path) -> None:
    """As `timeout` sends it and, to the process alone, `ray job stop`."""
    lasting = (
        "run", "fedavg-digits", "rounds=3000", "runtime.actors=1", "data.clients=4", "data.samples_per_client=40",
        "tracking.enabled=false",
    )  # fmt: skip
    with start(run_folder, *lasting, "output.directory=run", new_session=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert next(lines) == "starting fedavg-digits: cnn-bn on digits, on a Ray of this machine\n"
        assert any(line.startswith("round 2/3000") for line in lines)
        os.killpg(process.pid, signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == f"go on with: fedbench resume {run_folder / 'run'}"
    summary = load_run(run_folder / "run")[3]
    assert summary["status"] == "interrupted"
    checkpoint = max((run_folder / "run" / "checkpoints").glob("round-*"))
    assert checkpoint.name == f"round-{summary['rounds']:08}"
    time.sleep(1.0)
    assert running_in_group(process.pid) == [], "none of Ray's processes is left"


def running_in_group(group: int) -> list[str]:
    """The names of the processes of a group, without those that have ended and that nobody has asked for yet."""
    import psutil

    running = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process.name())
    return running


def test_no_signal_disturbs_the_record_of_an_end() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signal() as should_stop:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        assert should_stop()
    assert signal.getsignal(signal.SIGTERM) is before
