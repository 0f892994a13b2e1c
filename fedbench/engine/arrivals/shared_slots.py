"""Memory that processes of a machine share, in slots: for parameters on their way out, and updates on their way back.

Ray's object store needs a dozen messages between processes for each object that is made, passed on and freed. Where a
task takes few milliseconds, these take longer than copying its parameters.
"""

import mmap
import os
import secrets
import weakref
from dataclasses import dataclass

import numpy as np

from fedbench.protocol.layout import BYTES_PER_VALUE, Vector

MOST_BYTES = 256 << 20
"""Bytes of all slots together at most."""

TOKEN_BYTES = 64
"""Bytes at the start of the memory, by which a process that opens it knows that it is the one that was meant."""


@dataclass(frozen=True)
class SlotsPlace:
    """The address of shared slots, by which another process of the same machine opens them.

    Attributes:
        path: file through which the memory is opened.
        token: the `TOKEN_BYTES` bytes that the memory begins with.
        count: number of slots.
        values: float32 values of a slot.
    """

    path: str
    token: bytes
    count: int
    values: int


class SharedSlots:
    """Shared memory in slots, in the process that has made it and that decides which slot is used for what.

    The memory has no name: the system frees it when the last process that has opened it lets go of it, however that
    process ends.
    """

    def __init__(self, count: int, values: int) -> None:
        """Args:
        count: slots that are wanted; there are fewer where they would be larger than `MOST_BYTES` together.
        values: float32 values of a slot.

        Raises:
            OSError: this system has no such memory, or no room for it.
        """
        count = min(count, MOST_BYTES // max(1, values * BYTES_PER_VALUE))
        if count == 0 or not hasattr(os, "memfd_create"):
            raise OSError("no memory to share")
        self._descriptor = os.memfd_create("fedbench-slots", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self._descriptor, _size(count, values))
            self._memory = mmap.mmap(self._descriptor, _size(count, values), access=mmap.ACCESS_WRITE)
        except (OSError, ValueError):
            os.close(self._descriptor)
            raise
        self._end = weakref.finalize(self, os.close, self._descriptor)
        path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.place = SlotsPlace(path, secrets.token_bytes(TOKEN_BYTES), count, values)
        self._memory[:TOKEN_BYTES] = self.place.token
        self._free = list(range(count))

    def take(self) -> "tuple[int, Vector] | None":
        """Take a slot.

        Returns:
            Its number and its memory, float32 [values]; the slot is given out again when nothing refers to the memory,
            or to a part of it, any more. None where all slots are taken.
        """
        if not self._free:
            return None
        number = self._free.pop()
        slot = _slot(self._memory, number, self.place.values)
        weakref.finalize(slot, self._free.append, number)
        return number, slot

    def close(self) -> None:
        """Let no further process open the memory; may be called twice."""
        self._end()


class OpenedSlots:
    """Shared memory in slots, in a process that has opened what another process has made."""

    def __init__(self, place: SlotsPlace) -> None:
        """Open them.

        Args:
            place: as the process that has made them says.

        Raises:
            OSError: they are not on this machine, or have been closed.
        """
        with open(place.path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _size(place.count, place.values), access=mmap.ACCESS_WRITE)
        if self._memory[:TOKEN_BYTES] != place.token:
            raise OSError(f"{place.path}: is another process's memory")
        self._values = place.values

    def slot(self, number: int) -> Vector:
        """float32 [values], the memory of a slot."""
        return _slot(self._memory, number, self._values)


def _size(count: int, values: int) -> int:
    """Bytes of the whole memory."""
    return TOKEN_BYTES + count * values * BYTES_PER_VALUE


def _slot(memory: mmap.mmap, number: int, values: int) -> Vector:
    return np.frombuffer(memory, np.float32, values, TOKEN_BYTES + number * values * BYTES_PER_VALUE)
