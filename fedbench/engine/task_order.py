"""A task of an asynchronous run, and where the time that it takes goes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TaskOrder:
    """One task of an asynchronous run: a client computes one update.

    Attributes:
        number: number of the task, counted from 0 in the order of dispatch.
        worker: the slot that the task occupies, 0..K-1.
        client: the client that computes it.
        visit: number of tasks that the client has had before.
        groups: the layer groups that the task trains.
        stale: parts whose values come with the order, to be loaded first.
        lr_factor: factor on the local learning rate.
        gradient: whether to compute the gradient of one minibatch rather than the delta of local training.
        on_failure: when the client raises: "raise" the exception as it is, or "report" it.
    """

    number: int
    worker: int
    client: int
    visit: int
    groups: tuple[int, ...]
    stale: tuple[int, ...]
    lr_factor: float
    gradient: bool
    on_failure: Literal["raise", "report"] = "report"


@dataclass
class TaskSeconds:
    """The parts of the time that a host spends on asynchronous tasks, in seconds.

    Attributes:
        load: taking over the parameters that were sent.
        compute: computing the updates.
        upload: checking the updates, clipping and compressing them, and preparing the answer.
    """

    load: float = 0.0
    compute: float = 0.0
    upload: float = 0.0
