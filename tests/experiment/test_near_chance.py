"""Runs that have learned next to nothing, or nothing of some clients, are warned of."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fedbench.data.base import FederatedData, Split
from fedbench.experiment.summary import near_chance, never_accepted

ROWS = Split(np.zeros((4, 3), np.int32), np.arange(4))
DATA = FederatedData("words", "text", ROWS, ROWS, tuple("abcd"), None, None, 50, 0, "by hand", "0")


def remarks(task: str, status: str = "finished", **figures: Any) -> list[str]:
    return list(near_chance(DATA, {"status": status, "task": task} | figures))


@pytest.mark.parametrize(
    ("task", "poor", "good", "remark"),
    [
        (
            "classification",
            {"best_accuracy": 0.3},
            {"best_accuracy": 0.4},
            r"accuracy, 30\.0%, is close to chance \(25",
        ),
        ("next_token", {"best_perplexity": 50.0}, {"best_perplexity": 49.0}, "perplexity, 50, is no better than guess"),
        ("regression", {"best_mae": 2.0, "best_r2": -0.25}, {"best_mae": 2.0, "best_r2": 0.1}, r"MAE, 2, .*R2 -0\.25"),
    ],
)
def test_a_model_that_guesses_is_warned_of(
    task: str, poor: dict[str, float], good: dict[str, float], remark: str
) -> None:
    (line,) = remarks(task, **poor)
    assert re.search(remark, line)
    assert line.endswith(": look at lr and rounds")
    assert remarks(task, **good) == remarks(task, "failed", **poor) == remarks(task) == []


@pytest.mark.parametrize("task", ["segmentation", "multilabel"])
def test_of_tasks_without_a_chance_to_compare_with_nothing_is_said(task: str) -> None:
    assert remarks(task, best_mean_iou=0.0, best_macro_f1=0.0) == []


def test_clients_whose_every_update_was_rejected_are_named() -> None:
    statuses = {0: ["ok", "rejected"], 1: ["rejected", "rejected"], 2: ["rejected", "dropped"], 3: ["rejected"]}
    rows = [{"client": client, "status": status} for client, seen in statuses.items() for status in seen]
    work, summary = pa.Table.from_pylist(rows), {"status": "finished", "rejected_clients": 5}
    (line,) = never_accepted(work, summary)
    assert line.startswith("every update of 2 clients (1, 3) was rejected as not finite or too large: the model has")
    (line,) = never_accepted(work.filter(pc.less(work["client"], 3)), summary)
    assert line.startswith("every update of client 1 was rejected")
    assert list(never_accepted(work, summary | {"status": "interrupted"})) == []
    assert list(never_accepted(work.slice(0, 2), summary)) == []
