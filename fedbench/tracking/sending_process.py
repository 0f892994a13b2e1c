"""The process of low priority that talks to MLflow for a run, as the run sees it.

Importing mlflow and opening its store take two to three seconds of a core. In a thread of the run's own process they
would hold up the rounds, and take a core from the clients that train on this machine.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Pipe
from typing import Any

CODE = "import sys; sys.path[:] = {path!r}; from fedbench.tracking.sender import send; send({descriptor}, {run})"
"""What the process executes. It looks for modules where the run does, and nowhere else."""

LAST_WORDS = 2.0
"""Seconds that a process has to end once it is told that nobody waits for it any more."""


class SendingProcess:
    """A process that takes messages in order, and answers the last one; a run never waits for it before that.

    It ends when this object is closed or this process ends, however that is, and leaves interrupts to this process.

    Attributes:
        pid: its process id.
        fault: why it does nothing more, in words; None while it is at work.
    """

    def __init__(self, mlflow_uri: str | None) -> None:
        """Start it; it begins to import mlflow at once.

        Args:
            mlflow_uri: the store that it will write to; None: the default.

        Raises:
            OSError: the system starts no further process.
        """
        self.fault: str | None = None
        self._is_loaded = False
        self._connection, far_end = Pipe()
        code = CODE.format(path=[os.path.abspath(folder) for folder in sys.path], descriptor=far_end.fileno(),
                           run=os.getpid())  # fmt: skip
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[far_end.fileno()],
                process_group=0,  # an interrupt at the terminal is for the run, which says what is to be done
            )
        except OSError:
            self._connection.close()
            raise
        finally:
            far_end.close()
        self.pid = self._process.pid
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="messages to MLflow", daemon=True)
        self._writer.start()
        self.tell("load", mlflow_uri=mlflow_uri)

    def tell(self, what: str, **content: Any) -> None:
        """Queue a message of plain values; returns at once."""
        self._messages.put({"what": what, **content})

    def is_at_work(self) -> bool:
        """Whether it has imported mlflow, and goes on."""
        return self._is_loaded and self._process.poll() is None

    def is_loaded(self, timeout: float) -> bool:
        """Whether it has imported mlflow, or has within `timeout` seconds; if not, `fault` says why."""
        if not self._is_loaded:
            self._is_loaded = self._answer(timeout, "it did not get to import mlflow") is not None
        return self._is_loaded

    def ask(self, timeout: float, what: str, **content: Any) -> dict[str, Any] | None:
        """Send the last message after all others, and wait for its answer; `is_loaded` comes first.

        Args:
            timeout: seconds to wait at most.
            what, content: as for `tell`.

        Returns:
            The answer; None where there is none, for the reason in `fault`.
        """
        self.tell(what, **content)
        return self._answer(timeout, f"it took longer than {timeout:g} s")

    def _answer(self, timeout: float, fault: str) -> dict[str, Any] | None:
        """The next message that it sends; None, and `fault` or what has become of it, where there is none in time."""
        try:
            if self._connection.poll(timeout):
                answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
                return answer
            self.fault = fault
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_WORDS)
            status = self._process.poll()
            self.fault = f"the process that sends to it ended{'' if status is None else f' with status {status}'}"
        return None

    def close(self) -> None:
        """End the process; what it has not sent by now it does not send."""
        self._messages.put(None)
        self._process.kill()
        self._process.wait()
        self._writer.join(LAST_WORDS)
        self._connection.close()

    def _write(self) -> None:
        while (message := self._messages.get()) is not None:
            try:
                self._connection.send_bytes(json.dumps(message, default=_plain).encode())
            except (OSError, ValueError):  # it has ended: whoever asks it something will hear of it
                return


_was_given = False
"""Whether this process has had such a process for a run."""


@contextmanager
def sending_process(mlflow_uri: str | None) -> "Iterator[SendingProcess | None]":
    """A process that ends with the context; None where the system starts none, or a thread is cheaper.

    That is where mlflow has been imported already, and from the second run of a process on: many short runs in a row
    import it once, each in a process of its own would import it anew.
    """
    global _was_given
    process: SendingProcess | None = None
    if os.name == "posix" and sys.executable and "mlflow" not in sys.modules and not _was_given:
        with suppress(OSError):
            process = SendingProcess(mlflow_uri)
            _was_given = True
    try:
        yield process
    finally:
        if process is not None:
            process.close()


def _plain(value: Any) -> Any:
    """A value that JSON does not know: a scalar of NumPy as Python's, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
