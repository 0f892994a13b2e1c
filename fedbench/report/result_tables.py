"""The tables of a report."""

import math
from collections.abc import Mapping, Sequence

from fedbench.config.identity import problem_settings
from fedbench.records.headline import ACCURACY, how_chosen
from fedbench.records.metrics import spent_to_reach
from fedbench.records.recorded_run import RecordedRun
from fedbench.report.methods import ABSENT, Method, differing, shown
from fedbench.report.shown_headline import ShownHeadline
from fedbench.report.shown_metrics import SPENDINGS, ShownMetric, own_columns, totals
from fedbench.report.tasks import baselines, is_reference
from fedbench.tables.comparisons import Judgement, explained, judged_together
from fedbench.tables.gap import GAP_HEADING, GapShare, gap_explained, shares_within
from fedbench.tables.numbers import Number
from fedbench.tables.seed_statistics import INTERVAL, Paired, Spread, paired
from fedbench.tables.table import Cell, Table

SHARE = Number(1, 100, "%")

SUMS = "Bytes, work and energy are sums over all clients and rounds; virtual time is that of the clock at the end."
PAPER = (
    "Paper's Comm. and Comp. count as FedPart's Table 1 does: Comm. the uplink of all clients without BatchNorm "
    "statistics, Comp. one client's work."
)
WALL = "Wall times hold for the machines, and the load on them, where the runs were made."

Spent = Mapping[str, float]
"""{metric: value} when a run first reached the target."""


def results_table(methods: Sequence[Method], asked: Sequence[ShownMetric] = (), *, gaps: bool = True) -> Table:
    """The figures of each method over its seeds.

    Args:
        methods: the rows, all of one task.
        asked: the columns; (): those of `totals` that some method has, and metrics of one's own.
        gaps: whether the share of the gap between local and centralised training is shown, where both were run.
    """
    headline = methods[0].headline
    known = [total for total in totals(methods[0].task) if any(method.spread(total.name).n for method in methods)]
    columns = list(asked) or [*known, *own_columns(methods)]
    numbers = [
        total.number([value for method in methods for value in method.summaries(total.name).values()])
        for total in columns
    ]
    rows = tuple(
        (
            method.title,
            tuple(total_cell(method, total, number) for total, number in zip(columns, numbers, strict=True)),
        )
        for method in methods
    )
    headings = tuple(_heading(total, number) for total, number in zip(columns, numbers, strict=True))
    names = {column.name for column in columns}
    shares = {name: gap_shares(methods, name) for name in headline.judged if gaps and name in names}
    for name in (name for name, of_methods in shares.items() if of_methods):
        headings += (f"{name.partition('_')[0]}: {GAP_HEADING}",)
        closed = [shares[name].get(method.letter) for method in methods]
        rows = tuple(
            (title, (*cells, Cell(share.words if share else "-")))
            for (title, cells), share in zip(rows, closed, strict=True)
        )
    explained = (
        (
            {headline.best},
            how_chosen({run.chosen_on for method in methods for run in method.runs}, headline.headline),
        ),
        ({"uplink_bytes", "downlink_bytes", "total_bytes", "client_flops", "virtual_seconds", "joules"}, SUMS),
        ({"paper_comm_gb", "paper_comp_tflop"}, PAPER),
        ({"wall_seconds"}, WALL),
    )
    notes = tuple(note for shown_names, note in explained if names & shown_names)
    notes += (gap_explained(headline.headline.higher_is_better),) if any(shares.values()) else ()
    return Table(f"{headline.title} and cost of each method", "method", headings, rows, notes, label="results")


def gap_shares(methods: Sequence[Method], metric: str) -> dict[str, GapShare]:
    """{letter: share of the gap between local and centralised training}, of methods with both beside them.

    The references are runs with otherwise equal settings and as many rounds. Asynchronous runs, whose rounds are not
    those of cohorts, have no share.
    """
    problems: dict[tuple[str, int], dict[str, Method]] = {}
    for method in methods:
        if not method.is_asynchronous:
            key = problem_settings(method.config), method.runs[0].rounds.num_rows
            problems.setdefault(key, {})[method.letter] = method
    shares: dict[str, GapShare] = {}
    for members in problems.values():
        names = {letter: str(method.config.get("algorithm", {}).get("name")) for letter, method in members.items()}
        shares |= shares_within(
            names,
            {letter: method.summaries(metric) for letter, method in members.items()},
            higher_is_better=methods[0].headline.headline.higher_is_better,
        )
    return shares


def _heading(shown_metric: ShownMetric, number: Number) -> str:
    return f"{shown_metric.heading} ({number.unit})" if number.unit else shown_metric.heading


def total_cell(method: Method, total: ShownMetric, number: Number) -> Cell:
    """A metric of a method over its seeds, or the reason why there is none."""
    spread = method.spread(total.name)
    if spread.n:
        return Cell(spread=spread, number=number)
    return Cell("none", note=f"{total.metric.undefined}." if total.metric.undefined else "")


def paired_table(methods: Sequence[Method], baseline: Method) -> Table:
    """Each other method minus the baseline on the same task, seed by seed."""
    against = comparisons(methods, baseline)
    measured_against = baselines(methods, baseline)
    others = [method for method in methods if measured_against[method.letter] is not method]
    headline = baseline.headline
    changes = [value for pairs, _ in against.values() for value in pairs.difference.values]
    number = headline.change(changes)
    unit = f" ({number.unit})" if number.unit else ""
    rows = tuple(
        (method.title, tuple(_paired_cells(method, measured_against[method.letter], against, number)))
        for method in others
    )
    columns = (
        "common seeds",
        f"best {headline.words}{unit}",
        f"best: {INTERVAL}{unit}",
        "best: verdict",
        f"final {headline.words}{unit}",
        f"final: {INTERVAL}{unit}",
        "final: verdict",
        "bytes, of the baseline's (%)",
        "client work, of the baseline's (%)",
    )
    rivals = [method for method in others if not is_reference(method)]
    several = f"{len(rivals)} methods" if len(rivals) > 1 else "one method"
    counterparts = dict.fromkeys(method.title for method in measured_against.values() if method is not None)
    each = f" Each is measured against the baseline on its own data and model: {'; '.join(counterparts)}."
    notes = (
        f"Baseline: {baseline.title}.{each if len(counterparts) > 1 else ''}",
        f"{_direction(headline)}Differences are method minus baseline with the same seed, which draws the same test "
        "split, clients and "
        "minibatches where the data settings are equal. A "
        f"{INTERVAL} is Student's t interval for the mean difference.",
        explained(
            "paired t test over seeds",
            f"best and final {headline.words} of {several} with the baseline",
            max((judgement.family for _, judgement in against.values() if judgement is not None), default=0),
        ),
    )
    return Table(f"Differences from {baseline.title}", "method", columns, rows, notes, label="differences")


Comparisons = Mapping[tuple[str, str], tuple[Paired, Judgement | None]]
"""{(letter of a method, name of a metric): its differences from the baseline, and what is concluded from them}.

Nothing is concluded of references, which are no rivals: they have None, and do not count among the comparisons.
"""


def comparisons(methods: Sequence[Method], baseline: Method) -> Comparisons:
    """Best and final value of the metric of each other method with the baseline's on the same task, judged together.

    Args:
        methods: at least one beside the baseline.
    """
    against = baselines(methods, baseline)
    pairs = {
        (method.letter, name): paired(method.summaries(name), counterpart.summaries(name))
        for method in methods
        if (counterpart := against[method.letter]) is not None and counterpart is not method
        for name in baseline.headline.judged
    }
    references = {method.letter for method in methods if is_reference(method)}
    p_values = {place: differences.p_value for place, differences in pairs.items() if place[0] not in references}
    judgements = judged_together(p_values)
    return {place: (differences, judgements.get(place)) for place, differences in pairs.items()}


def _direction(headline: ShownHeadline) -> str:
    """A sentence that says which sign of a difference speaks for a method; "" where larger is better, as usual."""
    if headline.headline.higher_is_better:
        return ""
    return f"Lower {headline.words} is better: a difference below zero speaks for the method. "


def _paired_cells(method: Method, baseline: Method | None, against: Comparisons, number: Number) -> list[Cell]:
    if baseline is None:
        return [Cell("0"), *[Cell("none", note="The baseline was not run on this data and model.")] * 8]
    cells = [Cell(str(len(set(method.seeds) & set(baseline.seeds))))]
    for name in method.headline.judged:
        pairs, judgement = against[method.letter, name]
        cells += [Cell("no common seed") if not pairs.seeds else Cell(spread=pairs.difference, number=number)]
        verdict = "reference" if judgement is None else judgement.words
        cells += [Cell(_interval(pairs.difference, number)), Cell(verdict)]
    for name in ("total_bytes", "client_flops"):
        ratios = _ratios(method.summaries(name), baseline.summaries(name))
        cells.append(Cell(spread=ratios, number=SHARE) if ratios.n else Cell("no common seed"))
    return cells


def _interval(difference: Spread, number: Number) -> str:
    if difference.interval is None:
        return "none"
    low, high = map(number.signed, difference.interval)
    return f"{low} to {high}"


def _ratios(method: Mapping[int, float], baseline: Mapping[int, float]) -> Spread:
    """The quotients of two {seed: value} over the seeds that both have."""
    return Spread.of(value / baseline[seed] for seed, value in method.items() if baseline.get(seed))


def reached_table(methods: Sequence[Method], target: float, explanation: str) -> Table:
    """What each method had spent when it first reached the target; no mean where a seed never did.

    Args:
        methods: the rows.
        target: a value of the metric by which their task is judged, in the recorded unit.
        explanation: where the target comes from.
    """
    spent = {method.letter: {run.seed: spent_until(run, target) for run in method.runs} for method in methods}
    hits = [hit for by_seed in spent.values() for hit in by_seed.values() if hit is not None]
    columns = [spending for spending in SPENDINGS if any(spending.name in hit for hit in hits)]
    numbers = [column.number([hit[column.name] for hit in hits if column.name in hit]) for column in columns]
    rows = tuple((method.title, tuple(_reached_cells(spent[method.letter], columns, numbers))) for method in methods)
    headings = (
        "seeds that reached it",
        *(_heading(column, number) for column, number in zip(columns, numbers, strict=True)),
    )
    beyond = "above" if methods[0].headline.headline.higher_is_better else "below"
    notes = [explanation, f"What was spent by the end of the round that was first scored at the target or {beyond}."]
    if any(method.config.get("evaluation", {}).get("every", 1) != 1 for method in methods):
        notes.append("Not every round was scored, so the target may have been reached up to so many rounds earlier.")
    return Table(
        f"What it took to reach {methods[0].headline.goal(target)}",
        "method",
        headings,
        rows,
        tuple(notes),
        label="target",
    )


def spent_until(run: RecordedRun, target: float) -> Spent | None:
    """What the run had spent when it was first scored at `target` or better; None if it never was."""
    return spent_to_reach(run.rounds, target, [spending.name for spending in SPENDINGS])


def _reached_cells(
    by_seed: Mapping[int, Spent | None], columns: Sequence[ShownMetric], numbers: Sequence[Number]
) -> list[Cell]:
    hits = [spent for spent in by_seed.values() if spent is not None]
    missing = len(by_seed) - len(hits)
    cells = [Cell(f"{len(hits)} of {len(by_seed)}")]
    if missing:
        text = f"not reached by {missing} of {len(by_seed)} seeds" if hits else "not reached"
        unreached = Cell(text, note=_single_seeds(by_seed, columns, numbers))
        lacking = [bool(hits) and all(column.name not in spent for spent in hits) for column in columns]
        return cells + [Cell("none") if lacks else unreached for lacks in lacking]
    for column, number in zip(columns, numbers, strict=True):
        values = [spent[column.name] for spent in hits if column.name in spent]
        cells.append(Cell(spread=Spread.of(values), number=number) if values else Cell("none"))
    return cells


def _single_seeds(
    by_seed: Mapping[int, Spent | None], columns: Sequence[ShownMetric], numbers: Sequence[Number]
) -> str:
    """What the seeds spent that did reach the target; "" if none did."""
    sentences = []
    for seed, spent in by_seed.items():
        if spent is not None:
            costs = [
                number.show(spent[column.name]) if number.unit else f"{spent[column.name]:,.0f} {column.metric.meaning}"
                for column, number in zip(columns, numbers, strict=True)
                if column.name in spent
            ]
            sentences.append(f"seed {seed} after {', '.join(costs)}")
    return f"Reached by {'; '.join(sentences)}." if sentences else ""


def settings_table(methods: Sequence[Method]) -> Table | None:
    """Every setting that is not the same for all methods; None where nothing differs."""
    flats = [method.runs[0].settings for method in methods]
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
    """Every run that counts, of one task or of several."""
    shown_by = dict.fromkeys(method.headline for method in methods)
    only = next(iter(shown_by)) if len(shown_by) == 1 else None
    rows = tuple(
        (
            f"{method.letter}, seed {run.seed}",
            (
                Cell(run.source),
                Cell(str(run.rounds.num_rows)),
                *(Cell(_value(run.summary.get(name), method.headline, only)) for name in method.headline.judged),
                Cell(run.model_sha256 or "none"),
            ),
        )
        for method in methods
        for run in method.runs
    )
    if only is None:
        best, final = "best", "final"
    elif only.headline == ACCURACY:
        best, final = only.with_unit("best"), only.with_unit("final")
    else:
        best, final = only.with_unit(f"best {only.words}"), only.with_unit(f"final {only.words}")
    columns = ("run", "rounds", best, final, "model_sha256")
    return Table("Runs that count", "method and seed", columns, rows, label="runs")


def _value(value: float | None, headline: ShownHeadline, only: ShownHeadline | None) -> str:
    """A value of a run; with unit and name where runs of several tasks stand in one table."""
    if value is None or math.isnan(value):
        return "none"
    number = headline.number([value])
    return number.bare(value) if only is not None else f"{number.show(value)} {headline.words}"
