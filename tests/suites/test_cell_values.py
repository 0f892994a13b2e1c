"""What a cell reads off a run's rounds, on rounds made by hand."""

import pyarrow as pa
import pytest

from fedbench.records.headline import with_task
from fedbench.records.schema import ROUND_SCHEMA
from fedbench.suites.cell_values import HEADLINES, QUANTITIES, Absence, Measure, Reading, read

JUMPS = tuple(name for name in QUANTITIES if "_jump_" in name)

OF_LISTS = tuple(name for name in QUANTITIES if name.endswith("worst_class_recall"))

CLIENTS_OF_OTHER_TASKS = tuple(f"client_{name}_" for name in HEADLINES if name != "accuracy")
OF_OTHER_TASKS = tuple(name for name in QUANTITIES if name.startswith(CLIENTS_OF_OTHER_TASKS))

ABSENT = ("epochs", "best_validation_accuracy", "final_validation_accuracy", *JUMPS, *OF_LISTS, *OF_OTHER_TASKS)
"""Quantities that these rounds do not have."""

SCORES = [0.5, None, 0.8, 0.7, 0.9]


def history() -> pa.Table:
    """Five rounds; round r sends (r + 1) MB up and 10 MB down."""
    rows = []
    for number, score in enumerate(SCORES):
        row: dict[str, object] = {field.name: None if pa.types.is_nested(field.type) else 0 for field in ROUND_SCHEMA}
        row |= {
            "round": number,
            "phase": "full",
            "test_accuracy": score,
            "uplink_bytes": (number + 1) * 1_000_000,
            "downlink_bytes": 10_000_000,
            "client_flops": 2 * 10**9,
            "paper_comm_gb": 0.5 * (number + 1),
            "virtual_seconds": 3.0 * (number + 1),
            "train_loss": 1 / (number + 1),
            "epochs": None,
            "validation_accuracy": None,
        }
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=ROUND_SCHEMA)


@pytest.mark.parametrize(
    ("value", "through", "expected"),
    [
        ("best_accuracy", None, 90),
        ("best_accuracy", 4, 80),
        ("best_accuracy", 2, 50),
        ("final_accuracy", 4, 70),
        ("final_accuracy", 2, 50),  # round 2 was not evaluated
        ("train_loss", 2, 0.5),
        ("rounds", None, 5),
        ("uplink_mb", None, 15),
        ("uplink_mb", 2, 3),
        ("downlink_mb", 2, 20),
        ("sent_mb", 2, 23),
        ("gflop", 3, 6),
        ("tflop", None, 0.01),
        ("paper_comm_gb", 4, 2.0),
        ("virtual_seconds", 4, 12.0),
    ],
)
def test_a_quantity_is_that_at_the_end_of_the_rounds_looked_at(value: str, through: int, expected: float) -> None:
    assert read(Measure(value=value), history(), through).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("target", "uplink"), [(50, 1), (60, 1 + 2 + 3), (80, 1 + 2 + 3), (81, 1 + 2 + 3 + 4 + 5), (90, 15)]
)
def test_a_target_is_read_where_it_is_first_reached(target: float, uplink: float) -> None:
    assert read(Measure(value="uplink_mb", target=target), history(), None).value == pytest.approx(uplink)


@pytest.mark.parametrize(
    ("measure", "through", "absence", "words"),
    [
        (Measure(value="uplink_mb", target=95), None, Absence.NOT_REACHED, "not reached"),
        (Measure(value="uplink_mb", target=85), 4, Absence.NOT_REACHED, "not reached"),
        (Measure(value="best_accuracy"), 0, Absence.NO_SUCH_ROUNDS, "no such rounds"),
        (Measure(value="best_accuracy"), 9, Absence.TOO_SHORT, "the run has 5 of 9 rounds"),
        (Measure(value="epochs"), None, Absence.NOT_RECORDED, "not recorded"),
    ],
)
def test_a_missing_value_has_its_reason_as_a_field_and_in_words(
    measure: Measure, through: int | None, absence: Absence, words: str
) -> None:
    assert read(measure, history(), through) == Reading(None, absence, words)


def test_a_figure_of_another_task_is_not_said_to_be_unrecorded() -> None:
    rows = [row | {"test_accuracy": None, "test_mae": 0.5} for row in history().to_pylist()]
    rounds = with_task(pa.Table.from_pylist(rows, schema=ROUND_SCHEMA), "regression")
    expected = "the figure is of accuracy, the run is judged by MAE"
    assert read(Measure(value="best_accuracy"), rounds, None) == Reading.absent(Absence.NOT_DEFINED, expected)
    target = Measure(value="rounds", target=50, metric="accuracy")
    expected = "the target is of accuracy, the run is judged by MAE"
    assert read(target, rounds, None) == Reading.absent(Absence.NOT_DEFINED, expected)


def test_every_quantity_can_be_read_and_has_a_heading() -> None:
    for name, quantity in QUANTITIES.items():
        reading = read(Measure(value=name), history(), None)
        assert (reading.value is None) == (name in ABSENT), name
        assert Measure(value=name).heading("x").startswith("x")
        assert quantity.metric.meaning
    assert Measure(value="uplink_mb", target=80).heading("sent up") == "sent up to 80 % (MB)"
