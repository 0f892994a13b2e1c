"""What a suite comes to: runs, and cells that read them."""

import re
from dataclasses import dataclass
from functools import cached_property

from fedbench.config.experiment import ExperimentConfig
from fedbench.suites.analysis_part import AnalysisPart
from fedbench.suites.cell_values import Measure
from fedbench.suites.equal_spending import Spending
from fedbench.suites.file import Figure, SuiteFile


@dataclass(frozen=True)
class Run:
    """One run of a suite.

    Attributes:
        label: what it is, for people: "cifar10 FedAvg FNU".
        config: the complete configuration.
        row, column: the cell that it was first needed for.
    """

    label: str
    config: ExperimentConfig
    row: str
    column: str

    @cached_property
    def digest(self) -> str:
        """Identifies the run: its configuration and the parts of one's own, as they were when this was first asked."""
        return self.config.digest()

    @property
    def title(self) -> str:
        """What the run is, with its seed, for people."""
        return f"{self.label} seed {self.config.seed}"

    @property
    def directory_name(self) -> str:
        """The name of its run directory, by which a person tells it from the others."""
        return f"{slug(self.label)}-seed{self.config.seed}-{self.digest[:8]}"


@dataclass(frozen=True)
class SuiteCell:
    """One cell of the table.

    Attributes:
        row, column: the names of its row and column.
        measure: what the cell shows.
        runs: {seed: digest of the run that is read}.
        through: the number of rounds that are read; None: all.
        published: the printed figure; None: there is none.
        note: a footnote.
        equal: what is spent until where the runs are read, in place of `through`; None: that counts.
    """

    row: str
    column: str
    measure: Measure
    runs: dict[int, str]
    through: int | None
    published: Figure | None = None
    note: str = ""
    equal: Spending | None = None


@dataclass(frozen=True)
class PlannedAnalysis:
    """An analysis that is performed over the runs of a suite, once for each seed.

    Attributes:
        part: the analysis as the file has it.
        by_seed: {seed: {digest of a run: what its model is called}}, in the order in which they are shown.
        only_seed: the seed of a suite that has no other by default; None: it has several.
    """

    part: AnalysisPart
    by_seed: dict[int, dict[str, str]]
    only_seed: int | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds with which it is performed."""
        return tuple(self.by_seed)

    def runs(self, seed: int) -> dict[str, str]:
        """{digest of a run: what its model is called} with one seed."""
        return self.by_seed[seed]

    def folder(self, seed: int) -> str:
        """The name of its folder for one seed, the same whichever other seeds are asked for."""
        return self.part.name if seed == self.only_seed else f"{self.part.name}-seed{seed}"


@dataclass(frozen=True)
class Plan:
    """What a suite comes to, for some seeds, rows and columns, at some scale.

    Attributes:
        name: the name of the suite.
        file: the suite as it was written.
        seeds: the seeds that each cell is run with.
        rows, columns: the names of the table's rows and columns.
        cells: {(row, column): cell}.
        runs: {digest: run}, in the order in which they are run: all cells with the first seed, then with the next.
        scale: the share of rounds and data that is run.
        scaling: what that means for the runs, in words.
        overrides: the overrides of the command line.
        only: the cells that were asked for, as ROW/COLUMN; "": all.
        analyses: those whose cells are all among `cells`.
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
    analyses: tuple[PlannedAnalysis, ...] = ()

    @property
    def label(self) -> str:
        """What must be said wherever the suite is shown; "" at full scale."""
        return "" if self.scale == 1 else f"scaled to {self.scale:g}"

    @property
    def title(self) -> str:
        """The suite's name, and its scale."""
        return f"{self.name} ({self.label})" if self.label else self.name


def slug(text: str) -> str:
    """A file name for a text: "cifar10 C=1" becomes "cifar10-C1"."""
    return re.sub(r"-+", "-", re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace("=", ""))).strip("-.") or "run"
