"""The process that talks to MLflow for a run: imports mlflow while the run starts, and sends what it is told of.

`fedbench.tracking.sending_process` starts it. Messages are JSON objects; `what` says which:

    load      import what the store at `mlflow_uri` needs; nothing is opened; the answer is `loaded`
    begin     `tracker`: arguments of `MlflowTracker`; `argv`: the run's; `run`: a `RunDescription`; `started`
    log       `step`, `metrics`: as for `MlflowTracker.log`; `logged`
    finish    `summary`, a `verdict` or null, `ended`; the answer, `finished`, has `run_id`, `experiment_id`, `warning`

Moments are in milliseconds since 1970.
"""

import json
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

from fedbench.system.garbage import no_garbage_search
from fedbench.system.priority import give_way, step_back

if TYPE_CHECKING:
    from fedbench.tracking.run import MlflowTracker

LOOK_EVERY = 2.0
"""Seconds between two looks at whether the run's process is there, beside the end of its messages."""


def send(descriptor: int, run: int) -> None:
    """Do as the messages say, to the last one; end at once when the run's process has ended.

    Args:
        descriptor: of the connection to the run's process.
        run: its process id.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the run ends in order, and says when this is over
        signal.signal(number, signal.SIG_IGN)
    step_back()
    connection = Connection(descriptor)
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, run, messages), daemon=True).start()
    loading = threading.Thread(target=_load, args=(messages.get()["mlflow_uri"],), daemon=True)
    loading.start()
    loading.join()
    _answer(connection, "loaded")
    with suppress(Exception):  # the run will see that this process has ended, and meet with the same fault
        tracker = _begun(messages.get())
        while (message := messages.get())["what"] == "log":
            tracker.recording.log(message["step"], message["metrics"], message["logged"])
        _answer(connection, "finished", **_finished(tracker, message))
        messages.get()  # nothing more comes: this process ends with the connection
    os._exit(1)


def _answer(connection: Connection, what: str, **content: Any) -> None:
    with suppress(OSError):  # the run is gone, and this process is about to end
        connection.send_bytes(json.dumps({"what": what, **content}).encode())


def _receive(connection: Connection, run: int, messages: "queue.SimpleQueue[dict[str, Any]]") -> NoReturn:
    """Queue the messages as they come; where they end, so does this process, whatever it is doing."""
    with suppress(EOFError, OSError):
        while os.getppid() == run:  # a process that the run has forked may keep the connection open
            if connection.poll(LOOK_EVERY):
                messages.put(json.loads(connection.recv_bytes()))
    os._exit(0)


def _load(mlflow_uri: str | None) -> None:
    """Import what is needed to open the store; what is wrong with it shows when it is opened."""
    give_way()
    with suppress(Exception), no_garbage_search():
        import fedbench.tracking.run  # noqa: F401
        from fedbench.tracking.store import default_store, load_client, sqlite_file

        load_client()
        if sqlite_file(mlflow_uri or default_store()) is not None:
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def _begun(message: dict[str, Any]) -> "MlflowTracker":
    from fedbench.records.observers import RunDescription
    from fedbench.tracking.run import MlflowTracker

    sys.argv[:] = message["argv"]  # MLflow names the run's program by it
    tracker = MlflowTracker(**message["tracker"])
    tracker.open(RunDescription(**message["run"]), message["started"])
    tracker.recording.start()
    return tracker


def _finished(tracker: "MlflowTracker", message: dict[str, Any]) -> dict[str, Any]:
    from fedbench.records.observers import Verdict

    verdict = message["verdict"]
    tracker.close(message["summary"], Verdict(**verdict) if verdict else None, message["ended"])
    return {"run_id": tracker.run_id, "experiment_id": tracker.experiment_id, "warning": tracker.warning}
