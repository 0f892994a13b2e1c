"""The metrics of `evaluation.metrics` by the names that MLflow's pages show."""

import math

from fedbench.records.schema import RoundRecord
from fedbench.tracking.store import plain_name
from fedbench.training.metric_names import CLASS_COLUMNS, METRIC_COLUMNS, TASK_COLUMNS


def further_metrics(record: RoundRecord) -> dict[str, float | None]:
    """The metrics of `evaluation.metrics` and of the task of one round, such as "test/macro_f1".

    Of a metric with several values each has its number behind the name. What is not a number is None.
    """
    columns = (*METRIC_COLUMNS, *TASK_COLUMNS)
    metrics: dict[str, float | None] = {_name(column): getattr(record, column) for column in columns}
    for column in CLASS_COLUMNS:
        recalls = getattr(record, column) or ()
        metrics |= {f"{_name(column)}/{label}": recall for label, recall in enumerate(recalls)}
    for name, values in record.own_metrics or ():
        numbered = {f"{plain_name(name)}/{number}": value for number, value in enumerate(values)}
        metrics |= {plain_name(name): values[0]} if len(values) == 1 else numbered
    return {name: None if value is None or math.isnan(value) else value for name, value in metrics.items()}


def _name(column: str) -> str:
    """ "test_macro_f1" as "test/macro_f1"."""
    return column.replace("_", "/", 1)
