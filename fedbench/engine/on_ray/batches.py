"""What the driver knows of the tasks of an asynchronous run that actors were given, and of those that are computed."""

from dataclasses import dataclass
from typing import Any

from fedbench.engine.arrivals.task_queue import WaitingTask
from fedbench.engine.messages import ClientReport, TaskOrder
from fedbench.protocol.layout import Vector


@dataclass(frozen=True)
class Batch:
    """Tasks that an actor was given in one call, and that it has not answered for.

    Attributes:
        actor: index of the actor.
        tasks: the tasks, in the order in which it computes them.
        uploads: reference to the parts that they send.
        report: reference to the `BatchReport`.
        slots: for each task, the memory into which its upload is written; None: it is among `uploads`.
    """

    actor: int
    tasks: tuple[WaitingTask, ...]
    uploads: Any
    report: Any
    slots: tuple[Vector | None, ...]

    @property
    def clients(self) -> list[int]:
        """The clients of the tasks."""
        return [task.order.client for task in self.tasks]


@dataclass(frozen=True)
class ComputedTask:
    """A task whose update has been computed and not yet applied.

    Attributes:
        order: the task.
        report: the outcome of the task.
        uploads: reference to the uploads of its batch, or a tuple of them.
        place: place of its own upload among these.
    """

    order: TaskOrder
    report: ClientReport
    uploads: Any
    place: int
