"""The metrics of an evaluation, against scikit-learn and plain NumPy, whichever host has scored which minibatch."""

import pickle
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score, top_k_accuracy_score

from fedbench.errors import ConfigError
from fedbench.training.metric_names import METRICS_OF_TASK, OWN_METRICS, check_names
from fedbench.training.metrics import EvaluationMetrics, check_metrics
from fedbench.training.scores import BatchScore, Scores, batch_borders

ROWS, CLASSES = 700, 12
HERE = "odd_metrics"
"""The module of metrics of one's own, which is imported by the tests that use it: torchmetrics takes seconds."""


def data(missing: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and labels; `missing` is a class without rows, that is predicted all the same."""
    rng = np.random.default_rng(5)
    labels = rng.integers(CLASSES, size=ROWS)
    if missing is not None:
        labels[labels == missing] = 0
    outputs = rng.normal(size=(ROWS, CLASSES)) * 2
    outputs[np.arange(ROWS), labels] += 1.5
    return torch.from_numpy(outputs.astype(np.float32)), torch.from_numpy(labels)


def scored(metrics: EvaluationMetrics, outputs: torch.Tensor, labels: torch.Tensor, size: int = 96) -> list[BatchScore]:
    return [
        BatchScore(stop - start, 0.0, 0, states=metrics.states(outputs[start:stop], labels[start:stop]))
        for start, stop in batch_borders(len(labels), size)
    ]


def figures(*names: str, missing: int | None = None) -> dict[str, object]:
    metrics = EvaluationMetrics(names, CLASSES)
    return metrics.figures(scored(metrics, *data(missing)))


def calibration_error(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Guo et al. 2017, equation (5): sum over bins of |B| / n * |acc(B) - conf(B)|."""
    probabilities = outputs.double().softmax(1).numpy()
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    bins = np.minimum((confidence * 15).astype(int), 14)
    return float(sum(abs(correct[bins == b].sum() - confidence[bins == b].sum()) for b in range(15)) / len(labels))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("missing", [None, 7])
def test_metrics_are_those_of_scikit_learn(missing: int | None) -> None:
    outputs, labels = data(missing)
    predicted = outputs.argmax(1).numpy()
    mine = figures(*METRICS_OF_TASK["classification"], missing=missing)
    every = np.arange(CLASSES)
    assert mine["test_top5_accuracy"] == pytest.approx(
        top_k_accuracy_score(labels.numpy(), outputs.numpy(), k=5, labels=every), abs=1e-6
    )
    assert mine["test_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted), abs=1e-12)
    assert mine["test_macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-6)
    recalls = recall_score(labels, predicted, average=None, labels=every, zero_division=np.nan)
    assert mine["test_per_class_recall"] == pytest.approx(recalls, abs=1e-12, nan_ok=True)
    assert mine["test_expected_calibration_error"] == pytest.approx(calibration_error(outputs, labels), abs=1e-5)


def test_the_result_does_not_depend_on_who_scored_which_minibatch() -> None:
    """States come back from hosts in any order, through pickle, and are put together in the order of minibatches."""
    outputs, labels = data()
    names = (*METRICS_OF_TASK["classification"], f"{HERE}:Specificity", f"{HERE}:one_vs_rest")
    driver = EvaluationMetrics(names, CLASSES)
    expected = driver.figures(scored(EvaluationMetrics(names, CLASSES), outputs, labels))
    borders = batch_borders(ROWS, 96)
    for hosts in (1, 2, 5):
        of_host = [EvaluationMetrics(names, CLASSES) for _ in range(hosts)]
        order = random.Random(hosts).sample(range(len(borders)), len(borders))
        states = {}
        for place in order:
            rows = slice(*borders[place])
            states[place] = pickle.loads(pickle.dumps(of_host[place % hosts].states(outputs[rows], labels[rows])))
        scores = [BatchScore(1, 0.0, 0, states=states[place]) for place in range(len(borders))]
        assert driver.figures(scores) == expected


def test_splits_are_told_apart_and_own_metrics_keep_their_names() -> None:
    outputs, labels = data()
    metrics = EvaluationMetrics(("macro_f1", f"{HERE}:Specificity", f"{HERE}:one_vs_rest"), CLASSES)
    test = scored(metrics, outputs[:400], labels[:400])
    validation = [replace(score, split="validation") for score in scored(metrics, outputs[400:], labels[400:])]
    found = metrics.figures([*test, *validation])
    assert found["test_macro_f1"] == pytest.approx(
        f1_score(labels[:400], outputs[:400].argmax(1), average="macro"), abs=1e-6
    )
    assert found["validation_macro_f1"] != found["test_macro_f1"]
    own = dict(found[OWN_METRICS])
    assert list(own) == ["test/Specificity", "test/one_vs_rest", "validation/Specificity", "validation/one_vs_rest"]
    assert [len(values) for values in own.values()] == [1, CLASSES, 1, CLASSES]


def test_outputs_that_are_not_finite_have_no_metrics() -> None:
    metrics = EvaluationMetrics(("macro_f1",), CLASSES)
    scores = [*scored(metrics, *data()), BatchScore(10, float("nan"), 0)]
    assert metrics.figures(scores) == {}
    assert Scores.of(scores, metrics).figures == {}


def test_logits_between_0_and_1_are_not_taken_for_probabilities() -> None:
    rng = np.random.default_rng(0)
    outputs, labels = torch.from_numpy(rng.random((50, CLASSES), np.float32)), torch.arange(50) % CLASSES
    metrics = EvaluationMetrics(("expected_calibration_error",), CLASSES)
    mine = metrics.figures(scored(metrics, outputs, labels))["test_expected_calibration_error"]
    assert mine == pytest.approx(calibration_error(outputs, labels), abs=1e-5)


@pytest.mark.parametrize("classes", [10, 1000])
def test_states_are_a_fraction_of_the_outputs(classes: int) -> None:
    """Four counts a class for each metric of counts, and two numbers a row for the calibration error."""
    rng = np.random.default_rng(0)
    outputs = torch.from_numpy(rng.normal(size=(500, classes)).astype(np.float32))
    states = EvaluationMetrics(tuple(METRICS_OF_TASK["classification"]), classes).states(
        outputs, torch.arange(500) % classes
    )
    size = sum(
        array.nbytes
        for state in states
        for arrays in state.values()
        for array in (arrays if isinstance(arrays, tuple) else (arrays,))
    )
    assert size == 4 * 4 * 8 * classes + 2 * 4 * 500
    assert len(pickle.dumps(states)) < size + 6_000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{HERE}:MeanOfBatches", "its state value cannot be put together"),
        (f"{HERE}:SumOfMeans", "two minibatches have"),
        (f"{HERE}:NeedsScores", r"fails on probabilities \[B, 12\]: no boxes found"),
        (f"{HERE}:Complex", r"compute returned torch\.complex64 \[\]; real numbers, at least one, are needed"),
        (f"{HERE}:NoValues", r"compute returned torch\.float32 \[0\]; real numbers, at least one, are needed"),
        (f"{HERE}:several", "gave MetricCollection"),
        (f"{HERE}:not_a_metric", r"gave int; a torchmetrics\.Metric is needed"),
        (f"{HERE}:Nothing", "has no class or function Nothing"),
        ("no_such_module:Metric", "cannot be imported"),
    ],
)
def test_a_metric_that_would_give_another_result_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluation.metrics: {name}: .*{message}") as raised:
        check_metrics((name,), CLASSES)
    assert "\n" not in str(raised.value)


def test_top5_of_five_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="top5_accuracy: is 1 for every model of 5 classes"):
        check_metrics(("top5_accuracy",), 5)
    check_metrics(("accuracy", *METRICS_OF_TASK["classification"]), 6)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("macro_f2",), r"macro_f2: no such metric; did you mean 'macro_f1'\?"),
        (("macro_f1", "macro_f1"), "macro_f1: is called macro_f1, as macro_f1 is"),
        (("a:Mine", "b:Mine"), "b:Mine: is called Mine, as a:Mine is"),
        (("mine:macro_f1",), "as one of fedbench's own is"),
    ],
)
def test_names_are_known_and_told_apart(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_names(names)


def test_counts_need_no_deterministic_kernels_and_own_metrics_have_them() -> None:
    """Where PyTorch insists on them, as on a GPU, torchmetrics would count with a table of (rows, classes ** 2)."""
    metrics, noted = EvaluationMetrics(("accuracy", "macro_f1", f"{HERE}:Specificity"), CLASSES), []
    usual = metrics.states(*data())
    for metric in metrics._metrics.values():

        def update(*batch: torch.Tensor, act: Callable[..., None] = metric.update) -> None:
            noted.append(torch.are_deterministic_algorithms_enabled())
            act(*batch)

        metric.update = update
    torch.use_deterministic_algorithms(True)
    try:
        states = metrics.states(*data())
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert noted == [False, True]
    assert pickle.dumps(states) == pickle.dumps(usual)
