"""Suites of runs that take a fraction of a second, and the means to look at what they left."""

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from fedbench.cli.suite import make_plan
from fedbench.cli.suite_progress import SuiteProgress
from fedbench.suites.plan import Plan
from fedbench.suites.results import Outcomes
from fedbench.suites.run import run_suite

WITHOUT = ("runtime.executor=inline", "tracking.enabled=false")
"""Neither Ray nor MLflow."""

BASE = {
    "rounds": "auto",
    "data": {"dataset": "digits", "clients": 3, "samples_per_client": 40},
    "model": {"name": "cnn-bn", "width": 4},
    "local": {"epochs": 1, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.02}},
    "schedule": {
        "name": "sequential",
        "warmup_rounds": 1,
        "cycles": 2,
        "rounds_per_group": 1,
        "full_rounds_between_cycles": 1,
    },
}

TINY = {
    "title": "A tiny table",
    "seeds": [0, 1],
    "corner": "cycle",
    "base": BASE,
    "rows": [{"name": "C=1", "until": {"cycle": 1}}, {"name": "C=2", "until": {"cycle": 2}}],
    "columns": [
        {"name": "FNU", "measure": "best_accuracy", "full_updates": True},
        {"name": "FedPart", "measure": "best_accuracy", "full_updates": False},
        {"name": "Comm.", "measure": "paper_comm_gb", "full_updates": False},
    ],
    "published": {"source": "nobody, Table 0", "values": {"C=1": {"FNU": "50.0 +- 1.0", "FedPart": 51}}},
    "notes": ["For tests | only"],
}
"""Two runs a seed, of 10 rounds each, read at the end of both cycles (rounds 5 and 10)."""


def write_suite(folder: Path, suite: dict[str, object] | None = None, name: str = "tiny", **changes: object) -> str:
    """Write a suite file.

    Returns:
        Its path, as the command line takes it.
    """
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**(TINY if suite is None else suite), **changes}, sort_keys=False))
    return str(path)


def plan_of(path: str, *overrides: str, **options: object) -> Plan:
    """The plan of a suite file, without Ray and MLflow."""
    return make_plan([path, *WITHOUT, *overrides], **options)  # type: ignore[arg-type]


def run(plan: Plan) -> tuple[Outcomes, list[str]]:
    """Run it.

    Returns:
        What became of it, and the lines that a person sees; without the remark that some runs hardly learn anything.
    """
    seen = io.StringIO()
    with SuiteProgress(Console(file=seen, width=200), len(plan.runs)) as progress:
        outcomes = run_suite(plan, progress)
    return outcomes, [line for line in seen.getvalue().splitlines() if "is close to chance" not in line]


def directories(folder: Path = Path("runs/suites/tiny")) -> dict[str, int]:
    """The run directories of a suite, each with the time at which its summary was written, ns."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}


def values(outcomes: Outcomes, row: str, column: str) -> Sequence[float]:
    """A cell's values over the seeds."""
    cell = next(cell for cell in outcomes.to_mapping()["cells"] if (cell["row"], cell["column"]) == (row, column))
    return list(cell["values"].values())


@dataclass(frozen=True)
class RecordedSuite:
    """The tiny suite after its four runs.

    Attributes:
        folder: the working directory, with `runs/suites/tiny`.
        outcomes: what became of the runs.
        lines: what a person saw of them.
        source: the working directory in which the suite was run, where it is another one.
    """

    folder: Path
    outcomes: Outcomes
    lines: list[str]
    source: Path | None = None

    def take(self, *patterns: str) -> str:
        """Copy run directories, as "FNU-seed0", so that the suite finds them recorded.

        Returns:
            The path of the suite's file.
        """
        assert self.source is not None
        place = Path("runs/suites/tiny")
        for pattern in patterns:
            matching = list((self.source / place).glob(f"{pattern}-*"))
            assert matching, pattern
            for path in matching:
                shutil.copytree(path, self.folder / place / path.name)
        return write_suite(self.folder)
