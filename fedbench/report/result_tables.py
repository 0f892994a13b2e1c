"""The tables of a report."""

import math
from collections.abc import Callable, Mapping, Sequence

from fedbench.records.recorded_run import RecordedRun
from fedbench.report.measures import BYTES, FLOPS, MEASURES, SECONDS, Measure, Reached, fitting, number_for, reached
from fedbench.report.methods import ABSENT, Method, differing, settings, shown
from fedbench.tables.numbers import Number
from fedbench.tables.seed_statistics import Paired, Spread, paired
from fedbench.tables.table import Cell, Table

POINTS = Number(2, 100, "points", is_change=True)
SHARE = ABOUT = Number(1, 100, "%")

COSTS = (
    "Bytes, work and virtual time are sums over all clients and rounds; paper's Comm. and Comp. count as FedPart's "
    "Table 1 does (one client, uplink only, without BatchNorm statistics)."
)
WALL = "Wall times hold for the machines, and the load on them, where the runs were made."

Spending = tuple[str, Callable[[Reached], float | None], tuple[tuple[str, float], ...]]
SPENDINGS: tuple[Spending, ...] = (
    ("round", lambda one: one.round, ()),
    ("sent up and down", lambda one: one.bytes, BYTES),
    ("client work", lambda one: one.flops, FLOPS),
    ("wall time", lambda one: one.seconds, SECONDS),
    ("virtual time", lambda one: one.virtual_seconds, SECONDS),
)
"""What reaching a target costs: heading, figure, units."""


def results_table(methods: Sequence[Method]) -> Table:
    """The figures of each method over its seeds."""
    shown_measures = [
        measure
        for measure in MEASURES
        if not measure.optional or any(method.spread(measure.key).n for method in methods)
    ]
    numbers = [
        number_for(measure, [value for method in methods for value in method.summaries(measure.key).values()])
        for measure in shown_measures
    ]
    rows = tuple(
        (
            method.title,
            tuple(
                _figure(method, measure, number)
                for measure, number in zip(shown_measures, numbers, strict=True)
            ),
        )
        for method in methods
    )  # fmt: skip
    columns = tuple(
        f"{measure.heading} ({number.unit})" for measure, number in zip(shown_measures, numbers, strict=True)
    )
    return Table("Accuracy and cost of each method", "method", columns, rows, (COSTS, WALL), label="results")


def _figure(method: Method, measure: Measure, number: Number) -> Cell:
    spread = method.spread(measure.key)
    if spread.n:
        return Cell(spread=spread, number=number)
    return Cell("none", note="A synchronous run has no virtual clock." if measure.optional else "")


def paired_table(methods: Sequence[Method], baseline: Method) -> Table:
    """Each other method minus the baseline, seed by seed."""
    rows = tuple((method.title, tuple(_paired_cells(method, baseline))) for method in methods if method is not baseline)
    columns = (
        "common seeds",
        "best accuracy (points)",
        "best: told apart from zero",
        "final accuracy (points)",
        "final: told apart from zero",
        "bytes, of the baseline's (%)",
        "client work, of the baseline's (%)",
    )
    notes = (
        f"Baseline: {baseline.title}. Differences are method minus baseline with the same seed, which draws the same "
        "test split, clients and minibatches where the data settings are equal. Told apart from zero: the mean "
        "difference is more than 2 standard errors (SE) from it. With few seeds that is a weak statement.",
    )
    return Table(f"Differences from {baseline.title}", "method", columns, rows, notes, label="differences")


def _paired_cells(method: Method, baseline: Method) -> list[Cell]:
    cells = [Cell(str(len(set(method.seeds) & set(baseline.seeds))))]
    for key in ("best_accuracy", "final_accuracy"):
        found = paired(method.summaries(key), baseline.summaries(key))
        cells += [Cell("no common seed") if not found.seeds else Cell(spread=found.difference, number=POINTS)]
        cells += [Cell(_verdict(found))]
    for keys in (("uplink_bytes", "downlink_bytes"), ("client_flops",)):
        ratios = _ratios(method, baseline, keys)
        cells.append(Cell(spread=ratios, number=SHARE) if ratios.n else Cell("no common seed"))
    return cells


def _verdict(found: Paired) -> str:
    if found.zero_is_within is None:
        return "cannot be judged" + (" (one seed)" if found.difference.n == 1 else "")
    error = POINTS.unsigned(found.difference.standard_error)
    return f"{'no' if found.zero_is_within else 'yes'} (SE {error})"


def _ratios(method: Method, baseline: Method, keys: Sequence[str]) -> Spread:
    def total(run: RecordedRun) -> float:
        return sum(float(run.summary[key]) for key in keys)

    own = {run.seed: total(run) for run in method.runs}
    other = {run.seed: total(run) for run in baseline.runs}
    return Spread.of(own[seed] / other[seed] for seed in method.seeds if other.get(seed))


def reached_table(methods: Sequence[Method], target: float, explanation: str) -> Table:
    """What each method had spent when it first reached the target; no mean where a seed never did.

    Args:
        target: accuracy, 0..1.
        explanation: where the target comes from.
    """
    found = {
        method.letter: {run.seed: reached(run, target) for run in method.runs} for method in methods
    }  # fmt: skip
    hits = [one for by_seed in found.values() for one in by_seed.values() if one is not None]
    spendings = [spending for spending in SPENDINGS if any(spending[1](one) is not None for one in hits)]
    numbers = [
        fitting(scales, [value for one in hits if (value := figure(one)) is not None]) if scales else Number(1)
        for _, figure, scales in spendings
    ]
    rows = tuple((method.title, tuple(_reached_cells(found[method.letter], spendings, numbers))) for method in methods)
    columns = (
        "seeds that reached it",
        *(
            f"{heading} ({number.unit})" if number.unit else heading
            for (heading, _, _), number in zip(spendings, numbers, strict=True)
        ),
    )
    notes = [explanation, "What was spent by the end of the round that was first scored at the target or above."]
    if any(method.config.get("evaluation", {}).get("every", 1) != 1 for method in methods):
        notes.append("Not every round was scored, so the target may have been reached up to so many rounds earlier.")
    return Table(
        f"What it took to reach {ABOUT.show(target)} accuracy", "method", columns, rows, tuple(notes), label="target"
    )


def _reached_cells(
    by_seed: Mapping[int, Reached | None],
    spendings: Sequence[Spending],
    numbers: Sequence[Number],
) -> list[Cell]:
    missing = [seed for seed, one in by_seed.items() if one is None]
    cells = [Cell(f"{len(by_seed) - len(missing)} of {len(by_seed)}")]
    if missing:
        some = len(missing) < len(by_seed)
        text = f"not reached by {len(missing)} of {len(by_seed)} seeds" if some else "not reached"
        reason = Cell(text, note=_singles(by_seed, spendings, numbers))
        hits = [one for one in by_seed.values() if one is not None]
        lacking = [bool(hits) and all(figure(one) is None for one in hits) for _, figure, _ in spendings]
        return cells + [Cell("none") if lacks else reason for lacks in lacking]
    for (_, figure, _), number in zip(spendings, numbers, strict=True):
        values = [value for one in by_seed.values() if one is not None and (value := figure(one)) is not None]
        cells.append(Cell(spread=Spread.of(values), number=number) if values else Cell("none"))
    return cells


def _singles(by_seed: Mapping[int, Reached | None], spendings: Sequence[Spending], numbers: Sequence[Number]) -> str:
    """What those seeds spent that did reach the target; "" if none did."""
    said = []
    for seed, one in by_seed.items():
        if one is not None:
            costs = [
                f"{value:,.0f} rounds" if heading == "round" else number.show(value)
                for (heading, figure, _), number in zip(spendings, numbers, strict=True)
                if (value := figure(one)) is not None
            ]
            said.append(f"seed {seed} after {', '.join(costs)}")
    return f"Reached by {'; '.join(said)}." if said else ""


def settings_table(methods: Sequence[Method]) -> Table | None:
    """Every setting that is not the same for all methods; None where nothing differs."""
    flats = [settings(method.config) for method in methods]
    keys = differing(flats)
    if not keys:
        return None
    rows = tuple((key, tuple(Cell(shown(flat.get(key, ABSENT))) for flat in flats)) for key in keys)
    notes = (
        f"{'; '.join(method.title for method in methods)}.",
        "absent: the method has no such setting. All other settings that can change a result are equal.",
    )
    return Table(
        "Settings that are not the same for all methods",
        "setting",
        tuple(method.letter for method in methods),
        rows,
        notes,
        label="settings",
    )


def runs_table(methods: Sequence[Method]) -> Table:
    """Every run that counts."""
    rows = tuple(
        (
            f"{method.letter}, seed {run.seed}",
            (
                Cell(run.source),
                Cell(str(run.rounds.num_rows)),
                Cell(_percent(run.summary.get("best_accuracy"))),
                Cell(_percent(run.summary.get("final_accuracy"))),
                Cell(run.model_sha256 or "none"),
            ),
        )
        for method in methods
        for run in method.runs
    )
    columns = ("run", "rounds", "best (%)", "final (%)", "model_sha256")
    return Table("Runs that count", "method and seed", columns, rows, label="runs")


def _percent(value: float | None) -> str:
    return "none" if value is None or math.isnan(value) else f"{100 * value:.2f}"
