"""Tables with many columns on a narrow terminal: parted, no figure torn, nothing lost."""

from collections.abc import Callable

import pytest
from rich.console import Console

from fedbench.cli import table_terminal
from fedbench.tables.numbers import Number
from fedbench.tables.seed_statistics import Spread
from fedbench.tables.table import Cell, Table

Printed = Callable[[Table, int], list[str]]

FIGURES = {(row, column): 10.0 * row + column + 0.25 for row in range(2) for column in range(8)}


def table(labels: tuple[str, ...] = ("FedAvg", "FedPart")) -> Table:
    rows = tuple(
        (label, tuple(Cell(spread=Spread.of([FIGURES[row, column]] * 2), number=Number(2)) for column in range(8)))
        for row, label in enumerate(labels)
    )
    return Table("Many columns", "method", tuple(f"figure {column} (MB)" for column in range(8)), rows)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """`printed(table, width)` gives the lines."""

    def lines(shown: Table, width: int) -> list[str]:
        monkeypatch.setattr(table_terminal, "results", Console(width=width))
        table_terminal.print_table(shown)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return lines


@pytest.mark.parametrize("width", [40, 60, 80])
def test_every_figure_stands_whole_beside_the_name_of_its_row(printed: Printed, width: int) -> None:
    lines = printed(table(), width)
    assert sum("Many columns" in line for line in lines) == 1
    for row, label in enumerate(("FedAvg", "FedPart")):
        shown = " ".join(line for line in lines if line.startswith(label))
        assert [float(text) for text in shown.replace("± 0.00", "").replace(label, "").split()] == [
            FIGURES[row, column] for column in range(8)
        ]
    figures = [line for line in lines if line.startswith(("method", "FedAvg", "FedPart", "Many"))]
    assert max(map(len, figures)) <= width
    assert sum(line.startswith("FedAvg") for line in lines) > 1


def test_a_table_that_fits_is_one(printed: Printed) -> None:
    lines = printed(table(), 200)
    assert sum(line.startswith("FedAvg") for line in lines) == 1


def test_long_names_of_rows_leave_half_of_the_width_to_the_figures(printed: Printed) -> None:
    lines = printed(table(("a method with a very long name that nobody would cut", "b")), 50)
    assert max(map(len, (line for line in lines if "±" in line))) <= 50
    assert sum("10.25 ± 0.00" in line for line in lines) == 1
