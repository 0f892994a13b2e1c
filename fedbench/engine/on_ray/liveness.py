"""Waiting for results of Ray calls, with a check that the head of the cluster is alive.

When the head of a cluster dies, calls to its actors neither return nor fail, and after 60 s Ray ends the process
wherever it is. Long waits are therefore cut into intervals, after each of which the head is contacted.
"""

import socket
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from fedbench.errors import HeadGone

CHECK_INTERVAL = 5.0
"""Seconds between two checks of the head."""

HEAD_TIMEOUT = 20.0
"""Seconds without an answer after which the head counts as gone; less than Ray's own 60."""


class ResultWaiter:
    """Waits for results of Ray calls on the cluster that this process is connected to.

    Attributes:
        head_is_gone: whether the head was found to be gone, so that no further call can succeed.
    """

    def __init__(self) -> None:
        self.head_is_gone = False
        self._address: str = ray.get_runtime_context().gcs_address

    def get(self, references: Any, timeout: float) -> Any:
        """Results of one reference, or of a list of references, as `ray.get` returns them.

        Args:
            references: what to wait for.
            timeout: seconds to wait at most.

        Raises:
            GetTimeoutError: the results are not there in time.
            HeadGone: the head of the cluster does not answer any more.
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
            HeadGone: the head of the cluster does not answer any more.
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
            HeadGone: it does not answer within `HEAD_TIMEOUT` seconds.
        """
        began = time.monotonic()
        while self._check_head(began) == began:
            time.sleep(1.0)

    def _check_head(self, last_answer: float) -> float:
        """Contact the head.

        Args:
            last_answer: when the head answered last, on `time.monotonic`'s clock.

        Returns:
            Now where it answers, else `last_answer`.

        Raises:
            HeadGone: its last answer is more than `HEAD_TIMEOUT` seconds ago.
        """
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=2.0).close()
        except OSError as error:
            silent = time.monotonic() - last_answer
            if silent <= HEAD_TIMEOUT:
                return last_answer
            self.head_is_gone = True
            raise HeadGone(
                f"the head of the cluster is gone: nothing has answered at {self._address} for {silent:.0f} s "
                f"({error.strerror or error})"
            ) from None
        return time.monotonic()
