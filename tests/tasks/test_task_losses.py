"""The loss of each task is PyTorch's over what counts, in training and in evaluation alike."""

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedbench.errors import ConfigError
from fedbench.tasks.kinds import TASKS, TaskName
from fedbench.tasks.losses import criterion_of, hits, loss_sum
from fedbench.training.metrics import EvaluationMetrics, check_metrics
from fedbench.training.scores import BatchScore

B, C = 6, 4


def minibatch(task: TaskName) -> tuple[Tensor, Tensor]:
    """Outputs and labels of B rows; of tokens and pixels some do not count."""
    rng = np.random.default_rng(3)
    shape = {"next_token": (B, 5, C), "segmentation": (B, C, 3, 2)}.get(task, (B, C))
    outputs = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    match task:
        case "classification":
            labels = rng.integers(C, size=B)
        case "multilabel":
            labels = rng.integers(2, size=(B, C)).astype(np.uint8)
        case "regression":
            labels = rng.normal(size=(B, C)).astype(np.float32)
        case "next_token":
            labels = rng.integers(C, size=(B, 5))
            labels[0], labels[1, 2:] = -100, -100
        case "segmentation":
            labels = rng.integers(C, size=(B, 3, 2)).astype(np.uint8)
            labels[0], labels[1, 2:] = 255, 255
    return outputs, torch.from_numpy(labels)


def by_hand(task: TaskName, outputs: Tensor, labels: Tensor) -> tuple[float, int]:
    """The sum of the losses in float64, row by row and place by place, and the number of what counts."""
    outputs = outputs.double()
    total, count = 0.0, 0
    for row in range(len(labels)):
        if task == "classification":
            total, count = total - float(outputs[row].log_softmax(0)[labels[row]]), count + 1
        elif task == "regression":
            total, count = total + float(((outputs[row] - labels[row].double()) ** 2).mean()), count + 1
        elif task == "multilabel":
            p, y = outputs[row].sigmoid(), labels[row].double()
            total, count = total - float((y * p.log() + (1 - y) * (1 - p).log()).mean()), count + 1
        else:
            places = outputs[row].T if task == "next_token" else outputs[row].flatten(1)
            for place, label in enumerate(labels[row].flatten().tolist()):
                if label not in (-100, 255):
                    total, count = total - float(places[:, place].log_softmax(0)[label]), count + 1
    return total, count


@pytest.mark.parametrize("task", TASKS)
def test_training_and_evaluation_have_the_loss_by_hand(task: TaskName) -> None:
    outputs, labels = minibatch(task)
    total, count = by_hand(task, outputs, labels)
    assert float(criterion_of(task)(outputs, labels)) == pytest.approx(total / count, rel=1e-5)
    summed, samples = loss_sum(task, outputs, labels)
    assert samples == count
    assert summed == pytest.approx(total, rel=1e-5)


def test_the_loss_of_a_classification_is_pytorchs_bit_for_bit() -> None:
    outputs, labels = minibatch("classification")
    assert torch.equal(criterion_of("classification")(outputs, labels), F.cross_entropy(outputs, labels))


@pytest.mark.parametrize(("task", "unscored"), [("next_token", -100), ("segmentation", 255)])
def test_a_minibatch_of_which_nothing_counts_moves_nothing(task: TaskName, unscored: int) -> None:
    outputs, labels = minibatch(task)
    outputs.requires_grad_(True)
    loss = criterion_of(task)(outputs, torch.full_like(labels, unscored))
    loss.backward()
    assert loss.item() == 0.0
    assert outputs.grad is not None
    assert not outputs.grad.any()
    assert loss_sum(task, outputs.detach(), torch.full_like(labels, unscored)) == (0.0, 0)


def test_hits_are_counted_where_a_place_has_one_label() -> None:
    outputs, labels = minibatch("next_token")
    scored = labels != -100
    assert hits("next_token", outputs, labels) == int((outputs.argmax(-1) == labels)[scored].sum())
    outputs, labels = minibatch("segmentation")
    assert hits("segmentation", outputs, labels) == int((outputs.argmax(1) == labels)[labels != 255].sum())
    assert hits("regression", *minibatch("regression")) is None
    assert hits("multilabel", *minibatch("multilabel")) is None


def test_a_metric_is_better_in_its_direction_and_never_by_not_being_a_number() -> None:
    perplexity, accuracy = TASKS["next_token"].headline, TASKS["classification"].headline
    assert perplexity.better(2.0, 3.0)
    assert perplexity.reached(2.0, 2.0)
    assert not perplexity.reached(2.1, 2.0)
    assert accuracy.better(0.9, 0.8)
    assert not accuracy.better(math.nan, 0.1)
    assert not perplexity.reached(math.nan, 9.0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_mean_iou_is_that_by_hand_over_the_pixels_that_count(dtype: torch.dtype) -> None:
    outputs, labels = minibatch("segmentation")
    counts, hit = labels != 255, outputs.argmax(1)
    shares = []
    for label in range(C):
        both = ((hit == label) & (labels == label))[counts].sum()
        either = ((hit == label) | (labels == label))[counts].sum()
        shares.append(float(both / either))
    stored = labels if dtype == torch.uint8 else labels.long().masked_fill(~counts, -100)
    metrics = EvaluationMetrics(("mean_iou",), C, task="segmentation")
    score = BatchScore(int(counts.sum()), 0.0, 0, states=metrics.states(outputs, stored))
    assert metrics.figures([score]) == {"test_mean_iou": pytest.approx(np.mean(shares))}


def test_class_255_of_labels_that_can_hold_more_counts() -> None:
    labels = torch.tensor([[[255, 0]]])
    outputs = torch.zeros(1, 300, 1, 2)
    outputs[0, 0] = 1.0
    metrics = EvaluationMetrics(("mean_iou",), 300, task="segmentation")
    score = BatchScore(2, 0.0, 1, states=metrics.states(outputs, labels))
    assert metrics.figures([score]) == {"test_mean_iou": pytest.approx(0.25)}


@pytest.mark.parametrize(
    ("name", "task", "line"),
    [
        ("mae", "next_token", "mae: says nothing of task=next_token; allowed: accuracy, perplexity, or an import path"),
        ("mae", "multilabel", "mae: says nothing of task=multilabel; allowed: macro_f1, or an import path"),
        (
            "builtins:len",
            "regression",
            f"builtins:len: cannot be made for {C} targets: object of type 'int' has no len",
        ),
        ("builtins:len", "next_token", f"builtins:len: cannot be made for {C} token ids: object of type 'int'"),
    ],
)
def test_a_metric_that_is_refused_is_told_in_the_words_of_the_task(name: str, task: TaskName, line: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)):
        check_metrics((name,), C, task)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_accuracy_of_a_task_without_hits_is_refused(task: TaskName) -> None:
    with pytest.raises(ConfigError, match=f"accuracy: says nothing of task={task}; allowed: "):
        check_metrics(("accuracy",), C, task)


@pytest.mark.parametrize("name", ["recall", "Hits"])
def test_a_metric_that_counts_what_does_not_count_is_refused(name: str) -> None:
    name = f"own_metric:{name}"
    check_metrics((name,), C, "segmentation")
    with pytest.raises(ConfigError, match=f"{name}: is not the same with pixels that do not count, .* label -100"):
        check_metrics((name,), C, "segmentation", some_do_not_count=True)


def test_metrics_that_leave_out_what_does_not_count_are_taken() -> None:
    for task, names in {"segmentation": ("mean_iou", "own_metric:recall_of_what_counts"), "next_token": ()}.items():
        check_metrics((*TASKS[task].metrics, *names), C, task, some_do_not_count=True)
