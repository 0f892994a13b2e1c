"""Suites with figures that are made up, as if their runs had been run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from fedbench.suites.expand import expand
from fedbench.suites.file import SuiteFile
from fedbench.suites.plan import Plan
from fedbench.suites.results import Outcome, Outcomes

Parts = list[dict[str, object]]
"""Rows or columns as a suite file has them."""

METHODS: Parts = [
    {"name": "FedAvg", "set": {"algorithm": "fedavg"}},
    {"name": "FedProx", "set": {"algorithm": "fedprox", "algorithm.mu": 0.1}},
    {"name": "FedMR", "set": {"algorithm": "fedmr"}},
]
TASKS: Parts = [
    {"name": f"alpha={alpha}", "set": {"data.partition": {"name": "dirichlet", "alpha": alpha}}}
    for alpha in (0.1, 0.5, 1.0)
]


def plan_of(rows: Parts, columns: Parts, seeds: tuple[int, ...] = (0, 1, 2), baseline: str = "") -> Plan:
    """The plan of a suite on digits, which shows best accuracies where a column does not say otherwise."""
    given = {
        "title": "Small",
        "corner": "method",
        "base": {"rounds": 2, "data": {"dataset": "digits"}},
        "seeds": seeds,
        "rows": rows,
        "columns": [{"measure": "best_accuracy", **column} for column in columns],
        "baseline": baseline,
    }
    return expand("small", SuiteFile.model_validate(given))


def outcomes_of(
    plan: Plan, *, skipped: tuple[tuple[str, str], ...] = (), noise: Mapping[str, Sequence[float]] | None = None
) -> Outcomes:
    """Outcomes in which a row is the better the further down it stands.

    Args:
        plan: with one round to be read a run.
        skipped: (row, column) of cells that were not run.
        noise: {row: what is added to its accuracy, by seed}; None: a thousandth a seed for all.
    """
    outcomes = Outcomes(plan)
    for (row, column), cell in plan.cells.items():
        if (row, column) in skipped:
            continue
        for seed, digest in cell.runs.items():
            added = 0.001 * seed if noise is None else noise[row][seed]
            accuracy = 0.5 + 0.1 * plan.rows.index(row) + added
            history = pa.table(
                {"test_accuracy": [accuracy], "validation_accuracy": pa.array([None], pa.float64()), "round": [0]}
            )
            outcomes.add(digest, Outcome("finished", Path("nowhere")), history)
    return outcomes
