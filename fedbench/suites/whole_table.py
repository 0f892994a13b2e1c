"""The whole table that a selection is part of: a suite's files lose nothing when a part of it is run."""

from dataclasses import replace
from pathlib import Path

from fedbench.suites.earlier_runs import Recorded, find_recorded, recorded_seeds
from fedbench.suites.expand import expand_around
from fedbench.suites.plan import Plan


def whole_and_recorded(plan: Plan, folder: Path) -> tuple[Plan, dict[str, Recorded]]:
    """The table that a suite's files show after this plan, and the runs that are recorded for it.

    All cells, with the plan's seeds; where the plan is a selection, also with the seeds of what is recorded, because
    other parts may have been run with others.

    Args:
        folder: the suite's folder; runs that were finished in those beside it count, too.
    """
    siblings = [path for path in sorted(folder.parent.glob("*")) if path.is_dir() and path != folder]
    folders = [folder, *siblings]
    if not plan.only:
        return plan, find_recorded(folders, plan.runs)
    whole = expand_around(plan, sorted({*plan.seeds, *recorded_seeds(folder)}))
    recorded = find_recorded(folders, whole.runs)
    finished = {whole.runs[digest].config.seed for digest, run in recorded.items() if run.finished}
    return _with_seeds(whole, {*plan.seeds, *finished}), recorded


def _with_seeds(plan: Plan, seeds: set[int]) -> Plan:
    cells = {
        place: replace(cell, runs={seed: digest for seed, digest in cell.runs.items() if seed in seeds})
        for place, cell in plan.cells.items()
    }
    runs = {digest: run for digest, run in plan.runs.items() if run.config.seed in seeds}
    analyses = tuple(
        replace(analysis, by_seed={seed: of_seed for seed, of_seed in analysis.by_seed.items() if seed in seeds})
        for analysis in plan.analyses
    )
    kept = tuple(seed for seed in plan.seeds if seed in seeds)
    return replace(plan, seeds=kept, cells=cells, runs=runs, analyses=analyses)
