"""Carries out `fedbench suite` once its arguments are read."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from fedbench.cli.entry import FAILED, INTERRUPTED
from fedbench.errors import ConfigError
from fedbench.suites.expand import expand
from fedbench.suites.file import read_suite, suite_path
from fedbench.suites.plan import Plan, slug


def make_plan(arguments: Sequence[str], seeds: str | None = None, only: str | None = None, scale: float = 1.0) -> Plan:
    """The plan that a command line asks for.

    Args:
        arguments: the suite's name or file, then dotted overrides.
        seeds: "0,1,2".

    Raises:
        ConfigError: one line with what was given and what is allowed.
    """
    name, *overrides = arguments
    if "=" in name:
        raise ConfigError(f"{name}: the suite's name goes first (see: fedbench list suites)")
    for text in overrides:
        if "=" not in text:
            raise ConfigError(f"{text}: one suite at a time ({name} is given); overrides are written key=value")
    path = suite_path(name)
    chosen = parse_seeds(seeds) if seeds is not None else None
    return expand(slug(path.stem), read_suite(path), seeds=chosen, only=only, scale=scale, overrides=overrides)


def parse_seeds(text: str) -> tuple[int, ...]:
    """ "0,1,2" as numbers.

    Raises:
        ConfigError: they are not different whole numbers of at least 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise ConfigError(f"--seeds={text}: must be different whole numbers of at least 0, such as 0,1,2")
    return tuple(int(part) for part in parts)


def dry_run(plan: Plan, force: bool = False) -> tuple[dict[str, Any], Any]:
    """What would run: as a JSON document, and as `print_foreseen` takes it.

    Args:
        force: whether what is recorded would be run again.

    Raises:
        ConfigError: a column shows a figure that none of its runs has, of another task.
    """
    from fedbench.suites.dry_run import foresee, total_open
    from fedbench.suites.run import recorded_for
    from fedbench.suites.task_measures import require_measures

    require_measures(plan)
    foreseen = foresee(plan, {} if force else recorded_for(plan))
    whole = total_open(foreseen)
    document = {
        "suite": plan.name,
        "scale": plan.scale,
        "scaling": list(plan.scaling),
        "runs": [run.to_mapping() for run in foreseen],
        "to_run": sum(run.open for run in foreseen),
        "total": whole.to_mapping() if whole is not None else None,
        "analyses": [
            {"name": analysis.part.name, "kind": analysis.part.kind, "runs": list(analysis.runs(seed).values())}
            for analysis in plan.analyses
            for seed in analysis.seeds[:1]
        ],
    }
    return document, foreseen


def carry_out(plan: Plan, as_json: bool, force: bool = False) -> tuple[int, dict[str, Any]]:
    """Run a suite and show its table.

    Args:
        force: run again what is recorded.

    Returns:
        (exit status, the JSON document).
    """
    from fedbench.cli.suite_progress import SuiteProgress
    from fedbench.cli.table_terminal import print_line, print_statements, print_table
    from fedbench.cli.terminal import console
    from fedbench.records.recorded_analysis import FOLDER as ANALYSES
    from fedbench.records.recorded_analysis import PAGE
    from fedbench.suites.files import TABLE
    from fedbench.suites.run import run_suite, suite_folder

    # Ray tells of lost nodes on stdout, which is the result's.
    with redirect_stdout(sys.stderr), SuiteProgress(console, len(plan.runs)) as progress:
        outcomes = run_suite(plan, progress, force=force)
    folder = suite_folder(plan)
    document = outcomes.to_mapping() | {"directory": str(folder), "files": str(folder / TABLE)}
    if not as_json:
        print_table(outcomes.table())
        if (differences := outcomes.differences()) is not None:
            print_table(differences)
        for ranking in outcomes.ranks().rankings:
            print_table(ranking.table())
        if (statements := outcomes.statements()) is not None:
            print_statements(statements)
        if outcomes.analyses:
            print_line(f"analyses: {folder / ANALYSES / PAGE}")
        print_line(f"files: {folder / TABLE}")
    if outcomes.status == "interrupted":
        without = ", without --force: what it has run again is kept" if force else ""
        console.print(f"go on with the same command{without}", markup=False, highlight=False)
    return {"finished": 0, "failed": FAILED, "interrupted": INTERRUPTED}[outcomes.status], document
