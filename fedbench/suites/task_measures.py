"""Whether the measures of a suite are of the tasks of its runs, before any of them begins."""

from fedbench.errors import ConfigError
from fedbench.experiment.task_limits import no_such_score, task_of
from fedbench.suites.cell_values import Measure
from fedbench.suites.plan import Plan, SuiteCell
from fedbench.tasks.kinds import TASKS


def require_measures(plan: Plan) -> None:
    """Check that every measure is a figure of at least one of the runs that it is read from.

    In a table of several tasks a cell without its column's figure says so, beside the others.

    Raises:
        ConfigError: names the column whose measure no run has, and what to choose instead.
    """
    allowed: set[Measure] = set()
    refusals: dict[Measure, str] = {}
    for cell in plan.cells.values():
        if not cell.runs or cell.measure in allowed:
            continue
        refusal = _refusal(plan, cell)
        if refusal is None:
            allowed.add(cell.measure)
        else:
            refusals.setdefault(cell.measure, f"column {cell.column}: measure {cell.measure.value}: {refusal}")
    for measure, refusal in refusals.items():
        if measure not in allowed:
            raise ConfigError(refusal)


def _refusal(plan: Plan, cell: SuiteCell) -> str | None:
    """What is wrong with a cell's measure; None where nothing is, or where the data tell no task."""
    config = plan.runs[next(iter(cell.runs.values()))].config
    try:
        if (refusal := no_such_score(cell.measure.value, config)) is not None or cell.measure.metric is None:
            return refusal
        headline = TASKS[task_of(config)].headline
    except Exception:  # the run fails by itself, beside the others; a data set of one's own may raise anything
        return None
    if cell.measure.metric == headline.name:
        return None
    return (
        f"metric={cell.measure.metric}: the run is judged by {headline.name}; leave metric out, or set "
        f"metric={headline.name}"
    )
