"""What became of an analysis of a suite, and what it says of the published statements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedbench.records.recorded_analysis import RecordedAnalysis
from fedbench.suites.plan import PlannedAnalysis
from fedbench.suites.statements import Judged, judged, judged_as_one_family


@dataclass(frozen=True)
class AnalysisOutcome:
    """What became of one analysis of a suite.

    Attributes:
        planned: what was to be done.
        by_seed: {seed: the analysis of the runs with this seed}.
        reason: why it is not whole, one line; "": it is.
        failed: whether that is a failure, and not only that runs are missing.
        is_new: whether it was performed now, and not only read.
    """

    planned: PlannedAnalysis
    by_seed: Mapping[int, RecordedAnalysis] = field(default_factory=dict)
    reason: str = ""
    failed: bool = False
    is_new: bool = False

    @property
    def statements(self) -> list[Judged]:
        """The published statements beside the figures of each seed; [] without an analysis."""
        metrics = {seed: analysis.metrics for seed, analysis in self.by_seed.items()}
        return judged(self.planned.part.statements, metrics) if metrics else []

    def to_mapping(self, statements: Sequence[Judged]) -> dict[str, Any]:
        """Plain values for JSON.

        Args:
            statements: those of this analysis, as they are judged together with those of others.
        """
        return {
            "name": self.planned.part.name,
            "kind": self.planned.part.kind,
            "status": "failed" if self.failed else "missing" if self.reason else "finished",
            "reason": self.reason or None,
            "directories": {str(seed): str(analysis.folder) for seed, analysis in self.by_seed.items()},
            "metrics": {str(seed): analysis.metrics for seed, analysis in self.by_seed.items()},
            "statements": [statement.to_mapping() for statement in statements],
        }


def all_statements(analyses: Sequence[AnalysisOutcome]) -> list[list[Judged]]:
    """The statements of each analysis; what is concluded is corrected for the comparisons of all analyses."""
    of_each = [analysis.statements for analysis in analyses]
    together = iter(judged_as_one_family(statement for statements in of_each for statement in statements))
    return [[next(together) for _ in statements] for statements in of_each]
