"""Waiting for results of Ray calls, with a check that Ray is alive: its head, and its daemon on this machine.

When the head of a cluster dies, calls to its actors neither return nor fail. Some seconds after the daemon of its own
machine has died, Ray ends a process wherever it is, without a word. Long waits are therefore cut into intervals, after
each of which both are contacted.
"""

import socket
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from fedbench.engine.on_ray.connection import disconnect
from fedbench.errors import HeadGone

CHECK_INTERVAL = 5.0
"""Seconds between two checks of the head."""

HEAD_TIMEOUT = 20.0
"""Seconds without an answer after which the head counts as gone."""

PROBE_TIMEOUT = 2.0
"""Seconds in which the head must accept a connection."""


class ResultWaiter:
    """Waits for results of Ray calls on the cluster that this process is connected to."""

    def __init__(self) -> None:
        self._address: str = ray.get_runtime_context().gcs_address
        self._last_answer = time.monotonic()
        self._next_check = self._last_answer + CHECK_INTERVAL

    def get(self, references: Any, timeout: float) -> Any:
        """Results of one reference, or of a list of references, as `ray.get` returns them.

        Args:
            references: what to wait for.
            timeout: seconds to wait at most.

        Raises:
            GetTimeoutError: the results are not there in time.
            HeadGone: the head of the cluster, or Ray's daemon of this machine, does not answer any more.
            RayError: a call failed, as `ray.get` raises it.
        """
        last_answer = time.monotonic()
        until = last_answer + timeout
        while True:
            remaining = max(0.0, until - time.monotonic())
            try:
                return ray.get(references, timeout=min(CHECK_INTERVAL, remaining))
            except GetTimeoutError:
                if remaining <= CHECK_INTERVAL:
                    raise
                last_answer = self._check_head(last_answer)

    def wait(self, references: Sequence[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        """Wait until at least one result is there.

        Args:
            references: what to wait for.
            timeout: seconds to wait at most; infinity waits until there is a result.

        Returns:
            References whose results are there, empty when none is in time, and the other references.

        Raises:
            HeadGone: the head of the cluster, or Ray's daemon of this machine, does not answer any more.
        """
        last_answer = time.monotonic()
        until = last_answer + timeout
        while True:
            remaining = max(0.0, until - time.monotonic())
            ready, pending = ray.wait(list(references), timeout=min(CHECK_INTERVAL, remaining))
            if ready or remaining <= CHECK_INTERVAL:
                return ready, pending
            last_answer = self._check_head(last_answer)

    def wait_for_head(self) -> None:
        """Wait until the head answers; to be called before calls to it, which would block without end.

        Raises:
            HeadGone: it does not answer within `HEAD_TIMEOUT` seconds, or Ray's daemon of this machine has ended.
        """
        began = time.monotonic()
        while self._check_head(began) == began:
            time.sleep(1.0)

    def check_daemon(self) -> None:
        """Check Ray's daemon of this machine: without it, Ray ends a process that uses its shared memory.

        Raises:
            HeadGone: Ray's daemon of this machine has ended.
        """
        if (socket_name := ended_daemon()) is not None:
            raise self._end_of_ray(socket_name)

    def check(self) -> None:
        """Contact the head if that was not done within `CHECK_INTERVAL` seconds; for loops that wait by themselves.

        Raises:
            HeadGone: as for `wait_for_head`.
        """
        if time.monotonic() >= self._next_check:
            self._last_answer = self._check_head(self._last_answer)
            self._next_check = time.monotonic() + CHECK_INTERVAL

    def _check_head(self, last_answer: float) -> float:
        """Contact the head, and Ray's daemon of this machine.

        Args:
            last_answer: when the head answered last, on `time.monotonic`'s clock.

        Returns:
            Now where it answers, else `last_answer`.

        Raises:
            HeadGone: its last answer is more than `HEAD_TIMEOUT` seconds ago, or the daemon has ended.
        """
        self.check_daemon()
        try:
            contact_head(self._address)
        except OSError as error:
            silent = time.monotonic() - last_answer
            if silent <= HEAD_TIMEOUT:
                return last_answer
            raise HeadGone(
                f"the head of the cluster is gone: nothing has answered at {self._address} for {silent:.0f} s "
                f"({error.strerror or error})"
            ) from None
        return time.monotonic()

    def _end_of_ray(self, socket_name: str) -> HeadGone:
        """Leave a Ray whose daemon on this machine has ended, before Ray finds out and ends this process.

        Args:
            socket_name: where the daemon listened.

        Returns:
            The error that says whether the head is gone as well.
        """
        try:
            contact_head(self._address)
        except OSError as error:
            reason = error.strerror or error
            gone = HeadGone(f"the head of the cluster is gone: nothing answers at {self._address} ({reason})")
        else:
            gone = HeadGone(
                f"Ray's daemon of this machine (raylet) has ended: nothing answers at {socket_name}; "
                "it was killed, or the memory ran out"
            )
        disconnect()
        return gone


def contact_head(address: str) -> None:
    """Connect to the head of a cluster.

    Args:
        address: HOST:PORT.

    Raises:
        OSError: it does not accept a connection.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT).close()


def ended_daemon() -> str | None:
    """The socket of Ray's daemon on this machine where the daemon has ended; None where it is alive, or elsewhere."""
    node: Any = ray._private.worker._global_node
    if node is None:  # a client of a cluster elsewhere
        return None
    name = str(node.raylet_socket_name)
    for daemon in node.all_processes.get("raylet", ()):  # a child of this process
        return None if daemon.process.poll() is None else name
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            return name
        except OSError:  # such as a full queue of connections
            return None
    return None


def ray_answers() -> bool:
    """Whether this process is connected to a Ray that is alive, so that calls to it do not block."""
    if not ray.is_initialized() or ended_daemon() is not None:
        return False
    try:
        contact_head(ray.get_runtime_context().gcs_address)
    except OSError:
        return False
    return True
