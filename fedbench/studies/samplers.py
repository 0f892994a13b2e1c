"""Optuna's samplers and pruners by name, with their own parameters."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError
from fedbench.studies.file import Named, StudyFile
from fedbench.studies.space import Space

SAMPLERS = {
    "tpe": "TPESampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
    "qmc": "QMCSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "random": "RandomSampler",
    "grid": "GridSampler",
}
PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
    "nop": "NopPruner",
}
NEEDS = {
    "cmaes": (("cmaes",), "pip install cmaes"),
    "gp": (("scipy", "torch"), "pip install scipy torch"),
    "qmc": (("scipy",), "pip install scipy"),
}
"""Packages that Optuna imports only for these, and how to get them."""

SEED_STEP = 1_000
"""Between the seeds of two processes, or starts, of one study: they must not draw the same."""

BOUNDS = "fedbench:bounds"
"""User attribute of a trial: how far each constraint is broken, above 0 where it is."""


def make_sampler(study: StudyFile, start: int) -> BaseSampler:
    """The sampler that a study asks for. `grid` visits every combination once, those of conditional spaces, too.

    Args:
        start: which process or start of the study this is, from 0.

    Raises:
        ConfigError: no such sampler or parameter, a missing package, or constraints that it cannot follow.
    """
    wanted = study.sampler
    name = _known("sampler", wanted.name, SAMPLERS)
    modules, way = NEEDS.get(name, ((), ""))
    for module in modules:
        if find_spec(module) is None:
            raise ConfigError(f"sampler.name={wanted.name}: needs the package {module}, which is not installed: {way}")
    if name == "grid":
        return _grid(study.drawn_from, wanted, bool(study.constraints))
    if name == "cmaes" and len(study.objectives) > 1:
        raise ConfigError(f"sampler.name={wanted.name}: knows one objective; use tpe, nsgaii, nsgaiii, gp or random")
    made = getattr(optuna.samplers, SAMPLERS[name])
    known = inspect.signature(made.__init__).parameters
    given = dict(wanted.parameters)
    if study.constraints:
        if "constraints_func" not in known:
            able = [
                one
                for one, kind in SAMPLERS.items()
                if "constraints_func" in inspect.signature(getattr(optuna.samplers, kind).__init__).parameters
            ]
            raise ConfigError(f"constraints: sampler.name={wanted.name} cannot follow any; use {', '.join(able)}")
        given["constraints_func"] = bounds_of
    if "constant_liar" in known:
        given.setdefault("constant_liar", True)  # else trials that run beside each other are drawn alike
    if "warn_independent_sampling" in known:
        given.setdefault("warn_independent_sampling", False)
    # Joined processes share one low-discrepancy sequence; everyone else draws on their own.
    if isinstance(given.get("seed"), int) and name != "qmc":
        given["seed"] += SEED_STEP * start
    if name == "qmc":
        given.setdefault("seed", 0)
        given.setdefault("warn_asynchronous_seeding", False)
    sampler = _make(made, "sampler", wanted, given)
    assert isinstance(sampler, BaseSampler)
    return sampler


def is_grid(study: StudyFile) -> bool:
    """Whether every combination is visited once."""
    return _known("sampler", study.sampler.name, SAMPLERS) == "grid"


def _grid(space: Space, wanted: Named, bounded: bool) -> BaseSampler:
    if bounded:
        raise ConfigError(f"constraints: sampler.name={wanted.name} cannot follow any; use tpe, nsgaii, nsgaiii or gp")
    next(space.combinations())
    # The combinations are put into the study's queue one by one, which knows nothing of conditions but obeys them.
    return _make_random(wanted)


def _make_random(wanted: Named) -> RandomSampler:
    for key in wanted.parameters:
        if key != "seed":
            raise ConfigError(f"sampler.{key}: unknown key with sampler.name={wanted.name}; allowed: seed")
    return RandomSampler(seed=wanted.parameters.get("seed"))


def make_pruner(study: StudyFile) -> BasePruner:
    """The pruner that a study asks for; one that prunes nothing where it asks for none.

    Raises:
        ConfigError: no such pruner or parameter.
    """
    if study.pruner is None:
        return NopPruner()
    name = _known("pruner", study.pruner.name, PRUNERS)
    pruner = _make(getattr(optuna.pruners, PRUNERS[name]), "pruner", study.pruner, dict(study.pruner.parameters))
    assert isinstance(pruner, BasePruner)
    return pruner


def bounds_of(trial: FrozenTrial) -> Sequence[float]:
    """What Optuna asks of a finished trial: above 0 for each constraint that it breaks."""
    return tuple(trial.user_attrs[BOUNDS])


def _known(kind: str, given: str, names: dict[str, str]) -> str:
    """The key of `names` that is meant: it, Optuna's class, or another spelling (NSGA-II, SuccessiveHalving)."""
    plain = given.lower().replace("-", "").replace("_", "").removesuffix(kind)
    for name in names:
        if plain == name.replace("_", ""):
            return name
    raise ConfigError(f"{kind}.name={given}: no such {kind}{did_you_mean(given, names)}")


def _make(made: Callable[..., Any], kind: str, wanted: Named, given: dict[str, Any]) -> Any:
    known = [key for key in inspect.signature(made.__init__).parameters if key != "self"]
    for key in wanted.parameters:
        if key not in known:
            raise ConfigError(f"{kind}.{key}: unknown key with {kind}.name={wanted.name}{did_you_mean(key, known)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Optuna calls experimental was asked for by name
        try:
            return made(**given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{kind}.name={wanted.name}: {str(error).splitlines()[0]}") from None
