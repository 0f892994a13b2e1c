"""The memory that the process of a run shares with those of its client actors that are on its machine."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from fedbench.engine.arrivals.shared_slots import SharedSlots
from fedbench.protocol.layout import Vector

Slot = tuple[int, Vector]
"""Number of a slot, and its memory, float32."""


class ActorSlots:
    """Slots for the tasks in flight, each for a task's parameters and then for its update.

    Actors on other machines have none, nor has anybody where the system has no such memory.
    """

    def __init__(self, count: int, values: int) -> None:
        """Args:
        count: slots that are wanted.
        values: float32 values of each.
        """
        self._slots: SharedSlots | None = None
        with suppress(OSError):
            self._slots = SharedSlots(count, values)
        self._attached: set[int] = set()
        self._lost: list[Vector] = []

    def attach(self, actors: Sequence[int], handles: Sequence[Any], ask: Callable[[list[Any]], list[bool]]) -> None:
        """Have new actors open the memory.

        Args:
            actors: their indices.
            handles: handles of all actors.
            ask: waits for results of calls.
        """
        if self._slots is not None:
            opened = ask([handles[actor].attach.remote(self._slots.place) for actor in actors])
            self._attached -= set(actors)
            self._attached |= {actor for actor, is_open in zip(actors, opened, strict=True) if is_open}

    def take(self, actor: int) -> Slot | None:
        """A slot for a task of an actor, until nothing refers to its memory any more; None where there is none."""
        return self._slots.take() if self._slots is not None and actor in self._attached else None

    def lose(self, memory: Iterable[Vector | None]) -> None:
        """Let slots not be used again: an actor that was given up may still write to them."""
        self._lost += [slot for slot in memory if slot is not None]

    def close(self) -> None:
        """Let no further actor open the memory."""
        if self._slots is not None:
            self._slots.close()
        self._slots = None
