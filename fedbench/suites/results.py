"""What became of a suite's runs, and the table and the JSON document that show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedbench.config.identity import is_local
from fedbench.records.headline import ACCURACY, headline_of, headline_of_summary, how_chosen
from fedbench.records.metrics import headline_figures
from fedbench.records.reader import load_run
from fedbench.report.analyses import as_table
from fedbench.suites.analysis_outcome import AnalysisOutcome, all_statements
from fedbench.suites.cell_readings import CELL_TEXTS, CellReadings
from fedbench.suites.cell_values import Absence, Measure, Reading, read
from fedbench.suites.differences import differences, differences_table
from fedbench.suites.equal_spending import affordable, common_budget
from fedbench.suites.equal_spending import note as equal_spending_note
from fedbench.suites.gap_shares import Place, gap_shares
from fedbench.suites.plan import Plan, SuiteCell
from fedbench.suites.ranks import SuiteRanks, ranks_of
from fedbench.suites.statements import statements_table
from fedbench.suites.tasks import REFERENCES, Grid, grids
from fedbench.tables.comparisons import Judgement, judged_together
from fedbench.tables.gap import GAP_HEADING, GapShare, gap_explained
from fedbench.tables.numbers import Number
from fedbench.tables.seed_statistics import Spread
from fedbench.tables.table import Cell, Table
from fedbench.tasks.kinds import Headline


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        status: finished | failed | interrupted.
        directory: of the run, if it came to have one.
        summary: as in `summary.json`, if it ended.
        reason: why it failed, one line.
        reused: it was recorded before.
        other_versions: the libraries and the data that it was recorded with, where they differ.
    """

    status: str
    directory: Path | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    reused: bool = False
    other_versions: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run came to its end, so that there is something to read."""
        return self.status == "finished"


class Outcomes:
    """What became of the runs of a plan so far, by digest.

    Attributes:
        plan: the plan.
        by_digest: {digest of a run: what became of it}.
        analyses: what became of the analyses that were performed over the runs.
        broken_off: whether the suite was interrupted among its analyses.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.analyses: tuple[AnalysisOutcome, ...] = ()
        self.broken_off = False
        self.by_digest: dict[str, Outcome] = {}
        self._histories: dict[str, pa.Table] = {}
        self._readings: dict[tuple[str, Measure, int | None], Reading] = {}

    def add(self, digest: str, outcome: Outcome, history: pa.Table | None = None) -> None:
        """A run ended; `history` saves reading it again."""
        self.by_digest[digest] = outcome
        if history is not None:
            self._histories[digest] = history

    @property
    def failed(self) -> list[str]:
        """The digests of the runs that failed."""
        return [digest for digest, outcome in self.by_digest.items() if outcome.status == "failed"]

    @property
    def missing(self) -> int:
        """The number of runs that were not run to an end."""
        return sum(
            1
            for digest in self.plan.runs
            if digest not in self.by_digest or self.by_digest[digest].status == "interrupted"
        )

    @property
    def status(self) -> str:
        """What became of the suite: finished | failed | interrupted."""
        if self.missing or self.broken_off:
            return "interrupted"
        return "failed" if self.failed or any(analysis.failed for analysis in self.analyses) else "finished"

    def statements(self) -> Table | None:
        """The published statements beside what the analyses have measured; None where there are none."""
        statements = [statement for of_one in all_statements(self.analyses) for statement in of_one]
        if not statements:
            return None
        shown = statements_table(f"{self.plan.file.title}: published statements", statements)
        return as_table(shown, f"{self.plan.name}-statements")

    def table(self) -> Table:
        """The table as far as the runs have come."""
        plan = self.plan
        readings = {place: self._read(cell) for place, cell in plan.cells.items()}
        columns: dict[str, tuple[str, list[Cell]]] = {}
        shares = self.gap_shares()
        for column in plan.columns:
            cells = [plan.cells.get((row, column)) for row in plan.rows]
            measures = [cell.measure for cell in cells if cell]
            values = [value for cell in cells if cell for value in readings[cell.row, cell.column].values.values()]
            number = measures[0].number(values)
            shown = [self._cell(cell, number, readings[cell.row, cell.column]) if cell else Cell("-") for cell in cells]
            headline = next((known for cell in cells if cell and (known := self._headline(cell))), None)
            columns[column] = measures[0].heading(column, headline), shown
            if any((row, column) in shares for row in plan.rows):
                closed = [shares.get((row, column)) for row in plan.rows]
                cells_of_shares = [Cell(share.words if share else "-") for share in closed]
                columns[f"{column}: {GAP_HEADING}"] = f"{column}: {GAP_HEADING}", cells_of_shares
        return Table(
            title=plan.file.title,
            corner=plan.file.corner,
            columns=tuple(heading for heading, _ in columns.values()),
            rows=tuple(
                (row, tuple(cells[place] for _, cells in columns.values())) for place, row in enumerate(plan.rows)
            ),
            notes=self._notes(),
            label=plan.name,
            banner=self._banner(),
        )

    def ranks(self) -> SuiteRanks:
        """The methods ranked over the tasks, where the suite has several, as far as the runs have come."""
        return ranks_of(self._grids, self.plan.seeds, lambda cell: self._read(cell).values)

    def differences(self) -> Table | None:
        """The cells measured against the suite's baseline; None without one."""
        return differences_table(self.plan, lambda cell: self._read(cell).values)

    @cached_property
    def _grids(self) -> list[Grid]:
        return grids(self.plan)

    def gap_shares(self) -> dict[Place, GapShare]:
        """What share of the gap between local and centralised training cells close, where both were run beside."""
        return gap_shares(self.plan, lambda cell: self._read(cell).values, self._rounds_read, self._headline)

    def _rounds_read(self, cell: SuiteCell) -> int | None:
        """The number of rounds that a cell is read off; None while none of its runs has finished."""
        finished = self._finished(cell)
        if not finished:
            return None
        rounds: int = self._history(finished[0]).num_rows
        return rounds if cell.through is None else min(cell.through, rounds)

    def _finished(self, cell: SuiteCell) -> list[str]:
        """The digests of those runs of a cell that have finished."""
        return [digest for digest in cell.runs.values() if (done := self.by_digest.get(digest)) and done.finished]

    def _headline(self, cell: SuiteCell) -> Headline | None:
        """What the runs of a cell are judged by; None while none has finished."""
        finished = self._finished(cell)
        return headline_of(self._history(finished[0])) if finished else None

    def means(self) -> dict[str, float]:
        """Mean of each cell that has a value, for the tracker: {"COLUMN/ROW": mean in the shown unit}."""
        means: dict[str, float] = {}
        for cell in self.plan.cells.values():
            if values := self._read(cell).values:
                means[f"{cell.column}/{cell.row}"] = Spread.of(values.values()).mean
        return means

    def to_mapping(self) -> dict[str, Any]:
        """The suite as one JSON document. Figures are in the unit that is given beside them."""
        plan = self.plan
        return {
            "suite": plan.name,
            "title": plan.file.title,
            "status": self.status,
            "scale": plan.scale,
            "banner": self._banner(),
            "seeds": list(plan.seeds),
            "overrides": list(plan.overrides),
            "source": plan.file.published.source if plan.file.published else None,
            "cells": self._cell_mappings(),
            "runs": [self._run_mapping(digest) for digest in plan.runs],
            "differences": [
                difference.to_mapping()
                for difference in differences(plan, lambda cell: self._read(cell).values).values()
            ],
            "gap_shares": [
                {"row": row, "column": column} | share.to_mapping()
                for (row, column), share in self.gap_shares().items()
            ],
            "ranks": [ranking.to_mapping() for ranking in self.ranks().rankings],
            "analyses": [
                analysis.to_mapping(statements)
                for analysis, statements in zip(self.analyses, all_statements(self.analyses), strict=True)
            ],
            "notes": list(self._notes()),
        }

    def _read(self, cell: SuiteCell) -> CellReadings:
        return CellReadings({seed: self._seed_reading(cell, digest) for seed, digest in cell.runs.items()})

    def _seed_reading(self, cell: SuiteCell, digest: str) -> Reading:
        outcome = self.by_digest.get(digest)
        if outcome is None:
            return Reading.absent(Absence.NOT_RUN)
        if not outcome.finished:
            absence = Absence.FAILED if outcome.status == "failed" else Absence.INTERRUPTED
            return Reading.absent(absence, f"{outcome.status}: {outcome.reason}" if outcome.reason else "")
        return self._reading(digest, cell.measure, self._through(cell, digest))

    def _through(self, cell: SuiteCell, digest: str) -> int | None:
        """The number of rounds of a run that a cell reads; None: all."""
        of = cell.equal
        if of is None or self._is_reference(digest):
            return cell.through
        (seed,) = [seed for seed, of_seed in cell.runs.items() if of_seed == digest]
        beside = (other.runs[seed] for other in self.plan.cells.values() if other.column == cell.column and other.equal)
        spending = [
            self._history(other)
            for other in dict.fromkeys(beside)
            if not self._is_reference(other) and other in self.by_digest and self.by_digest[other].finished
        ]
        budget = common_budget(spending, of)
        return None if budget is None else affordable(self._history(digest), of, budget)

    def _is_reference(self, digest: str) -> bool:
        return self.plan.runs[digest].config.algorithm.name in REFERENCES

    def _reading(self, digest: str, measure: Measure, through: int | None) -> Reading:
        key = digest, measure, through
        if key not in self._readings:
            self._readings[key] = read(measure, self._history(digest), through)
        return self._readings[key]

    def _history(self, digest: str) -> pa.Table:
        if digest not in self._histories:
            directory = self.by_digest[digest].directory
            assert directory is not None
            self._histories[digest] = load_run(directory)[1]
        return self._histories[digest]

    def _cell(self, cell: SuiteCell, number: Number, readings: CellReadings) -> Cell:
        values, absence, text, note = readings.values, readings.absence, "", cell.note
        if not values and absence is not None:
            text = CELL_TEXTS.get(absence, "missing")
        is_explained_by_text = not values and absence in (Absence.NOT_RUN, Absence.NO_SUCH_ROUNDS)
        if absence is not None and not is_explained_by_text:
            note = f"{note} {readings.explanation}.".lstrip()
        figure = cell.published
        return Cell(
            text,
            Spread.of(values.values()),
            published=figure.value if figure else None,
            published_std=figure.std if figure else None,
            number=number,
            note=note,
        )

    def _cell_mappings(self) -> list[dict[str, Any]]:
        readings = {place: self._read(cell) for place, cell in self.plan.cells.items()}
        shown = {
            place: Cell(
                spread=Spread.of(readings[place].values.values()),
                published=cell.published.value if cell.published else None,
            )
            for place, cell in self.plan.cells.items()
        }
        judgements = judged_together({place: cell.p_value for place, cell in shown.items()})
        return [
            _cell_mapping(cell, readings[place], shown[place], judgements[place])
            for place, cell in self.plan.cells.items()
        ]

    def _run_mapping(self, digest: str) -> dict[str, Any]:
        run, outcome = self.plan.runs[digest], self.by_digest.get(digest)
        return {
            "label": run.label,
            "seed": run.config.seed,
            "config_hash": digest,
            "status": outcome.status if outcome else "not run",
            "reused": outcome.reused if outcome else False,
            "reason": (outcome.reason or None) if outcome else None,
            "directory": str(outcome.directory) if outcome and outcome.directory else None,
            "best_accuracy": outcome.summary.get("best_accuracy") if outcome else None,
            **(_best_of_task(outcome.summary) if outcome else {}),
            "chosen_on": outcome.summary.get("chosen_on") if outcome else None,
            "wall_seconds": outcome.summary.get("wall_seconds") if outcome else None,
            "model_sha256": outcome.summary.get("model_sha256") if outcome else None,
        }

    def _how_chosen(self) -> list[str]:
        """Sentences on the splits on which best rounds were chosen, of finished runs whose best value is shown."""
        splits: dict[Headline, set[str]] = {}
        for cell in self.plan.cells.values():
            for digest in self._finished(cell):
                summary = self.by_digest[digest].summary
                headline = headline_of_summary(summary)
                if cell.measure.value == headline_figures(headline)[0]:
                    splits.setdefault(headline, set()).add(str(summary.get("chosen_on", "test")))
        return [how_chosen(chosen_on, headline) for headline, chosen_on in splits.items()]

    def _measures_error(self, place: Place) -> bool:
        return self.plan.cells[place].measure.quantity.metric.is_error

    def _banner(self) -> str:
        plan, parts = self.plan, []
        if plan.label:
            compared = ": not comparable with the published figures" if plan.file.published else ""
            parts.append(f"{plan.label[0].upper()}{plan.label[1:]}{compared}.")
        if self.missing:
            parts.append(f"Incomplete: {len(plan.runs) - self.missing} of {len(plan.runs)} runs.")
        if self.failed:
            parts.append(f"{len(self.failed)} of {len(plan.runs)} runs failed.")
        parts += [f"Analysis {analysis.planned.part.name} failed." for analysis in self.analyses if analysis.failed]
        return " ".join(parts)

    def _notes(self) -> tuple[str, ...]:
        plan = self.plan
        notes = [f"Published: {plan.file.published.source}."] if plan.file.published else []
        notes += [f"{note.rstrip('.')}." for note in plan.file.notes]
        equal = {cell.column: cell.equal for cell in plan.cells.values() if cell.equal}
        notes += [sentence] if (sentence := equal_spending_note(equal)) else []
        notes += self._how_chosen()
        if plan.scaling:
            notes.append(f"{plan.label[0].upper()}{plan.label[1:]}: {'; '.join(plan.scaling)}.")
        chosen = [text for text in plan.overrides if not is_local(text)]
        if chosen:
            notes.append(f"Set on the command line: {', '.join(chosen)}.")
        notes += self.ranks().refusals
        directions = dict.fromkeys(not self._measures_error(place) for place in self.gap_shares())
        notes += [gap_explained(higher_is_better) for higher_is_better in directions]
        notes.append(f"Seeds: {', '.join(map(str, plan.seeds))}.")
        other = dict.fromkeys(outcome.other_versions for outcome in self.by_digest.values() if outcome.other_versions)
        notes += [f"Some runs were recorded with other versions or data: {line}." for line in other]
        return tuple(notes)


def _best_of_task(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The best value of what a run's task is judged by, where that is not accuracy."""
    headline = headline_of_summary(summary)
    best = headline_figures(headline)[0]
    return {} if headline == ACCURACY else {best: summary.get(best)}


def _cell_mapping(cell: SuiteCell, readings: CellReadings, shown: Cell, judgement: Judgement) -> dict[str, Any]:
    """A cell as plain values for JSON; what is concluded is null without a published figure or with too few seeds."""
    spread = Spread.of(readings.values.values())
    return {
        "row": cell.row,
        "column": cell.column,
        "quantity": cell.measure.value,
        "target": cell.measure.target,
        "unit": cell.measure.quantity.unit,
        "values": {str(seed): value for seed, value in readings.values.items()},
        "mean": spread.mean if spread.n else None,
        "std": spread.std if spread.n > 1 else None,
        "published": cell.published.value if cell.published else None,
        "published_std": cell.published.std if cell.published else None,
        "difference": shown.difference,
        "interval": list(spread.interval) if spread.interval else None,
        **judgement.to_mapping(),
        "absence": readings.explanation or None,
        "note": cell.note or None,
        "runs": {str(seed): digest for seed, digest in cell.runs.items()},
    }
