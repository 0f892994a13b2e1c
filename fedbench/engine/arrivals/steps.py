"""The steps of an asynchronous run's server, as messages: several are sent in one call and taken in their order."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SendStep:
    """Fix the parameters that a task starts from.

    Attributes:
        number: number of the task.
        worker: the worker of the method's rule that the task counts for.
        groups: layer groups that the task trains.
    """

    number: int
    worker: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class ApplyStep:
    """Apply the update of a task.

    Attributes:
        number: number of the task.
        batch: which of the batches of updates that come with the steps contains the update.
        place: place of the update in that batch.
        lr: factor on the update.
        steps: local minibatches that the client trained on.
    """

    number: int
    batch: int
    place: int
    lr: float
    steps: int


@dataclass(frozen=True)
class ForgetStep:
    """Forget a task whose update is not applied.

    Attributes:
        number: number of the task.
    """

    number: int


ServerStep = SendStep | ApplyStep | ForgetStep
"""Any of the steps."""
