"""Metrics of an evaluation beside accuracy and loss, by torchmetrics.

An evaluation is spread over hosts minibatch by minibatch. Each host computes the state of a metric on a minibatch, and
the states of all minibatches are put together in the order of the minibatches, in one process: the result is the same,
to the last bit, whichever host scored which minibatch. A state is much smaller than the outputs that it comes from: a
few counts for each class, and of the calibration error two numbers for each row. torchmetrics is loaded only where
such metrics are asked for: that takes seconds.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbench.components.named_code import import_module
from fedbench.errors import ConfigError
from fedbench.tasks.kinds import TASKS, UNSCORED, TaskName
from fedbench.training.metric_names import (
    ALWAYS,
    EVALUATION_METRICS,
    METRICS_OF_TASK,
    OWN_METRICS,
    TASK_METRICS,
    allowed_names,
    short_name,
)
from fedbench.training.scores import BatchScore, MetricState

KEY = "evaluation.metrics"
TRIAL_ROWS = (24, 16)
"""Rows of the two minibatches on which a metric is tried out."""


class EvaluationMetrics:
    """The metrics of one experiment."""

    def __init__(
        self,
        names: Sequence[str],
        classes: int,
        device: torch.device | None = None,
        task: TaskName = "classification",
    ) -> None:
        """Make the metrics.

        Args:
            names: as `fedbench.training.metric_names.metrics_of` gives them.
            classes: number of classes; of other tasks, of outputs.
            device: of the outputs that they are computed on; None: the CPU.
            task: the task that is evaluated.

        Raises:
            ConfigError: a metric cannot be made.
        """
        wanted = [name for name in names if name != ALWAYS]
        self._task = task
        self._metrics = {name: make_metric(name, classes, task).to(device or "cpu") for name in wanted}

    def states(self, outputs: Tensor, labels: Tensor) -> tuple[MetricState, ...]:
        """The state of each metric on one minibatch.

        Args:
            outputs: float32, what the network puts out: [B, C], or as its task has it.
            labels: of the rows; int64 [B], or as its task has them.
        """
        from fedbench.tasks.metrics import judged, targets

        values, whole = judged(self._task, outputs), targets(self._task, labels)
        states = []
        for name, metric in self._metrics.items():
            with nullcontext() if ":" in name else _usual_kernels():
                states.append(_state(metric, values, whole))
        return tuple(states)

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
                if ":" in name:
                    own.append((f"{split}/{short_name(name)}", values))
                else:
                    figures[f"{split}_{name}"] = values[0] if len(values) == 1 else values
        return figures | ({OWN_METRICS: own} if own else {})


def check_metrics(
    names: Sequence[str], classes: int, task: TaskName = "classification", *, some_do_not_count: bool = False
) -> None:
    """Make the metrics and try each on two minibatches.

    Args:
        names: as in `evaluation.metrics`.
        classes: number of classes; of other tasks, of outputs.
        task: the task that they are to evaluate.
        some_do_not_count: whether some of the tokens or pixels that are scored do not count.

    Raises:
        ConfigError: a metric is of another task, cannot be made, fails, its states cannot be put together, or it is
            changed by tokens or pixels that do not count.
    """
    wanted = [name for name in names if name != ALWAYS]
    if ALWAYS in names and not TASKS[task].counts_hits:
        raise ConfigError(f"{KEY}: {ALWAYS}: says nothing of task={task}; allowed: {allowed_names(task)}")
    if not wanted:
        return
    from fedbench.tasks.metrics import judged

    outputs, labels = _trial_rows(task, classes)
    values, first = judged(task, outputs), TRIAL_ROWS[0]
    batches = (slice(0, first), slice(first, len(labels)))
    for name in wanted:
        metric = make_metric(name, classes, task)
        try:
            states = [_state(metric, values[batch], labels[batch]) for batch in batches]
            together = _values(metric, states)
            whole = _values(metric, [_state(metric, values, labels)])
        except ConfigError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            shape = ["B", *values.shape[1:]]
            what = "probabilities" if task in ("classification", "multilabel") else "outputs"
            shown = ", ".join(map(str, shape))
            raise ConfigError(f"{KEY}: {name}: fails on {what} [{shown}]: {reason}") from error
        if len(together) != len(whole) or not np.allclose(together, whole, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise ConfigError(
                f"{KEY}: {name}: two minibatches have {together[:3]} together, and {whole[:3]} as one; a metric whose "
                "states add up to that of all rows is needed"
            )
        if some_do_not_count and not _leaves_out(metric, values, labels, whole):
            unscored = UNSCORED["int64"]
            raise ConfigError(
                f"{KEY}: {name}: is not the same with {TASKS[task].places}s that do not count, which have the label "
                f"{unscored}, as without them; leave them out (of torchmetrics' own metrics ignore_index={unscored})"
            )


def _leaves_out(metric: Any, values: Tensor, labels: Tensor, expected: Sequence[float]) -> bool:
    """Whether a metric stays as expected on some rows where others join them of which no place counts."""
    more = torch.full_like(labels, UNSCORED["int64"])
    try:
        with_more = _values(metric, [_state(metric, torch.cat([values, values.flip(0)]), torch.cat([labels, more]))])
    except Exception:  # whatever a metric makes of a label that is no class
        return False
    return len(with_more) == len(expected) and np.allclose(with_more, expected, rtol=1e-4, atol=1e-6, equal_nan=True)


def _trial_rows(task: TaskName, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and labels of a few rows, drawn at random, on which a metric of a task is tried out."""
    rng = np.random.default_rng(0)
    rows = sum(TRIAL_ROWS)
    if task == "classification":
        labels = torch.from_numpy(rng.integers(classes, size=rows))
        outputs = torch.from_numpy(rng.normal(size=(rows, classes)))
        outputs[torch.arange(rows), labels] += 2.0
        return outputs, labels
    if task == "regression":
        targets = rng.normal(size=(rows, classes))
        return torch.from_numpy(targets + 0.1 * rng.normal(size=targets.shape)), torch.from_numpy(targets)
    if task == "multilabel":
        return torch.from_numpy(rng.normal(size=(rows, classes))), torch.from_numpy(
            rng.integers(2, size=(rows, classes))
        )
    if task == "next_token":
        return torch.from_numpy(rng.normal(size=(rows, 3, classes))), torch.from_numpy(
            rng.integers(classes, size=(rows, 3))
        )
    return torch.from_numpy(rng.normal(size=(rows, classes, 2, 2))), torch.from_numpy(
        rng.integers(classes, size=(rows, 2, 2))
    )


def own_directions(names: Sequence[str], classes: int, task: TaskName = "classification") -> dict[str, str]:
    """{name in records: "higher" or "lower"}, which values are better, of the metrics of one's own that say so.

    A metric says so by `higher_is_better`, as those of torchmetrics do.

    Args:
        names: as in `evaluation.metrics`.
        classes: number of classes; of other tasks, of outputs.
        task: the task that they evaluate.
    """
    own = {name: make_metric(name, classes, task).higher_is_better for name in names if ":" in name}
    return {short_name(name): "higher" if more else "lower" for name, more in own.items() if more is not None}


def make_metric(name: str, classes: int, task: TaskName = "classification") -> Any:
    """A torchmetrics metric.

    Args:
        name: one of fedbench's, or an import path of a subclass of `torchmetrics.Metric`, or of a function that makes
            a metric. It is called with the number of classes.
        classes: number of classes; of other tasks, of outputs.
        task: the task that it is to evaluate.

    Raises:
        ConfigError: it is of another task, cannot be made, or is none whose states can be put together.
    """
    from fedbench.training.classification_metrics import STOCK, fault_of

    if name in EVALUATION_METRICS or name in TASK_METRICS:
        if name not in METRICS_OF_TASK[task]:
            raise ConfigError(f"{KEY}: {name}: says nothing of task={task}; allowed: {allowed_names(task)}")
        if task != "classification":
            from fedbench.tasks import metrics as task_metrics

            return task_metrics.STOCK[task][name](classes)
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
        raise ConfigError(f"{KEY}: {name}: cannot be made for {classes} {TASKS[task].outputs}: {reason}") from error
    if (problem := fault_of(metric)) is not None:
        raise ConfigError(f"{KEY}: {name}: {problem}")
    return metric


@contextmanager
def _usual_kernels() -> Iterator[None]:
    """Context in which PyTorch does not insist on deterministic algorithms, for sums that are the same in any order.

    Where it insists, as on a GPU, torchmetrics counts with a table of (rows, classes ** 2), which may take gigabytes.
    """
    insists, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # `torch.use_deterministic_algorithms` would import PyTorch's compiler.
    torch._C._set_deterministic_algorithms(False, warn_only=False)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(insists, warn_only=warns)


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
