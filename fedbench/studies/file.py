"""A study as it is written down: YAML, checked whole before anything starts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fedbench.components.base import Section, explain
from fedbench.components.catalogue import CONFIG_KEYS
from fedbench.components.own_code import own_code
from fedbench.components.reference import LEFT_OUT
from fedbench.components.suggestions import did_you_mean
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.identity import OWN_CODE, portable
from fedbench.config.merge import overlaid, read_source
from fedbench.config.yaml_text import is_yaml_file, name_of
from fedbench.errors import ConfigError
from fedbench.records.headline import ACCURACY
from fedbench.studies.metrics import CHOOSERS, HEADLINES, OBJECTIVES, TO_TARGET, own_direction
from fedbench.studies.run_budget import RunBudget, check_equal_lengths
from fedbench.studies.space import AnyParameter, Space, Values
from fedbench.studies.task import check_metrics, check_one_task, check_target, default_objective
from fedbench.system.home import expanded

SHIPPED = tuple(Path(__file__).parents[level] / "sweeps" for level in (1, 2))
"""The folders of the studies that come with fedbench: in the installed package, or in the checkout."""


def _metric_name(name: str) -> str:
    if name not in OBJECTIVES:
        raise ValueError(f"no such metric{did_you_mean(name, OBJECTIVES)}")
    return name


MetricName = Annotated[str, BeforeValidator(_metric_name)]


class Objective(Section):
    """What is sought: the largest or smallest mean over the seeds of a metric.

    Attributes:
        metric: The metric: best_accuracy, best_validation_accuracy, best_perplexity, best_mae, ..., total_bytes,
            client_flops, virtual_seconds, joules, ..., or bytes_to_target and others with `target`; a wrong name is
            refused with the nearest one.
        direction: Whether the metric is to be large or small; left out, as it is better: accuracies are maximized, and
            errors, perplexities and costs minimized.
    """

    metric: MetricName
    direction: Literal["maximize", "minimize"] = Field(json_schema_extra={LEFT_OUT: "as it is better"})

    @model_validator(mode="before")
    @classmethod
    def _own_direction(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {"metric": values}
        if isinstance(values, Mapping) and "direction" not in values and values.get("metric") in OBJECTIVES:
            direction = own_direction(str(values["metric"]))
            return values if direction is None else {**values, "direction": direction}
        return values


class Constraint(Section):
    """A bound on a metric's mean over the seeds; a trial beyond it counts as infeasible.

    Attributes:
        metric: The metric that is bounded, by the names that objectives have.
        at_most: Upper bound; set one of the two.
        at_least: Lower bound; set one of the two.
    """

    metric: MetricName
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("at_most: set one of at_most and at_least")
        return self

    def violation(self, value: float) -> float:
        """Measure how far the bound is broken: above 0 where it is broken, as Optuna expects it."""
        if self.at_most is not None:
            return value - self.at_most
        assert self.at_least is not None
        return self.at_least - value


class Named(Section):
    """A sampler or pruner: Optuna's name for it, and Optuna's own parameters.

    Attributes:
        name: Its name; further keys beside the name are Optuna's parameters, such as n_startup_trials or seed.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """All but the name."""
        return dict(self.model_extra or {})


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class Budget(Section):
    """When a study ends; what comes first.

    Attributes:
        trials: Number of complete, pruned or failed trials, over all processes and starts.
        hours: Hours since this command began, after which no trial is begun.
        tflop: Client work of all trials together, in 10^12 FLOP; no trial is begun once it is spent.
    """

    trials: int | None = Field(default=None, ge=1)
    hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tflop: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class StudyFile(Section):
    """A study.

    Attributes:
        name: Name of the study, of its directory and of its parent run in MLflow.
        base: What every trial starts from: a preset, a YAML file or a mapping.
        overrides: Texts "section.key=value" that hold for every trial, in place of what the base has.
        space: What varies from trial to trial: {configuration key: {type: float, low: ..., high: ...}, ...}.
        objectives: One objective, or several for a Pareto front; a name alone is a metric. Left out: the best value of
            the metric by which the task is judged.
        sampler: What proposes the trials: tpe, nsgaii, nsgaiii, qmc, gp, cmaes, random, grid.
        pruner: What ends trials early: median, percentile, successive_halving, hyperband, threshold, wilcoxon. None:
            none is ended early.
        seeds: Seeds with which each trial is run once; its values are the means over them.
        budget: When the study ends.
        constraints: Bounds on metrics; the best trial is among those that keep to them.
        concurrency: Number of trials at a time; auto: as many as the cluster has room for.
        storage: URL of a database, or path of a journal. None: journal.log in the study's directory.
        target: The value that the *_to_target metrics ask for, of the metric by which the task is judged, such as an
            accuracy in 0..1 or a perplexity, on the validation split where there is one.
        run_budget: What each run spends, in place of `rounds`, so that trials are compared at equal cost.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", json_schema_extra={LEFT_OUT: "the file's name"})
    base: str | dict[str, Any] = "quickstart"
    overrides: tuple[str, ...] = ()
    space: dict[str, AnyParameter] = Field(min_length=1)
    objectives: tuple[Objective, ...] = Field(default=(), min_length=1)
    sampler: Annotated[Named, BeforeValidator(_named)] = Named(name="tpe")
    pruner: Annotated[Named | None, BeforeValidator(_named)] = None
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    budget: Budget = Budget(trials=20)
    constraints: tuple[Constraint, ...] = ()
    concurrency: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    storage: str | None = None
    target: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    run_budget: RunBudget | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        wanted = self.metrics()
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: one is there twice")
        for name in wanted:
            if name in TO_TARGET and self.target is None:
                raise ValueError(f"target: must be set, {name} is about it")
        if self.target is not None and not any(name in TO_TARGET for name in wanted):
            raise ValueError(f"target={self.target:g}: has no effect without one of {', '.join(TO_TARGET)}")
        if self.run_budget is not None and "rounds" in self.space:
            raise ValueError("space.rounds: has no effect with run_budget, which sets the rounds; leave one out")
        if self.pruner is not None and self.pruner.name not in ("nop", "none"):
            if len(self.objectives) > 1:
                raise ValueError(
                    f"pruner.name={self.pruner.name}: Optuna prunes studies of one objective, not of "
                    f"{len(self.objectives)}; leave the pruner out"
                )
            only = self.objectives[0] if self.objectives else None
            if only is not None and (only.metric not in HEADLINES or only.direction != own_direction(only.metric)):
                scores = " or ".join(figure for figure, headline in HEADLINES.items() if headline == ACCURACY)
                raise ValueError(
                    f"pruner.name={self.pruner.name}: compares scores as they come; the objective must be {scores}, "
                    "maximize, or that of another task in its own direction"
                )
        return self

    @cached_property
    def drawn_from(self) -> Space:
        """The space, checked."""
        return Space(self.space)

    @cached_property
    def base_values(self) -> dict[str, Any]:
        """The base with its overrides, nested; not yet checked."""
        source = dict(self.base) if isinstance(self.base, dict) else read_source(self.base)
        for key in CONFIG_KEYS.values():  # a bare name, as the command line has it
            if isinstance(source.get(key), str):
                source[key] = {"name": source[key]}
        source["name"] = self.name
        return overlaid(source, self.overrides)

    def config(self, drawn: Values, seed: int) -> ExperimentConfig:
        """The experiment of a trial.

        Raises:
            ConfigError: a key or value that there is not.
        """
        values = overlaid(self.base_values, self.drawn_from.overrides(drawn))
        runtime = values.setdefault("runtime", {})
        on_ray = runtime.get("executor", "ray") == "ray"
        if on_ray and runtime.get("actors") is None and runtime.get("clients_per_actor") is None:
            runtime["actors"] = 1  # most trials at a time, and none waits for its slowest actor
        return ExperimentConfig.from_mapping(values | {"seed": seed})

    def concrete(self, drawn: Values, seed: int) -> ExperimentConfig:
        """The experiment of a trial with the number of rounds that the run budget buys, where there is one.

        Raises:
            FedbenchError: as for `config`, and where the budget cannot be kept.
        """
        config = self.config(drawn, seed)
        return config if self.run_budget is None else self.run_budget.applied(config)

    def metrics(self) -> list[str]:
        """Objectives first, then what is only bounded."""
        sought, bounded = [one.metric for one in self.objectives], [one.metric for one in self.constraints]
        return list(dict.fromkeys(sought + bounded))

    def check(self) -> ExperimentConfig:
        """Try out a configuration of every kind of trial; the first of them.

        Raises:
            ConfigError: one that cannot be run, or has not what an objective asks for.
        """
        configs: list[ExperimentConfig] = []
        for drawn in self.drawn_from.branches():
            try:
                config = self.config(drawn, self.seeds[0])
                config.method.check(config)
                self._check_fit(config)
            except ConfigError as error:
                where = ", ".join(f"{name}={value}" for name, value in drawn.items())
                raise ConfigError(f"{error} (in a trial with {where})") from None
            configs.append(config)
        if self.run_budget is None:
            check_equal_lengths(configs, [objective.metric for objective in self.objectives], self.metrics())
        check_one_task(configs)
        check_metrics(self.metrics(), configs[0])
        check_target(self.target, configs[0])
        return configs[0]

    def _check_fit(self, config: ExperimentConfig) -> None:
        if config.rounds == "auto" and config.schedule.length(2) is None:
            raise ConfigError(f"rounds=auto: schedule.name={config.schedule.name} has no end; set rounds to a number")
        if config.output.directory is not None:
            raise ConfigError(f"output.directory={config.output.directory}: trials have directories of their own")
        if config.data.validation_fraction:
            for name in self.metrics():
                if name in CHOOSERS:
                    raise ConfigError(
                        f"{name}: is of the test split, which reports and does not choose; with "
                        f"data.validation_fraction={config.data.validation_fraction:g} choose by {CHOOSERS[name]}"
                    )
        for name in self.metrics():
            needs = OBJECTIVES[name].needs
            if config.delays.profile is None and (needs == "profile" or (needs and not config.asynchronous)):
                raise ConfigError(
                    f"{name}: with algorithm.name={config.algorithm.name} only runs on devices have it (delays.profile)"
                )
        if not config.asynchronous:
            for name in self.metrics():
                if OBJECTIVES[name].is_asynchronous:
                    raise ConfigError(f"{name}: is of asynchronous runs; algorithm.name={config.algorithm.name} is not")

    def definition(self) -> str:
        """Hex digest of what makes trials comparable: all but budget, search, concurrency, places."""
        values = self.model_dump(mode="json", include={"space", "objectives", "constraints", "target", "run_budget"})
        base = {"data": {}} | portable(self.base_values)
        document = {**values, "base": base, "seeds": list(self.seeds)}
        if code := own_code(document):
            document[OWN_CODE] = code
        return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[:16]


def load_study(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    trials: int | None = None,
    concurrency: int | None = None,
    storage: str | None = None,
) -> StudyFile:
    """A study file, or a shipped study by name, with changes from the command line.

    Args:
        source: name or path; or the values that a file would hold, with the study's name.
        overrides: "base=PRESET", "name=NAME" and "run_budget.KEY=NUMBER" of the study; everything else is of the base
            configuration. Another base makes another study, NAME-BASE, unless it is given a name.
        trials, concurrency, storage: in place of those of the file.

    Raises:
        ConfigError: one line with the key, the value and what is allowed.
    """
    if isinstance(source, Mapping):
        values = dict(source)
    else:
        path = find_study(source)
        values = {"name": name_of(path)} | read_source(path)
    pairs = [(key, text) for key, _, text in (override.partition("=") for override in overrides)]
    own = {key: text for key, text in pairs if key in ("base", "name") or key.startswith("run_budget.")}
    if limits := {key.partition(".")[2]: text for key, text in own.items() if key.startswith("run_budget.")}:
        values["run_budget"] = limits
    if "base" in own:
        values["base"] = own["base"]
        values["name"] = f"{values['name']}-{Path(own['base']).stem}"
    values["name"] = own.get("name", values["name"])
    given = values.get("overrides") or []
    if not isinstance(given, list | tuple):
        raise ConfigError(f"overrides={given}: must be a list of section.key=value texts")
    values["overrides"] = [*given, *(text for text in overrides if text.partition("=")[0] not in own)]
    if trials is not None:
        budget = values.get("budget")
        values["budget"] = (budget if isinstance(budget, dict) else {}) | {"trials": trials}
    changes = {"concurrency": concurrency, "storage": storage}
    return parse_study(values | {key: value for key, value in changes.items() if value is not None})


def parse_study(values: Mapping[str, Any]) -> StudyFile:
    """Check nested plain values; where they name no objective, the data are loaded, whose task decides it.

    Raises:
        ConfigError: one line with the key, the value and what is allowed.
    """
    study = _checked(values)
    if not study.objectives:
        drawn = next(iter(study.drawn_from.branches()))
        study = _checked({**values, "objectives": [default_objective(study.config(drawn, study.seeds[0]))]})
    study.check()
    return study


def _checked(values: Mapping[str, Any]) -> StudyFile:
    """The study that these values are, as far as it is told without the experiments that it makes."""
    try:
        return StudyFile.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, "", list(StudyFile.model_fields))) from None


def find_study(source: str | Path) -> Path:
    """The file that a name or a path means.

    Raises:
        ConfigError: there is none.
    """
    path = expanded(source)
    if is_yaml_file(path):
        return path
    shipped = shipped_studies()
    if str(source) not in shipped:
        raise ConfigError(f"{source}: no such study{did_you_mean(str(source), shipped)} (or a .yaml file)")
    return shipped[str(source)]


def shipped_studies() -> dict[str, Path]:
    """The studies that come with fedbench, by name."""
    return {path.stem: path for folder in reversed(SHIPPED) for path in sorted(folder.glob("*.yaml"))}
