"""Waiting for Ray without waiting for a cluster that is no more.

When the head of a cluster dies, calls to what was there neither return nor fail, and after 60 s Ray ends the process
wherever it is. So long waits are cut into slices, between which the head is asked for a sign of life.
"""

import socket
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from fedbench.errors import HeadGone

SLICE = 5.0
"""Seconds between two looks at the head."""

SILENCE = 20.0
"""Seconds without an answer after which the head counts as gone; before Ray's own 60."""


class Patience:
    """Waits for results on the cluster that this process is connected to.

    Attributes:
        gone: the head was found to be gone; nothing more can be asked of the cluster.
    """

    def __init__(self) -> None:
        self.gone = False
        self._address: str = ray.get_runtime_context().gcs_address

    def get(self, references: Any, timeout: float) -> Any:
        """What `ray.get` gives.

        Args:
            timeout: seconds.

        Raises:
            GetTimeoutError: not in time.
            HeadGone: there is no cluster to wait for.
        """
        heard = time.monotonic()
        until = heard + timeout
        while True:
            left = max(0.0, until - time.monotonic())
            try:
                return ray.get(references, timeout=min(SLICE, left))
            except GetTimeoutError:
                if left <= SLICE:
                    raise
                heard = self._look(heard)

    def wait(self, references: Sequence[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        """(the first that are there, the rest), as `ray.wait` gives them; none when there is none in time.

        Args:
            timeout: seconds; inf: until there is one.

        Raises:
            HeadGone: there is no cluster to wait for.
        """
        heard = time.monotonic()
        until = heard + timeout
        while True:
            left = max(0.0, until - time.monotonic())
            ready, rest = ray.wait(list(references), timeout=min(SLICE, left))
            if ready or left <= SLICE:
                return ready, rest
            heard = self._look(heard)

    def hear(self) -> None:
        """Wait until the head answers: before calls to it, which would block.

        Raises:
            HeadGone: it does not.
        """
        began = time.monotonic()
        while self._look(began) == began:
            time.sleep(1.0)

    def _look(self, heard: float) -> float:
        """When the head was heard of last."""
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=2.0).close()
        except OSError as error:
            silent = time.monotonic() - heard
            if silent <= SILENCE:
                return heard
            self.gone = True
            raise HeadGone(
                f"the head of the cluster is gone: nothing has answered at {self._address} for {silent:.0f} s "
                f"({error.strerror or error})"
            ) from None
        return time.monotonic()
