"""Metrics of an evaluation beside accuracy and loss, by torchmetrics.

An evaluation is spread over hosts minibatch by minibatch. Each host computes the state of a metric on a minibatch, and
the states of all minibatches are put together in the order of the minibatches, in one process: the result is the same,
to the last bit, whichever host scored which minibatch. A state is much smaller than the outputs that it comes from: a
few counts for each class, and of the calibration error two numbers for each row. torchmetrics is loaded only where
such metrics are asked for: that takes seconds.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbench.components.named_code import import_module
from fedbench.errors import ConfigError
from fedbench.training.metric_names import ALWAYS, EVALUATION_METRICS, OWN_METRICS, short_name
from fedbench.training.scores import BatchScore, MetricState

KEY = "evaluation.metrics"
TRIAL_ROWS = (24, 16)
"""Rows of the two minibatches on which a metric is tried out."""


class EvaluationMetrics:
    """The metrics of one experiment."""

    def __init__(self, names: Sequence[str], classes: int, device: torch.device | None = None) -> None:
        """Make the metrics.

        Args:
            names: as in `evaluation.metrics`.
            classes: number of classes.
            device: of the outputs that they are computed on; None: the CPU.

        Raises:
            ConfigError: a metric cannot be made.
        """
        wanted = [name for name in names if name != ALWAYS]
        self._metrics = {name: make_metric(name, classes).to(device or "cpu") for name in wanted}

    def states(self, outputs: Tensor, labels: Tensor) -> tuple[MetricState, ...]:
        """The state of each metric on one minibatch.

        Args:
            outputs: float32 [B, C], what the network puts out.
            labels: int64 [B].
        """
        # In float64, so that outputs that differ have probabilities that differ.
        probabilities = outputs.double().softmax(1)
        return tuple(_state(metric, probabilities, labels) for metric in self._metrics.values())

    def figures(self, scores: Sequence[BatchScore]) -> dict[str, Any]:
        """The metrics of each split that was scored, by the columns of `rounds.parquet`.

        Args:
            scores: of all minibatches, in their order. Where one has no states nothing is known of its split.
        """
        figures: dict[str, Any] = {}
        own: list[tuple[str, list[float]]] = []
        for split in dict.fromkeys(score.split for score in scores):
            batches = [score.states for score in scores if score.split == split]
            if not all(batches):
                continue
            for place, (name, metric) in enumerate(self._metrics.items()):
                values = _values(metric, [states[place] for states in batches])
                if name not in EVALUATION_METRICS:
                    own.append((f"{split}/{short_name(name)}", values))
                else:
                    figures[f"{split}_{name}"] = values[0] if len(values) == 1 else values
        return figures | ({OWN_METRICS: own} if own else {})


def check_metrics(names: Sequence[str], classes: int) -> None:
    """Make the metrics and try each on two minibatches.

    Raises:
        ConfigError: a metric cannot be made, fails, or its states cannot be put together.
    """
    rng = np.random.default_rng(0)
    rows, first = sum(TRIAL_ROWS), TRIAL_ROWS[0]
    labels = torch.from_numpy(rng.integers(classes, size=rows))
    outputs = torch.from_numpy(rng.normal(size=(rows, classes)))
    outputs[torch.arange(rows), labels] += 2.0
    batches = (slice(0, first), slice(first, rows))
    for name in names:
        if name == ALWAYS:
            continue
        metric = make_metric(name, classes)
        try:
            states = [_state(metric, outputs[batch].softmax(1), labels[batch]) for batch in batches]
            together = _values(metric, states)
            whole = _values(metric, [_state(metric, outputs.softmax(1), labels)])
        except ConfigError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"{KEY}: {name}: fails on probabilities [B, {classes}]: {reason}") from error
        if len(together) != len(whole) or not np.allclose(together, whole, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise ConfigError(
                f"{KEY}: {name}: two minibatches have {together[:3]} together, and {whole[:3]} as one; a metric whose "
                "states add up to that of all rows is needed"
            )


def make_metric(name: str, classes: int) -> Any:
    """A torchmetrics metric.

    Args:
        name: one of fedbench's, or an import path of a subclass of `torchmetrics.Metric`, or of a function that makes
            a metric. It is called with the number of classes.
        classes: number of classes.

    Raises:
        ConfigError: it cannot be made, or is none whose states can be put together.
    """
    from fedbench.training.classification_metrics import STOCK, fault_of

    if name in STOCK:
        if (problem := STOCK[name].refusal(classes)) is not None:
            raise ConfigError(f"{KEY}: {name}: {problem}")
        return STOCK[name].make(classes)
    module_name, _, attribute = name.partition(":")
    try:
        maker = getattr(import_module(module_name, name), attribute, None)
    except ImportError as error:
        raise ConfigError(f"{KEY}: {name}: cannot be imported: {error}") from error
    if not callable(maker):
        raise ConfigError(f"{KEY}: {name}: {module_name} has no class or function {attribute}")
    try:
        metric = maker(classes)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{KEY}: {name}: cannot be made for {classes} classes: {reason}") from error
    if (problem := fault_of(metric)) is not None:
        raise ConfigError(f"{KEY}: {name}: {problem}")
    return metric


def _state(metric: Any, probabilities: Tensor, labels: Tensor) -> MetricState:
    """The state of a metric on one minibatch; afterwards the metric is as it was made."""
    metric.reset()
    metric.update(probabilities, labels)
    state = {name: _plain(getattr(metric, name)) for name in metric._defaults}
    metric.reset()
    return state


def _plain(value: Tensor | list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy().copy()
    return tuple(part.detach().cpu().numpy().copy() for part in value)


def _values(metric: Any, states: Sequence[MetricState]) -> list[float]:
    """What a metric comes to over several minibatches, whose states are put together in the order given."""
    from fedbench.training.classification_metrics import MERGES

    metric.reset()
    device = metric.device
    for name, reduction in metric._reductions.items():
        parts = [state[name] for state in states]
        if isinstance(parts[0], tuple):
            merged: Any = [torch.tensor(array, device=device) for part in parts for array in part]
        else:
            merged = torch.tensor(parts[0], device=device)
            for part in parts[1:]:
                merged = MERGES[reduction](merged, torch.tensor(part, device=device))
        setattr(metric, name, merged)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was called before the ``update`` method.*")
        result = metric.compute()
    metric.reset()
    tensor = torch.as_tensor(result).detach()
    if tensor.is_complex() or not tensor.numel():
        raise TypeError(f"compute returned {tensor.dtype} {list(tensor.shape)}; real numbers, at least one, are needed")
    values: list[float] = tensor.double().cpu().reshape(-1).tolist()
    return values
