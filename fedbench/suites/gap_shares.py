"""The shares of the gap between local and centralised training in a suite's cells."""

from collections.abc import Callable, Mapping

from fedbench.config.identity import problem_settings
from fedbench.suites.plan import Plan, SuiteCell
from fedbench.tables.gap import GapShare, shares_within

ACCURACIES = ("best_accuracy", "final_accuracy", "best_validation_accuracy", "final_validation_accuracy")
"""The quantities of which a share of the gap is told."""

Place = tuple[str, str]
"""Row and column of a cell."""


def gap_shares(
    plan: Plan,
    values: Callable[[SuiteCell], Mapping[int, float]],
    rounds: Callable[[SuiteCell], int | None],
) -> dict[Place, GapShare]:
    """The shares of all cells that show an accuracy and have both references beside them, in the same problem.

    Args:
        plan: the suite.
        values: {seed: value} of a cell.
        rounds: the number of rounds that a cell is read off; None while nothing was run.
    """
    problems: dict[tuple[object, ...], dict[Place, str]] = {}
    for place, cell in plan.cells.items():
        config = plan.runs[next(iter(cell.runs.values()))].config
        read = rounds(cell)
        if cell.measure.value in ACCURACIES and read is not None and config.asynchronous is None:
            key = (problem_settings(config.to_mapping()), cell.measure.value, cell.measure.target, cell.equal, read)
            problems.setdefault(key, {})[place] = config.algorithm.name
    shares: dict[Place, GapShare] = {}
    for names in problems.values():
        by_key = {"/".join(place): place for place in names}
        within = shares_within(
            {key: names[place] for key, place in by_key.items()},
            {key: values(plan.cells[place]) for key, place in by_key.items()},
        )
        shares |= {by_key[key]: share for key, share in within.items()}
    return shares
