"""The metrics by which a model is evaluated beside the loss, by the names that `evaluation.metrics` knows."""

from collections.abc import Sequence

from fedbench.components.own_code import IMPORT_PATH
from fedbench.components.suggestions import did_you_mean
from fedbench.tasks.kinds import TASKS, TaskName

ALWAYS = "accuracy"
"""The metric that every evaluation of a classification has, and of the other tasks that count hits."""

PER_CLASS = "per_class_recall"
"""The metric that has one value for each class."""

EVALUATION_METRICS = {
    "top5_accuracy": "share of the rows whose label is among the five largest outputs",
    "balanced_accuracy": "recall, mean over the classes that have rows",
    "macro_f1": "F1 score, mean over the classes that have rows or predictions",
    PER_CLASS: "recall of each class",
    "expected_calibration_error": "expected calibration error, 15 bins of equal width",
}
"""The metrics of `evaluation.metrics`: {name: what it is, in a few words}."""

SCALARS = tuple(name for name in EVALUATION_METRICS if name != PER_CLASS)
"""The metrics that are one number."""

TASK_METRICS = {
    "perplexity": "exponential of the mean cross-entropy of the scored tokens",
    "mae": "mean absolute error, mean over the targets",
    "r2": "coefficient of determination, mean over the targets",
    "mean_iou": "intersection over union, mean over the classes that have pixels or predictions",
}
"""The metrics that evaluations of other tasks than classification have (`fedbench.tasks.kinds`), and what each
is; beside these `accuracy` and `macro_f1`."""

METRICS_OF_TASK: dict[TaskName, tuple[str, ...]] = {
    "classification": tuple(EVALUATION_METRICS),
    "multilabel": ("macro_f1",),
    "regression": ("mae", "r2"),
    "next_token": ("perplexity",),
    "segmentation": ("mean_iou",),
}
"""For each task those of fedbench's metrics that say something of it, beside accuracy."""


def metrics_of(task: TaskName, wanted: Sequence[str]) -> tuple[str, ...]:
    """The metrics of an evaluation beside loss and accuracy: those that the task always has, then those asked for.

    Args:
        task: the task.
        wanted: as in `evaluation.metrics`.
    """
    return tuple(dict.fromkeys(name for name in (*TASKS[task].metrics, *wanted) if name != ALWAYS))


def allowed_names(task: TaskName) -> str:
    """The metrics that `evaluation.metrics` takes for a task, for messages.

    >>> allowed_names("next_token")
    'accuracy, perplexity, or an import path'
    """
    known = (*((ALWAYS,) if TASKS[task].counts_hits else ()), *METRICS_OF_TASK[task])
    return f"{', '.join(known)}, or an import path"


SPLITS = ("test", "validation")

METRIC_COLUMNS = tuple(f"{split}_{name}" for split in SPLITS for name in SCALARS)
TASK_COLUMNS = tuple(f"{split}_{name}" for split in SPLITS for name in TASK_METRICS)
CLASS_COLUMNS = tuple(f"{split}_{PER_CLASS}" for split in SPLITS)
OWN_METRICS = "own_metrics"
"""Columns of `rounds.parquet`: of `evaluation.metrics` with one number each, of tasks with one number each, of
`evaluation.metrics` with a list of one number for each class, and of metrics of one's own."""


def check_names(names: Sequence[str]) -> None:
    """Check the value of `evaluation.metrics`.

    Raises:
        ValueError: a name that is neither known nor an import path, or that stands there twice.
    """
    shown: dict[str, str] = {}
    known = (ALWAYS, *EVALUATION_METRICS, *TASK_METRICS)
    for name in names:
        if name not in known and not IMPORT_PATH.fullmatch(name):
            near = did_you_mean(name, known)
            raise ValueError(f"{name}: no such metric{near}, or an import path pkg.mod:Class")
        short = short_name(name)
        if short in shown:
            raise ValueError(f"{name}: is called {short}, as {shown[short]} is; name each metric once")
        if ":" in name and short in known:
            raise ValueError(f"{name}: is called {short}, as one of fedbench's own is; give it another name")
        shown[short] = name


def short_name(name: str) -> str:
    """What a metric is called in records: its name, or of an import path what stands behind the colon.

    >>> short_name("mypkg.mod:Specificity")
    'Specificity'
    """
    return name.rpartition(":")[2]
