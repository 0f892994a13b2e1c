"""The figures of a run, read from rounds made by hand."""

import pyarrow as pa
import pytest

from fedbench.records.headline import first_round_reaching
from fedbench.records.metrics import METRICS, spent_to_reach
from fedbench.records.schema import ROUND_SCHEMA


def rounds(accuracies: list[float | None], **columns: list[object]) -> pa.Table:
    """Rounds with these columns; all other numbers are 0, and there are no lists."""
    rows = []
    for index, accuracy in enumerate(accuracies):
        row: dict[str, object] = {field.name: None if pa.types.is_nested(field.type) else 0 for field in ROUND_SCHEMA}
        row |= {"round": index, "phase": "full", "test_accuracy": accuracy, "virtual_seconds": None, "epochs": None}
        row["validation_accuracy"] = None
        rows.append(row | {name: values[index] for name, values in columns.items()})
    return pa.Table.from_pylist(rows, schema=ROUND_SCHEMA)


TABLE = rounds(
    [None, 0.5, None, 0.4, 0.8],
    uplink_bytes=[1, 2, 3, 4, 5],
    downlink_bytes=[10, 10, 10, 10, 10],
    paper_comm_gb=[0.1, 0.2, 0.4, 0.5, 0.7],
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rounds", [1, 2, 3, 4, 5]),
        ("best_accuracy", [None, 0.5, 0.5, 0.5, 0.8]),
        ("final_accuracy", [None, 0.5, 0.5, 0.4, 0.8]),
        ("best_round", [None, 2, 2, 2, 5]),
        ("best_validation_accuracy", [None] * 5),
        ("uplink_bytes", [1, 3, 6, 10, 15]),
        ("total_bytes", [11, 23, 36, 50, 65]),
        ("paper_comm_gb", [0.1, 0.2, 0.4, 0.5, 0.7]),
        ("virtual_seconds", [None] * 5),
        ("parameters", [None] * 5),
    ],
)
def test_the_course_of_a_figure_is_its_value_at_the_end_of_each_round(name: str, expected: list[float | None]) -> None:
    assert METRICS[name].by_round(TABLE) == expected


def test_with_a_validation_split_the_best_round_is_the_first_that_is_best_on_it() -> None:
    validated = rounds([0.9, 0.5, 0.7, 0.8, 0.6], validation_accuracy=[0.1, None, 0.4, 0.4, 0.3])
    assert METRICS["best_round"].by_round(validated) == [1, 1, 3, 3, 3]
    assert METRICS["best_accuracy"].by_round(validated) == [0.9, 0.9, 0.7, 0.7, 0.7]
    assert METRICS["best_validation_accuracy"].by_round(validated) == [0.1, 0.1, 0.4, 0.4, 0.4]
    assert METRICS["final_validation_accuracy"].by_round(validated) == [0.1, 0.1, 0.4, 0.4, 0.3]


def test_a_target_may_be_one_of_the_validation_accuracy() -> None:
    validated = rounds([0.9, 0.5, 0.7], validation_accuracy=[0.1, 0.2, 0.4])
    assert first_round_reaching(validated, 0.3) == 0
    assert first_round_reaching(validated, 0.3, "validation_accuracy") == 2
    assert spent_to_reach(validated, 0.15, ["rounds"], "validation_accuracy") == {"rounds": 2}


@pytest.mark.parametrize(("target", "index"), [(0.3, 1), (0.5, 1), (0.51, 4), (0.8, 4), (0.81, None)])
def test_a_target_is_reached_in_the_first_round_scored_at_it_or_above(target: float, index: int | None) -> None:
    assert first_round_reaching(TABLE, target) == index


def test_what_a_target_cost_includes_its_round_and_only_what_the_run_has() -> None:
    spent = spent_to_reach(TABLE, 0.5, ["rounds", "total_bytes", "virtual_seconds"])
    assert spent == {"rounds": 2, "total_bytes": 23}
    assert spent_to_reach(TABLE, 0.9, ["rounds"]) is None


def test_a_sum_of_two_entries_of_the_summary_needs_both() -> None:
    assert METRICS["total_bytes"].of_summary({"uplink_bytes": 2, "downlink_bytes": 3}) == 5
    assert METRICS["total_bytes"].of_summary({"uplink_bytes": 2}) is None
    assert METRICS["virtual_seconds"].of_summary({"virtual_seconds": None}) is None


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.grows])
def test_a_figure_that_grows_has_a_course(name: str) -> None:
    full = rounds([0.5, 0.6], virtual_seconds=[1.0, 2.0], epochs=[0.5, 1.0])
    first, second = METRICS[name].by_round(full)
    assert first is not None
    assert second is not None
    assert second >= first
