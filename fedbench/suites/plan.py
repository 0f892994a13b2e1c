"""What a suite comes to: runs, and cells that read them."""

import re
from dataclasses import dataclass

from fedbench.config.experiment import ExperimentConfig
from fedbench.suites.cell_values import Measure
from fedbench.suites.file import Figure, SuiteFile


@dataclass(frozen=True)
class Run:
    """One run of a suite.

    Attributes:
        label: what it is, for people: "cifar10 FedAvg FNU".
        config: complete.
        row, column: the cell that it was first needed for.
    """

    label: str
    config: ExperimentConfig
    row: str
    column: str

    @property
    def digest(self) -> str:
        """By which it is known again."""
        return self.config.digest()

    @property
    def title(self) -> str:
        """With its seed."""
        return f"{self.label} seed {self.config.seed}"

    @property
    def directory_name(self) -> str:
        """That a person tells from the others'."""
        return f"{slug(self.label)}-seed{self.config.seed}-{self.digest[:8]}"


@dataclass(frozen=True)
class SuiteCell:
    """One cell of the table.

    Attributes:
        row, column: their names.
        measure: what it shows.
        runs: {seed: digest of the run that is read}.
        through: up to this round of it; None: its end.
        published: the printed figure.
        note: a footnote.
    """

    row: str
    column: str
    measure: Measure
    runs: dict[int, str]
    through: int | None
    published: Figure | None = None
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What a suite comes to, for some seeds, rows and columns, at some scale.

    Attributes:
        name: of the suite.
        file: as it was written.
        seeds: that each cell is run with.
        rows, columns: the names of the table.
        cells: by (row, column).
        runs: by digest, in the order in which they are run: all cells with the first seed, then with the next.
        scale: of rounds and data.
        scaling: what that means for the runs, in words.
        overrides: of the command line.
        only: which cells were asked for; "": all.
    """

    name: str
    file: SuiteFile
    seeds: tuple[int, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[str, str], SuiteCell]
    runs: dict[str, Run]
    scale: float = 1.0
    scaling: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    only: str = ""

    @property
    def label(self) -> str:
        """What must be said wherever the suite is shown; "" at full scale."""
        return "" if self.scale == 1 else f"scaled to {self.scale:g}"

    @property
    def title(self) -> str:
        """The suite's name, and its scale."""
        return f"{self.name} ({self.label})" if self.label else self.name


def slug(text: str) -> str:
    """As a file name takes it: "cifar10 C=1" becomes "cifar10-C1"."""
    return re.sub(r"-+", "-", re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace("=", ""))).strip("-.") or "run"
