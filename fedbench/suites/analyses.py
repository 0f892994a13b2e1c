"""The analyses of a suite, performed over its runs when they are done; what is there already is not done again."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedbench import __version__
from fedbench.errors import FedbenchError
from fedbench.records.recorded_analysis import FOLDER, RecordedAnalysis, read_analysis
from fedbench.suites.analysis_outcome import AnalysisOutcome
from fedbench.suites.plan import Plan, PlannedAnalysis
from fedbench.suites.results import Outcomes
from fedbench.suites.statements import judged, statements_table

if TYPE_CHECKING:
    from fedbench.analysis.recorded_model import RecordedModel
    from fedbench.analysis.results import Analysis


def perform_analyses(
    outcomes: Outcomes, folder: Path, say: Callable[[str], None], *, force: bool = False
) -> Iterator[AnalysisOutcome]:
    """Perform the analyses of a suite, one after the other.

    Args:
        outcomes: what became of the runs of the whole table.
        folder: the folder of the suite.
        say: shows a line on what is done next.
        force: perform also what is there already.
    """
    for planned in outcomes.plan.analyses:
        by_seed: dict[int, RecordedAnalysis] = {}
        reasons: list[str] = []
        failed = is_new = False
        for seed in planned.seeds:
            missing = [
                outcomes.plan.runs[digest].title
                for digest in planned.runs(seed)
                if digest not in outcomes.by_digest or not outcomes.by_digest[digest].finished
            ]
            if missing:
                reasons.append(f"{missing[0]} is not finished")
                continue
            recorded = None if force else _recorded(planned, seed, outcomes, folder)
            try:
                by_seed[seed] = recorded or _perform(planned, seed, outcomes, folder, say)
                is_new = is_new or recorded is None
            except FedbenchError as error:
                reasons.append(str(error))
                failed = True
        yield AnalysisOutcome(planned, by_seed, "; ".join(dict.fromkeys(reasons)), failed, is_new)


def _recorded(planned: PlannedAnalysis, seed: int, outcomes: Outcomes, folder: Path) -> RecordedAnalysis | None:
    """The analysis of one seed as it was performed before on the same models; None where it was not."""
    try:
        recorded = read_analysis(folder / FOLDER / planned.folder(seed))
    except FedbenchError:
        return None
    return recorded if recorded.identity == _identity(planned, seed, outcomes) else None


def _perform(
    planned: PlannedAnalysis, seed: int, outcomes: Outcomes, folder: Path, say: Callable[[str], None]
) -> RecordedAnalysis:
    """Perform one analysis with one seed.

    Raises:
        FedbenchError: it cannot be performed.
    """
    name, identity = planned.folder(seed), _identity(planned, seed, outcomes)
    say(f"analysis {name}: {planned.part.kind} of {len(planned.runs(seed))} runs")
    from fedbench.analysis.results import write_analysis

    analysis = planned.part.settings.performed(_models(planned, seed, outcomes), _Lines(say))
    analysis = _with_statements(analysis, planned, seed)
    title = f"{outcomes.plan.file.title}: analyses"
    return write_analysis(analysis, folder, name, title=title, identity=identity)


def _with_statements(analysis: "Analysis", planned: PlannedAnalysis, seed: int) -> "Analysis":
    """The analysis with the published statements as its last table."""
    if not planned.part.statements:
        return analysis
    judgements = judged(planned.part.statements, {seed: analysis.metrics})
    return replace(analysis, tables=(*analysis.tables, statements_table("Published statements", judgements)))


def _models(planned: PlannedAnalysis, seed: int, outcomes: Outcomes) -> "list[RecordedModel]":
    """The models with which the runs ended, called as the suite calls them."""
    from fedbench.analysis.recorded_model import open_model

    places = [text for text in outcomes.plan.overrides if text.startswith("data.root=")]
    models = []
    for digest, called in planned.runs(seed).items():
        directory = outcomes.by_digest[digest].directory
        assert directory is not None
        models.append(replace(open_model(directory, places), called=called))
    return models


def _identity(planned: PlannedAnalysis, seed: int, outcomes: Outcomes) -> str:
    """Identifies an analysis: its options, the statements, the models in their order, and the version of fedbench."""
    models = [
        [digest, called, outcomes.by_digest[digest].summary.get("model_sha256")]
        for digest, called in planned.runs(seed).items()
    ]
    content = [planned.part.model_dump(mode="json"), models, __version__]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Lines:
    """A progress that says a line from time to time."""

    def __init__(self, say: Callable[[str], None], seconds: float = 30.0) -> None:
        import time

        self._clock, self._say, self._seconds = time.monotonic, say, seconds
        self._said_at = self._clock()

    def __call__(self, done: int, total: int, text: str) -> None:
        if self._clock() - self._said_at >= self._seconds:
            self._said_at = self._clock()
            self._say(f"{done}/{total}  {text}")


def planned_words(plan: Plan) -> list[str]:
    """One line for each analysis that a suite performs when its runs are done."""
    return [
        f"then {analysis.part.name}: {analysis.part.kind} of {len(analysis.runs(analysis.seeds[0]))} runs"
        + (f", for each of {len(analysis.seeds)} seeds" if len(analysis.seeds) > 1 else "")
        for analysis in plan.analyses
    ]
