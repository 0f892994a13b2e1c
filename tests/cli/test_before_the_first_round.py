"""Before the first round: an interrupt ends the preparation at once, and a very costly run asks where it can."""

import json
import os
import pty
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import Finished
from slow_data import ENDED

Call = Callable[..., Finished]

TINY = (
    "fedavg-digits", "runtime.executor=inline", "data.clients=4", "data.samples_per_client=20", "model.width=4",
    "rounds=1", "tracking.enabled=false", "output.directory=run",
)  # fmt: skip
COSTLY = (*TINY, "runtime.max_tflop=1e-9")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_data_are_loaded_is_one_line_and_leaves_nothing(
    number: signal.Signals, call: Call, run_folder: Path
) -> None:
    data = ("data.dataset=slow_data:Interrupting", f"data.dataset.number={int(number)}")
    finished = call("run", *TINY, *data)
    assert (finished.status, finished.stdout) == (130, "")
    assert finished.stderr == "interrupted before a round began; nothing was recorded\n"
    assert list(run_folder.iterdir()) == [run_folder / ENDED], "the loading was ended, and could clean up"


def sit_down(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make a terminal of standard input and standard error; the descriptor is where one types, and sees what is shown.

    To be called by the test itself: pytest sets both streams before it.
    """
    typed, end = pty.openpty()
    os.set_blocking(typed, False)
    monkeypatch.setattr(sys, "stdin", os.fdopen(end, "r", closefd=False))
    monkeypatch.setattr(sys, "stderr", os.fdopen(end, "w", closefd=False))
    return typed


def shown_at(terminal: int) -> str:
    """All that the terminal shows."""
    parts = []
    with suppress(BlockingIOError):
        while part := os.read(terminal, 4096):
            parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 2), ("", 2)])
def test_a_costly_run_asks_on_a_terminal(
    answer: str, status: int, call: Call, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = sit_down(monkeypatch)
    os.write(terminal, f"{answer}\n".encode())
    finished = call("run", *COSTLY, "--json")
    shown = shown_at(terminal)
    assert "TFLOP, more than runtime.max_tflop=1e-09: go on? [y/N]" in shown
    assert finished.status == status
    if status:
        assert (finished.stdout, list(run_folder.iterdir())) == ("", [])
        assert "error: runtime.max_tflop=1e-09: the clients' work will be about" in shown
    else:
        assert json.loads(finished.stdout)["status"] == "finished"


def test_a_costly_run_is_refused_where_nobody_can_be_asked(call: Call, run_folder: Path) -> None:
    finished = call("run", *COSTLY)
    assert (finished.status, finished.stdout) == (2, "")
    assert finished.stderr.startswith("error: runtime.max_tflop=1e-09: the clients' work will be about")
    assert len(finished.stderr.splitlines()) == 1
    assert list(run_folder.iterdir()) == []
