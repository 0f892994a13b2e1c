"""A suite made concrete: every cell's configuration, checked, and the distinct runs among them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from fedbench.components.suggestions import did_you_mean
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.merge import drop_parameters_of_replaced_components, merged, parse_overrides, read_source, resolved
from fedbench.config.yaml_text import dump_yaml
from fedbench.errors import ConfigError, FedbenchError
from fedbench.planning.schedules import Cyclic
from fedbench.suites.cell_values import Measure
from fedbench.suites.equal_spending import Spending
from fedbench.suites.file import Branch, Figure, Place, SuiteFile, Until, leaves, path_name
from fedbench.suites.plan import Plan, PlannedAnalysis, Run, SuiteCell, slug
from fedbench.suites.scale import LayerCounts, rounds_of, scaled

Address = tuple[str, str]
"""Row and column of a cell."""

Located = tuple[ExperimentConfig, int | None]
"""A cell's configuration, and up to which round it is read."""

RESERVED = ("seed", "name", "output.directory", "output")
"""What a suite sets itself."""


def expand(
    name: str,
    suite: SuiteFile,
    *,
    seeds: Sequence[int] | None = None,
    only: str | None = None,
    scale: float = 1.0,
    overrides: Sequence[str] = (),
) -> Plan:
    """Make a suite concrete; every configuration is checked.

    Args:
        name: of the suite, for messages.
        seeds: instead of the suite's.
        only: "ROW/COLUMN", a row or a column, with wildcards.
        scale: of rounds and data, greater than 0, at most 1.
        overrides: "section.key=value" texts, over everything that the suite sets.

    Raises:
        ConfigError: a row, column or key that is not there, or a configuration that cannot be run.
    """
    if not 0 < scale <= 1:
        raise ConfigError(f"--scale={scale:g}: must be greater than 0 and at most 1")
    for text in overrides:
        if text.partition("=")[0] in RESERVED:
            raise ConfigError(f"{text}: a suite sets this for each run; seeds are given by --seeds")
    return _Expansion(name, suite, tuple(suite.seeds if seeds is None else seeds), scale, tuple(overrides)).plan(only)


def expand_around(plan: Plan, seeds: Sequence[int]) -> Plan:
    """The whole table that a selection is part of; cells that its overrides do not fit are left out.

    Args:
        seeds: instead of the selection's.
    """
    return _Expansion(plan.name, plan.file, tuple(seeds), plan.scale, plan.overrides).around(set(plan.cells))


class _Expansion:
    """The work of `expand`."""

    def __init__(
        self, name: str, suite: SuiteFile, seeds: tuple[int, ...], scale: float, overrides: tuple[str, ...]
    ) -> None:
        self._name, self._suite, self._seeds, self._scale = name, suite, seeds, scale
        self._own_base, self._overrides = _base_and_others(name, suite, overrides)
        self._as_given = overrides
        self._rows = {path_name(path): path for path in leaves(suite.rows)}
        self._columns = {path_name(path): path for path in leaves(suite.columns)}
        self._all = [(row, column) for row in self._rows for column in self._columns]
        untils = [part.until for paths in (self._rows, self._columns) for path in paths.values() for part in path]
        self._cycles_read = max((until.cycle or 1 for until in untils if isinstance(until, Until)), default=1)
        self._groups = LayerCounts()
        self._sources: dict[str, dict[str, Any]] = {}
        self._scaling: dict[str, None] = {}
        self._published = self._read_published()
        self._places = [(self._match(place.at, f"suite {name}: cells.at"), place) for place in suite.cells]
        self._analysed = [(self._in_order(part.cells, part.name), part) for part in suite.analyses]

    def plan(self, only: str | None) -> Plan:
        chosen = self._match(only, "--only") if only else set(self._all)
        configs = {place: self._config(*place) for place in self._all if place in chosen}
        return self._plan_of(configs, only or "")

    def around(self, chosen: set[Address]) -> Plan:
        configs: dict[Address, Located] = {}
        for place in self._all:
            try:
                self._measure(*place)
                configs[place] = self._config(*place)
            except FedbenchError:
                if place in chosen:
                    raise
        return self._plan_of(configs, "")

    def _plan_of(self, configs: dict[Address, Located], only: str) -> Plan:
        runs, digests = self._runs(configs)
        cells = {
            place: SuiteCell(
                *place,
                self._measure(*place),
                {seed: digests[place, seed] for seed in self._seeds},
                through,
                self._published.get(place),
                " ".join(about.note for about in self._about(*place) if about.note),
                _equal(self._until((*self._rows[place[0]], *self._columns[place[1]]))),
            )
            for place, (_, through) in configs.items()
        }
        return Plan(
            self._name,
            self._suite,
            self._seeds,
            tuple(name for name in self._rows if any(name == row for row, _ in cells)),
            tuple(name for name in self._columns if any(name == column for _, column in cells)),
            cells,
            runs,
            self._scale,
            tuple(self._scaling),
            self._as_given,
            only,
            tuple(self._analyses(cells, runs)),
        )

    def _analyses(self, cells: dict[Address, SuiteCell], runs: dict[str, Run]) -> Iterator[PlannedAnalysis]:
        """The analyses whose cells are all there, with the runs that each looks into."""
        scaled_to = f" scaled to {self._scale:g}"
        for places, part in self._analysed:
            if all(place in cells for place in places):
                digests = {seed: [cells[place].runs[seed] for place in places] for seed in self._seeds}
                called = {digest: run.label.removesuffix(scaled_to) for digest, run in runs.items()}
                by_seed = {seed: {digest: called[digest] for digest in of_seed} for seed, of_seed in digests.items()}
                own = self._suite.seeds
                yield PlannedAnalysis(part, by_seed, own[0] if len(own) == 1 else None)

    def _in_order(self, patterns: Sequence[str], name: str) -> list[Address]:
        """The cells that the patterns of an analysis mean, in the order of the patterns and then of the table."""
        key = f"suite {self._name}: analyses {name}: cells"
        matched = [self._match(pattern, key) for pattern in patterns]
        return list(dict.fromkeys(place for chosen in matched for place in self._all if place in chosen))

    def _match(self, pattern: str, key: str) -> set[Address]:
        """The cells that "ROW/COLUMN" means; a group's name means all of it."""
        row, slash, column = pattern.partition("/")
        rows = _matching(row or "*", self._rows)
        columns = _matching(column or "*", self._columns)
        if not slash and not rows:  # a column alone
            rows, columns = list(self._rows), _matching(row, self._columns)
        if not rows or not columns:
            raise ConfigError(
                f"{key}={pattern}: suite {self._name} has no such {'column' if rows else 'row'}; "
                f"rows: {', '.join(self._rows)}; columns: {', '.join(self._columns)}"
            )
        return {(row_name, column_name) for row_name in rows for column_name in columns}

    def _about(self, row: str, column: str) -> list[Place]:
        return [place for cells, place in self._places if (row, column) in cells]

    def _read_published(self) -> dict[Address, Figure]:
        published: dict[Address, Figure] = {}
        for row, figures in (self._suite.published.values if self._suite.published else {}).items():
            where = f"suite {self._name}: published.values.{row}"
            if row not in self._rows:
                raise ConfigError(f"{where}: no such row{did_you_mean(row, self._rows)}")
            if isinstance(figures, list):
                if len(figures) != len(self._columns):
                    raise ConfigError(f"{where}: {len(figures)} figures for {len(self._columns)} columns")
                published |= {
                    (row, column): figure for column, figure in zip(self._columns, figures, strict=True) if figure
                }
                continue
            for column, figure in figures.items():
                if column not in self._columns:
                    raise ConfigError(f"{where}.{column}: no such column{did_you_mean(column, self._columns)}")
                published[row, column] = figure
        return published

    def _measure(self, row: str, column: str) -> Measure:
        given = [part.measure for part in (*self._rows[row], *self._columns[column]) if part.measure is not None]
        if not given:
            raise ConfigError(f"suite {self._name}: {row}/{column}: measure must be set by the row or the column")
        return given[-1]

    def _config(self, row: str, column: str) -> Located:
        """The cell's configuration without its seed, and up to which round it is read."""
        where = f"suite {self._name}: {row}/{column}"
        path = (*self._rows[row], *self._columns[column])
        try:
            values = self._base(path)
            layers = [self._suite.set, *(part.set for part in path)]
            layers += [place.set for place in self._about(row, column)]
            for layer in layers:
                values = _over(values, [f"{key}={_as_text(value)}" for key, value in layer.items()])
            values = {**_over(values, self._overrides), "name": slug(f"{self._name} {row} {column}")}
            config = ExperimentConfig.from_mapping(resolved(_without_what_runs_set(values)))
            return self._concrete(config, path)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def _base(self, path: Branch) -> dict[str, Any]:
        bases = [part.base for part in path if part.base is not None]
        if len(bases) > 1:
            raise ConfigError(f"base is set {len(bases)} times on the way to this cell; set it once")
        base = bases[0] if bases else self._own_base or self._suite.base
        if base is None:
            raise ConfigError("base must be set by the suite, the row or the column")
        if isinstance(base, dict):
            return base
        if base not in self._sources:
            self._sources[base] = read_source(base)
        return self._sources[base]

    def _concrete(self, config: ExperimentConfig, path: Branch) -> Located:
        full = [part.full_updates for part in path if part.full_updates is not None]
        until, as_full = self._until(path), bool(full and full[-1])
        needs_groups = self._scale < 1 or as_full or (isinstance(until, Until) and until.cycle is not None)
        groups = self._groups(config) if needs_groups else 0
        config, words = scaled(config, self._scale, groups, self._cycles_read)
        if words:
            self._scaling[words] = None
        through = _through(until, config, groups, self._scale)
        if as_full:
            if not isinstance(config.schedule, Cyclic):
                raise ConfigError(f"schedule.name={config.schedule.name}: full_updates needs a schedule with a length")
            full_schedule = {"rounds": rounds_of(config, groups), "schedule": {"name": "full"}}
            config = ExperimentConfig.from_mapping(config.to_mapping() | full_schedule)
        return config, through

    @staticmethod
    def _until(path: Branch) -> Until | str | None:
        """Up to where a cell is read, by its row and column."""
        untils = [part.until for part in path if part.until is not None]
        return untils[-1] if untils else None

    def _runs(self, configs: dict[Address, Located]) -> tuple[dict[str, Run], dict[tuple[Address, int], str]]:
        """The distinct runs, and which one each cell and seed reads."""
        users: dict[str, list[Address]] = {}
        for place, (config, _) in configs.items():
            users.setdefault(config.digest(), []).append(place)
        labels = {
            digest: _label(self._rows[places[0][0]], self._columns[places[0][1]]) for digest, places in users.items()
        }
        counts = Counter(labels.values())
        labels = {
            digest: label if counts[label] == 1 else " ".join(users[digest][0]) for digest, label in labels.items()
        }
        runs: dict[str, Run] = {}
        digests: dict[tuple[Address, int], str] = {}
        for seed in self._seeds:
            for unseeded, places in users.items():
                label = labels[unseeded] + (f" scaled to {self._scale:g}" if self._scale < 1 else "")
                config = configs[places[0]][0].model_copy(update={"seed": seed, "name": slug(f"{self._name} {label}")})
                run = Run(label, config, *places[0])
                runs[run.digest] = run
                digests |= {(place, seed): run.digest for place in places}
        return runs, digests


def _base_and_others(name: str, suite: SuiteFile, overrides: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """(the base that the command line gives in place of the suite's, the other overrides).

    Raises:
        ConfigError: it is given twice, or the suite's rows and columns have bases of their own.
    """
    bases = [text.partition("=")[2] for text in overrides if text.startswith("base=")]
    others = tuple(text for text in overrides if not text.startswith("base="))
    if len(bases) > 1:
        raise ConfigError(f"base={bases[1]}: is set {len(bases)} times; set it once")
    if bases and suite.base is None:
        raise ConfigError(f"base={bases[0]}: suite {name} has no base of its own that it could stand for; leave it out")
    return (bases[0] if bases else None), others


def _equal(until: Until | str | None) -> Spending | None:
    return until.equal if isinstance(until, Until) else None


def _through(until: Until | str | None, config: ExperimentConfig, groups: int, scale: float) -> int | None:
    if until is None or _equal(until) is not None:
        return None
    if isinstance(until, Until) and until.round is not None:
        return max(1, round(until.round * scale))
    schedule = config.schedule
    if not isinstance(schedule, Cyclic):
        raise ConfigError(f"schedule.name={schedule.name}: has no cycles, so until={until} has no meaning")
    if not isinstance(until, Until):
        return schedule.warmup_rounds
    return schedule.model_copy(update={"cycles": until.cycle}).length(groups)


def _label(row: Branch, column: Branch) -> str:
    """The names of what sets something for a run."""
    names: list[str] = []
    for path in (row, column):
        setting = [
            depth for depth, part in enumerate(path, 1) if part.set or part.base or part.full_updates is not None
        ]
        names += [part.name for part in path[: max(setting, default=0)]]
    return " ".join(names) or path_name(row)


def _matching(pattern: str, paths: dict[str, Branch]) -> list[str]:
    wanted = pattern.lower()
    return [
        name
        for name, path in paths.items()
        if any(fnmatchcase(path_name(path[:depth]).lower(), wanted) for depth in range(1, len(path) + 1))
        or fnmatchcase(path[-1].name.lower(), wanted)
    ]


def _over(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Nested values with overrides over them; parameters of a replaced part are forgotten."""
    changes = parse_overrides(overrides)
    below = merged({}, values)
    for key, part in below.items():
        below[key] = merged({}, part) if isinstance(part, dict) else part
    drop_parameters_of_replaced_components(below, changes)
    return merged(below, changes)


def _without_what_runs_set(values: dict[str, Any]) -> dict[str, Any]:
    """Without seed and output directory, which each run gets later.

    Raises:
        ConfigError: something is made from the seed, and would be the same for all of them.
    """
    kept = {key: value for key, value in values.items() if key not in ("seed", "output")}
    if "${seed}" in repr(kept):
        raise ConfigError("${seed}: a suite gives each run its seed, so nothing in its base can be made from it")
    return kept


def _as_text(value: object) -> str:
    return dump_yaml(value, default_flow_style=True, width=10**6).strip().removesuffix("...").strip()
