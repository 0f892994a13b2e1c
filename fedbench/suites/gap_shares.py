"""The shares of the gap between local and centralised training in a suite's cells."""

from collections.abc import Callable, Mapping

from fedbench.config.identity import problem_settings
from fedbench.records.metrics import headline_figures
from fedbench.suites.plan import Plan, SuiteCell
from fedbench.tables.gap import GapShare, shares_within
from fedbench.tasks.kinds import Headline

Place = tuple[str, str]
"""Row and column of a cell."""


def gap_shares(
    plan: Plan,
    values: Callable[[SuiteCell], Mapping[int, float]],
    rounds: Callable[[SuiteCell], int | None],
    headline: Callable[[SuiteCell], Headline | None],
) -> dict[Place, GapShare]:
    """The shares of all cells that show what their task is judged by and have both references beside them.

    The references are in the same problem, best or last on the same split.

    Args:
        plan: the suite.
        values: {seed: value} of a cell.
        rounds: the number of rounds that a cell is read off; None while nothing was run.
        headline: what the runs of a cell are judged by; None while nothing was run.
    """
    problems: dict[tuple[object, ...], dict[Place, str]] = {}
    for place, cell in plan.cells.items():
        config = plan.runs[next(iter(cell.runs.values()))].config
        read = rounds(cell)
        judged_by = headline(cell)
        if read is None or judged_by is None or config.asynchronous is not None:
            continue
        if cell.measure.value in headline_figures(judged_by):
            key = (problem_settings(config.to_mapping()), cell.measure.value, cell.measure.target, cell.equal, read)
            problems.setdefault(key, {})[place] = config.algorithm.name
    shares: dict[Place, GapShare] = {}
    for names in problems.values():
        by_key = {"/".join(place): place for place in names}
        within = shares_within(
            {key: names[place] for key, place in by_key.items()},
            {key: values(plan.cells[place]) for key, place in by_key.items()},
            higher_is_better=all(not _is_error(plan.cells[place]) for place in names),
        )
        shares |= {by_key[key]: share for key, share in within.items()}
    return shares


def _is_error(cell: SuiteCell) -> bool:
    return cell.measure.quantity.metric.is_error
