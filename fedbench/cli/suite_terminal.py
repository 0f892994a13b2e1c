"""Prints what a suite would cost on the terminal."""

from rich.table import Table as Grid

from fedbench.cli.table_terminal import print_line
from fedbench.cli.terminal import fitting_unit, in_flops, results
from fedbench.suites.analyses import planned_words
from fedbench.suites.dry_run import Foreseen, total_open
from fedbench.suites.plan import Plan


def print_foreseen(plan: Plan, foreseen: list[Foreseen]) -> None:
    """Print the runs that a suite would make, with their costs."""
    if plan.label:
        print_line(f"{plan.label[0].upper()}{plan.label[1:]}: {'; '.join(plan.scaling)}")
    grid = Grid(box=None, padding=(0, 2, 0, 0), title=f"{plan.title}: each run", title_justify="left")
    for column in ("run", "seeds", "to run", "rounds", "sent up", "sent down", "client work"):
        grid.add_column(column, justify="left" if column in ("run", "seeds") else "right")
    for run in foreseen:
        seeds = ", ".join(map(str, run.seeds))
        count = str(run.open) if run.open else "recorded"
        figures = ("?", "?", "?", "?")
        if run.costs is not None:
            costs = run.costs
            figures = (
                str(run.rounds),
                f"{costs.uplink_bytes / 1e6:,.1f} MB",
                f"{costs.downlink_bytes / 1e6:,.1f} MB",
                in_flops(costs.client_flops),
            )
        grid.add_row(run.label, seeds, count, *figures)
    results.print(grid, markup=False, highlight=False)
    for remark in dict.fromkeys(run.remark for run in foreseen if run.remark):
        print_line(remark)
    runs, whole = sum(run.open for run in foreseen), total_open(foreseen)
    recorded = sum(len(run.recorded) for run in foreseen)
    words = f"{runs} runs to be run, {recorded} recorded"
    if whole is not None:
        unit, size = fitting_unit(whole.uplink_bytes, {"GB": 1e9, "MB": 1e6})
        sent = f"{whole.uplink_bytes / size:,.2f} {unit} up, {whole.downlink_bytes / size:,.2f} {unit} down"
        words += f": {sent}, {in_flops(whole.client_flops)}"
    print_line(words)
    for line in planned_words(plan):
        print_line(line)
