"""Another task than the one that a data set is made for, where its rows allow it."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fedbench.data.base import FederatedData, Split, counted
from fedbench.errors import ConfigError
from fedbench.tasks.kinds import UNSCORED, TaskName


def with_task(data: FederatedData, task: TaskName | None) -> FederatedData:
    """The data with labels for a task.

    - next_token of text: the labels are the text itself, each token's label the one that follows it; padding does not
      count. The classes of the texts are forgotten.
    - regression of data whose classes are numbers (ratings, counts): the number of a row's class is its target.
    - All else is refused.

    Args:
        data: as loaded.
        task: `task`; None: the data's own.

    Raises:
        ConfigError: the rows have no labels for the task.
    """
    if task is None or task == data.task:
        return data
    if task == "next_token" and data.kind == "text":
        continued = _changed(data, task, _next_tokens, class_names=())
        for name, split in continued.splits.items():
            if split.inputs.strides[0] and not counted(split.labels, task).size:
                raise ConfigError(
                    f"task=next_token: no text of the {name} split of {data.name} has a token that follows another; "
                    "longer texts are needed (max_tokens of the data cuts them)"
                )
        return continued
    numbers = numbers_of_classes(data)
    if task == "regression" and numbers is not None:
        return _changed(data, task, _as_targets, class_names=("class",))
    possible = {"next_token"} if data.kind == "text" else set()
    possible |= set() if numbers is None else {"regression"}
    allowed = " or ".join(sorted({data.task} | possible))
    raise ConfigError(
        f"task={task}: {data.name} is {data.kind} data with labels for {data.task}; allowed: {allowed}, or leave it out"
    )


def _changed(
    data: FederatedData,
    task: TaskName,
    relabelled: Callable[[Split, FederatedData], Split],
    class_names: tuple[str, ...],
) -> FederatedData:
    """The data with every split relabelled, and a fingerprint of their own."""
    digest = hashlib.sha256(f"{data.fingerprint} task={task}".encode()).hexdigest()
    return replace(
        data,
        task=task,
        class_names=class_names,
        class_values=None,
        train=relabelled(data.train, data),
        test=relabelled(data.test, data),
        validation=None if data.validation is None else relabelled(data.validation, data),
        fingerprint=digest,
    )


def numbers_of_classes(data: FederatedData) -> tuple[float, ...] | None:
    """The number that each class of a classification stands for; None where classes are no numbers."""
    if data.task != "classification":
        return None
    if data.class_values is not None:
        return data.class_values
    try:
        values = tuple(map(float, data.class_names))
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _as_targets(split: Split, data: FederatedData) -> Split:
    """The number that each row's class stands for as its one target, float32 [N, 1]."""
    return replace(split, labels=np.array(numbers_of_classes(data), np.float32)[split.labels][:, None])


def _next_tokens(split: Split, data: FederatedData) -> Split:
    """Texts [N, L] as inputs [N, L - 1] with the tokens that follow as labels [N, L - 1].

    Of a text that has fewer than two tokens nothing counts.
    """
    tokens = split.inputs
    following = tokens[:, 1:].astype(np.int64)
    if data.padding_index >= 0:
        following[following == data.padding_index] = UNSCORED["int64"]
    return replace(split, inputs=np.ascontiguousarray(tokens[:, :-1]), labels=following)
