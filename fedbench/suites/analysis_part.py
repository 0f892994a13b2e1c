"""The part of a suite's file on analyses over its runs, and on what was published of them."""

from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from fedbench.analysis.kinds import settings_class
from fedbench.analysis.results import NAME
from fedbench.analysis.settings import AnalysisSettings
from fedbench.components.base import Section, explain


class Statement(Section):
    """A published statement as a direction: figures of the analysis in their order.

    Attributes:
        says: The statement in words.
        source: The paper and its figure or table from which the statement is.
        ascending: Names of figures of the analysis, from the smallest to the largest as published; a name is one that
            `fedbench analyze KIND --json` has among its metrics.
    """

    says: str = Field(min_length=1)
    source: str = Field(min_length=1)
    ascending: tuple[str, ...] = Field(min_length=2)


class AnalysisPart(Section):
    """An analysis over the suite's runs, performed when they are done.

    Attributes:
        name: The name of its folder, below `analysis` in the suite's folder.
        kind: The analysis to perform; `fedbench analyze` lists them.
        cells: The cells whose runs are looked into, in this order, by ROW/COLUMN as for `--only`.
        set: Options of the analysis, by the names of `fedbench analyze KIND --help`, with _ for -.
        statements: Published statements, to be shown beside what was measured.
    """

    name: str = Field(pattern=f"^{NAME.pattern}$")
    kind: str
    cells: tuple[str, ...] = ("*",)
    set: dict[str, Any] = Field(default={})
    statements: tuple[Statement, ...] = ()

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        settings_class(kind)
        return kind

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        try:
            _ = self.settings
        except ValidationError as error:
            known = list(settings_class(self.kind).model_fields)
            raise ValueError(f"set.{explain(error, '', known)}") from None
        return self

    @property
    def settings(self) -> AnalysisSettings:
        """The options of the analysis, checked."""
        return settings_class(self.kind).model_validate(self.set)
