"""The suite file: its keys, and how they are checked before anything runs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from fedbench.components.base import Section, explain
from fedbench.components.suggestions import did_you_mean
from fedbench.config.yaml_text import is_yaml_file, read_yaml
from fedbench.errors import ConfigError
from fedbench.suites.analysis_part import AnalysisPart, Statement
from fedbench.suites.cell_values import Measure
from fedbench.suites.equal_spending import Spending
from fedbench.system.home import expanded

SUITES = Path(__file__).parent / "shipped"

NAME = r"^[^/*?\[\]]+$"
"""Pattern of the names of rows and columns: without the characters that have a meaning in `--only`."""


class Until(Section):
    """Up to where a run is read: the end of a cycle, a round, or an equal spending.

    Attributes:
        cycle: The number, from 1, of the cycle of the cell's schedule at whose end the run is read; a run of full
            updates is read at the same round.
        round: The number of rounds after which the run is read; scaled with the run.
        equal: bytes, flops: the run is read at the last round by which the run has spent no more bytes (sent up and
            down), or FLOPs, than the row of its column that spends least has in all, seed by seed. References
            (`centralised`, `local`) are read at their end, and are not looked at for what is spent.
    """

    cycle: int | None = Field(default=None, ge=1)
    round: int | None = Field(default=None, ge=1)
    equal: Spending | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [self.cycle, self.round, self.equal].count(None) != 2:
            raise ValueError(f"cycle={self.cycle}, round={self.round} and equal={self.equal}: set one of the three")
        return self


class Part(Section):
    """A row, a column, or a group of them; what a group sets holds for all below it.

    Attributes:
        name: Its name in the table and for `--only`.
        base: A preset, a YAML file or a mapping, in place of the suite's base.
        set: Dotted configuration keys and their values, in place of those of the base.
        full_updates: Whether the runs make full network updates, in as many rounds as the cell's own schedule has.
        measure: What the table shows of the runs; a name stands for {value: NAME}. None: what a group above it, or the
            other side of the table sets; of each cell its row or its column must set one.
        until: Up to where the runs are read, {cycle: N}, {round: N} or {equal: bytes}; `warmup`: the full updates
            before the first cycle. None: to their end.
    """

    name: str = Field(min_length=1, pattern=NAME)
    base: str | dict[str, Any] | None = None
    set: dict[str, Any] = Field(default={})
    full_updates: bool | None = None
    measure: Measure | None = None
    until: Until | Literal["warmup"] | None = None

    @field_validator("measure", mode="before")
    @classmethod
    def _measure_by_name(cls, value: object) -> object:
        return {"value": value} if isinstance(value, str) else value

    @property
    def parts(self) -> "tuple[Part, ...]":
        """The parts that it is a group of."""
        return ()


class Row(Part):
    """A row, or a group of rows.

    Attributes:
        rows: The rows of the group; without any it is a single row.
    """

    rows: "tuple[Row, ...]" = ()

    @property
    def parts(self) -> "tuple[Part, ...]":
        return self.rows


class Column(Part):
    """A column, or a group of columns.

    Attributes:
        columns: The columns of the group; without any it is a single column.
    """

    columns: "tuple[Column, ...]" = ()

    @property
    def parts(self) -> "tuple[Part, ...]":
        return self.columns


Branch = tuple[Part, ...]
"""The parts from the outermost group down to a row or a column."""


class Place(Section):
    """Something about single cells.

    Attributes:
        at: The cells, by ROW/COLUMN as for `--only`.
        set: Dotted configuration keys and their values, in place of those of row and column.
        note: A footnote of the cells.
    """

    at: str
    set: dict[str, Any] = Field(default={})
    note: str = ""


class Figure(Section):
    """A published figure.

    Attributes:
        value: The figure, in the unit of its column.
        std: The standard deviation of the figure, where one is printed.
    """

    value: float
    std: float | None = Field(default=None, ge=0)


class Published(Section):
    """What a paper prints.

    Attributes:
        source: The paper and its table from which the figures are.
        values: {row: {column: figure}}; a figure is a number or "MEAN +- STD". A list stands for the columns in order,
            with null where nothing is printed.
    """

    source: str = Field(min_length=1)
    values: dict[str, dict[str, Figure] | list[Figure | None]]

    @field_validator("values", mode="before")
    @classmethod
    def _figures(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        read: dict[str, object] = {}
        for row, cells in values.items():
            if isinstance(cells, dict):
                read[row] = {column: _figure(given, f"{row}.{column}") for column, given in cells.items()}
            elif isinstance(cells, list):
                read[row] = [_figure(given, f"{row}.{place}") for place, given in enumerate(cells)]
            else:
                raise ValueError(f"{row}: must be a mapping of columns to figures, or a list of figures")
        return read


def _figure(given: object, where: str) -> object:
    if isinstance(given, int | float):
        return {"value": given}
    if isinstance(given, str):
        figure = re.fullmatch(r"(-?\d+(?:\.\d+)?)(?: *\+- *(\d+(?:\.\d+)?))?", given.strip())
        if figure is None:
            raise ValueError(f"{where}: {given!r} is no figure; write a number or 'MEAN +- STD'")
        return {"value": float(figure[1])} | ({"std": float(figure[2])} if figure[2] else {})
    return given


class SuiteFile(Section):
    """A suite: base, grid, seeds, the table's rows and columns, and what was published.

    Attributes:
        title: The heading of the table.
        base: What every run starts from, where no row or column names another base: a preset, a YAML file or a mapping.
        set: Dotted configuration keys and their values, for every run.
        seeds: The seeds with which every cell is run, unless `--seeds` names others.
        corner: The heading above the names of the rows.
        rows, columns: The rows and columns of the table, in order; each pair of them is a cell, whose runs take the
            settings of both.
        cells: Settings and footnotes of single cells.
        published: Published figures, shown beside what was measured.
        baseline: A row or column, or one within each group, that the others are measured against in a further table.
        notes: Sentences below the table.
        analyses: Analyses that are performed over the runs when these are done.
    """

    title: str = Field(min_length=1)
    base: str | dict[str, Any] | None = None
    set: dict[str, Any] = Field(default={})
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    corner: str = ""
    rows: tuple[Row, ...] = Field(min_length=1)
    columns: tuple[Column, ...] = Field(min_length=1)
    cells: tuple[Place, ...] = ()
    published: Published | None = None
    baseline: str = ""
    notes: tuple[str, ...] = ()
    analyses: tuple[AnalysisPart, ...] = ()

    @field_validator("analyses")
    @classmethod
    def _named_once(cls, analyses: tuple[AnalysisPart, ...]) -> tuple[AnalysisPart, ...]:
        names = [analysis.name for analysis in analyses]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]!r} stands there twice; each needs a name of its own")
        return analyses

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("must be different whole numbers of at least 0")
        return seeds


def suite_names() -> list[str]:
    """The suites that come with fedbench."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def suite_summary(name: str) -> str:
    """The first line of a shipped suite, which says what it is."""
    first = (SUITES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip()


def suite_path(name: str) -> Path:
    """The file of a shipped suite, or of one's own.

    Raises:
        ConfigError: there is none.
    """
    path = expanded(name) if is_yaml_file(name) else SUITES / f"{name}.yaml"
    if not path.is_file():
        if path.parent != SUITES:
            raise ConfigError(f"{name}: no such file")
        raise ConfigError(f"{name}: no such suite{did_you_mean(name, suite_names())} (or a .yaml file)")
    return path


def read_suite(path: Path) -> SuiteFile:
    """Read and check a suite file.

    Raises:
        ConfigError: one line with the file, the key, the value and what is allowed.
    """
    label = f"suite {path.stem}"
    values = read_yaml(path, label)
    try:
        suite = SuiteFile.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{label}: {explain(error, '', _known_keys(error))}") from None
    for kind, parts in (("rows", suite.rows), ("columns", suite.columns)):
        names = [path_name(path) for path in leaves(parts)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"{label}: {kind}: {twice[0]!r} stands there twice; each needs a name of its own")
    _check_baseline(suite, label)
    return suite


def _check_baseline(suite: SuiteFile, label: str) -> None:
    paths = [*leaves(suite.rows), *leaves(suite.columns)]
    names = list(dict.fromkeys(name for path in paths for name in (path[-1].name, path_name(path))))
    if suite.baseline and suite.baseline not in names:
        near = did_you_mean(suite.baseline, names)
        raise ConfigError(f"{label}: baseline={suite.baseline}: no such row or column{near}")


def _known_keys(error: ValidationError) -> list[str]:
    """The keys that stand beside the first offending one."""
    kinds: dict[str, type[Section]] = {"rows": Row, "columns": Column, "cells": Place, "published": Published}
    kinds |= {"until": Until, "measure": Measure, "analyses": AnalysisPart, "statements": Statement}
    first = min(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    section: type[Section] = SuiteFile
    for part in first["loc"][:-1]:
        section = kinds.get(str(part), section)
    return list(section.model_fields)


def leaves(parts: "tuple[Part, ...]", above: Branch = ()) -> Iterator[Branch]:
    """The rows or columns in order, each with the groups above it."""
    for part in parts:
        if part.parts:
            yield from leaves(part.parts, (*above, part))
        else:
            yield (*above, part)


def path_name(path: Branch) -> str:
    """The name of a row or column with the groups above it: "cifar10 C=1"."""
    return " ".join(part.name for part in path)
