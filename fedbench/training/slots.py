"""Slots: several clients that train in one process at a time, each in its own model, a step of one after the other.

Where a step is so short that its launch takes longer than its computing, the streams of a GPU are thereby kept busy
with the work of several clients. What a client computes does not depend on the others: its slot has its own model,
objective and random state.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

Outcome = TypeVar("Outcome")


class Slot(Protocol):
    """A place in which one client trains at a time."""

    def turn(self) -> AbstractContextManager[None]:
        """The context in which everything for the slot's client is done: its stream and its random state."""


Place = TypeVar("Place", bound=Slot)
Job = Callable[[Place], Generator[None, None, Outcome]]
"""A client's work: in a slot, it yields after each step and returns the outcome."""


class Finished(Generic[Place, Outcome]):
    """The end of a job.

    Attributes:
        index: the job's position, from 0.
        slot: where it was done; nothing else is under way there until the next one is asked for.
        outcome: what it returned; None where it raised.
        error: what it raised; None where it returned.
    """

    def __init__(self, index: int, slot: Place, outcome: Outcome | None, error: Exception | None) -> None:
        self.index = index
        self.slot = slot
        self.outcome = outcome
        self.error = error


def interleaved(jobs: Iterable[Job[Place, Outcome]], slots: Sequence[Place]) -> Iterator[Finished[Place, Outcome]]:
    """Do the jobs in the slots, and yield the end of each as it comes.

    Every occupied slot has one step in turn. A slot whose job has ended takes the next one at its next turn, so that
    jobs of different lengths leave no slot idle while there is work.

    Args:
        jobs: the jobs, begun in this order.
        slots: the places; at most so many jobs are under way.
    """
    waiting = enumerate(jobs)
    running: list[tuple[int, Generator[None, None, Outcome]] | None] = [None] * len(slots)
    busy = True
    while busy:
        busy = False
        for place, slot in enumerate(slots):
            job = running[place]
            if job is None:
                if (started := next(waiting, None)) is None:
                    continue
                job = running[place] = (started[0], started[1](slot))
            busy = True
            index, steps = job
            with slot.turn():
                ended = _advance(index, slot, steps)
            if ended is not None:
                running[place] = None
                yield ended


def _advance(index: int, slot: Place, steps: Generator[None, None, Outcome]) -> Finished[Place, Outcome] | None:
    """Do a job's next step; its end, where it has ended with it."""
    try:
        next(steps)
    except StopIteration as end:
        return Finished(index, slot, end.value, None)
    except Exception as error:
        return Finished(index, slot, None, error)
    return None
