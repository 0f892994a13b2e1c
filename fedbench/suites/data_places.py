"""Whether the data of a suite's runs are there, before any of them begins."""

from collections.abc import Callable, Collection

from fedbench.errors import ConfigError, DataError
from fedbench.suites.plan import Plan

_Problem = ConfigError | DataError


def require_data(plan: Plan, finished: Callable[[], Collection[str]]) -> None:
    """Check that there are data for at least one of the runs that are still to be run.

    Runs whose data alone are missing fail by themselves, beside the others.

    Args:
        finished: called for the digests of the runs that need no data any more, if some data are not there.

    Raises:
        ConfigError: a run needs `data.root`, and it is not set.
        DataError: the data of none of the runs are there; names what is missing, all of it.
    """
    missing: dict[str, _Problem] = {}
    checked: dict[str, _Problem | None] = {}
    for digest, run in plan.runs.items():
        data = run.config.data
        key = repr((data.dataset, data.root))
        if key not in checked:
            try:
                data.dataset.check(data.root)
                checked[key] = None
            except (ConfigError, DataError) as error:
                checked[key] = error
        if (problem := checked[key]) is not None:
            missing[digest] = problem
    if not missing:
        return
    open_runs = plan.runs.keys() - set(finished())
    problems = [missing[digest] for digest in plan.runs if digest in missing and digest in open_runs]
    for problem in problems:
        if isinstance(problem, ConfigError):
            raise problem
    if problems and len(problems) == len(open_runs):
        raise DataError("; ".join(dict.fromkeys(str(problem) for problem in problems)))
