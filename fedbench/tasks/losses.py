"""The loss of each kind of task, as what training minimises and as the sum that an evaluation adds up."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from fedbench.tasks.kinds import TASKS, UNSCORED, TaskName

Criterion = Callable[[Tensor, Tensor], Tensor]
"""A minibatch's outputs and labels, as the table of `fedbench.models.base.Task` gives them -> the mean loss."""


def criterion_of(task: TaskName) -> Criterion:
    """The loss that training minimises: a scalar, the mean over the rows, tokens or pixels that count.

    A minibatch of which nothing counts has the loss 0.
    """
    return CRITERIA[task]


def loss_sum(task: TaskName, outputs: Tensor, labels: Tensor) -> tuple[float, int]:
    """The sum of the losses of a minibatch, and the number of rows, tokens or pixels that it is the sum over."""
    if task == "classification":
        return float(cross_entropy(outputs, labels, reduction="sum")), len(labels)
    if task in ("multilabel", "regression"):
        return float(CRITERIA[task](outputs.double(), labels)) * len(labels), len(labels)
    total, count = _over_places(outputs, labels)
    return float(total), int(count)


def counted_in(labels: Tensor) -> Tensor | int:
    """The number of rows, tokens or pixels that the loss of a minibatch is the mean over.

    Args:
        labels: of the minibatch, as the table of `fedbench.models.base.Task` gives them.

    Returns:
        The number of rows; of tokens and pixels an int64 scalar on the device of the labels, which is not waited for.
    """
    if labels.dim() < 3 and (labels.dim() < 2 or labels.dtype != torch.int64):
        return len(labels)
    return (labels != UNSCORED["uint8" if labels.dtype == torch.uint8 else "int64"]).sum()


def hits(task: TaskName, outputs: Tensor, labels: Tensor) -> int | None:
    """The number of rows, tokens or pixels whose largest output is at their label; None where a task has no such."""
    if not TASKS[task].counts_hits:
        return None
    # What does not count has a label that no output is at.
    return int((outputs.argmax(-1 if task == "next_token" else 1) == labels).sum())


def _classification(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats: float32 [B, C], int64 [B]."""
    return cross_entropy(outputs, labels)


def _multilabel(outputs: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits in nats, mean over rows and labels: float32 [B, K], uint8 [B, K]."""
    return binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype))


def _regression(outputs: Tensor, labels: Tensor) -> Tensor:
    """Squared error, mean over rows and targets: float32 [B, K], float32 [B, K]."""
    return mse_loss(outputs, labels.to(outputs.dtype))


def _places(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats, mean over the tokens or pixels that count; 0 where none does."""
    total, count = _over_places(outputs, labels)
    return total / count.clamp(min=1)


def _over_places(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the cross-entropies of the tokens or pixels that count, and their number.

    Args:
        outputs: float32 [B, L, V] of tokens, [B, C, H, W] of pixels.
        labels: int64 [B, L], -100 where none counts; uint8 [B, H, W], 255 where none counts.
    """
    unscored = UNSCORED["uint8" if labels.dtype == torch.uint8 else "int64"]
    labels = labels.long()
    if outputs.dim() > 3:
        outputs = outputs.movedim(1, -1)  # CUDA has a deterministic kernel for rows of classes, and none for maps
    outputs, labels = outputs.flatten(0, -2), labels.flatten()
    total = cross_entropy(outputs, labels, ignore_index=unscored, reduction="sum")
    return total, (labels != unscored).sum()


CRITERIA: dict[TaskName, Criterion] = {
    "classification": _classification,
    "multilabel": _multilabel,
    "regression": _regression,
    "next_token": _places,
    "segmentation": _places,
}
