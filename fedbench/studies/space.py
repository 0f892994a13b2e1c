"""What a study varies, and how a trial's parameters become overrides of the base configuration: pure, without Optuna.

Parameters are drawn in an order in which each comes after those that it depends on (`when`), so that one that the
trial has no use for is never drawn.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BeforeValidator, Field, model_validator

from fedbench.components.base import Section
from fedbench.components.suggestions import did_you_mean
from fedbench.config.identity import ASIDE
from fedbench.errors import ConfigError

Scalar = str | float | int | bool | None
Values = dict[str, Any]
"""Drawn parameters by name."""

MOST_BRANCHES = 512
"""Configurations that are tried out before a study starts, at most."""


class Trial(Protocol):
    """What draws a value: an Optuna trial, or something that stands for one."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high]."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | float | int | bool) else value


class Parameter(Section):
    """One entry of `space`.

    Attributes:
        key: The dotted configuration key that it sets. None: the entry's own name.
        when: {name of another entry: its values with which this one is drawn}; all must hold.
    """

    key: str | None = None
    when: dict[str, Annotated[list[Scalar], BeforeValidator(_listed)]] = Field(default={})


class Float(Parameter):
    """A number between two bounds.

    Attributes:
        type: Must be float.
        low: The smallest value, itself included.
        high: The largest value, itself included.
        step: Distance between the values, counted from low; null: any number.
        log: Whether to draw on a logarithmic scale.
    """

    type: Literal["float"]
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    step: float | None = Field(default=None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.log, self.step)
        return self

    def draw(self, name: str, trial: Trial) -> float:
        """A value."""
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def values(self) -> list[Any] | None:
        """All of them; None for a continuous range."""
        if self.step is None:
            return [self.low] if self.low == self.high else None
        return [self.low + i * self.step for i in range(int((self.high - self.low) / self.step + 1e-8) + 1)]


class Int(Parameter):
    """A whole number between two bounds.

    Attributes:
        type: Must be int.
        low: The smallest value, itself included.
        high: The largest value, itself included.
        step: Distance between the values, counted from low.
        log: Whether to draw on a logarithmic scale.
    """

    type: Literal["int"]
    low: int
    high: int
    step: int = Field(default=1, ge=1)
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.log, None if self.step == 1 else self.step)
        return self

    def draw(self, name: str, trial: Trial) -> int:
        """A value."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def values(self) -> list[Any] | None:
        """All of them."""
        return list(range(self.low, self.high + 1, self.step))


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"low={low}: must not be above high={high}")
    if log and low <= 0:
        raise ValueError(f"low={low}: must be above 0 with log")
    if log and step is not None:
        raise ValueError(f"step={step}: has no effect with log; leave one of the two out")


class Categorical(Parameter):
    """One of several values.

    Optuna sees the values, or the labels.

    Attributes:
        type: Must be categorical.
        choices: A list of values, or a mapping {label: {dotted key: value, ...}} where a choice sets several keys at
            once.
    """

    type: Literal["categorical"]
    choices: list[Any] | dict[str, dict[str, Any]] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if isinstance(self.choices, dict) and self.key is not None:
            raise ValueError(f"key={self.key}: has no effect where each choice names its own keys")
        labels = self.labels()
        for label in labels:
            if sum(same(label, other) for other in labels) > 1:
                raise ValueError(f"choices={labels}: {label!r} is there twice")
        return self

    def labels(self) -> list[Scalar]:
        """What Optuna chooses from; a value that it does not take is shown as JSON."""
        if isinstance(self.choices, dict):
            return list(self.choices)
        return [value if isinstance(value, Scalar) else json.dumps(value, sort_keys=True) for value in self.choices]

    def draw(self, name: str, trial: Trial) -> Scalar:
        """A label."""
        drawn: Scalar = trial.suggest_categorical(name, self.labels())
        return drawn

    def values(self) -> list[Any] | None:
        """All labels."""
        return list(self.labels())

    def settings(self, key: str, label: Scalar) -> Values:
        """What a choice sets, by dotted key."""
        if isinstance(self.choices, dict):
            return self.choices[str(label)]
        place = next(i for i, other in enumerate(self.labels()) if same(label, other))
        return {key: self.choices[place]}


AnyParameter = Annotated[Float | Int | Categorical, Field(discriminator="type")]
Entries = Mapping[str, Float | Int | Categorical]

FIXED = ("seed", *ASIDE)
"""What a study does not vary: `seeds` has a key of its own, and the rest does not change the result."""


class Space:
    """All entries, in the order in which they are drawn."""

    def __init__(self, entries: Entries) -> None:
        """Raises:
        ConfigError: a condition names what is not there or cannot be, conditions go in a circle, or a key is not a
            study's to vary.
        """
        self._entries = dict(entries)
        for name, entry in entries.items():
            for key in self._keys(name):
                if key.split(".")[0] in FIXED:
                    raise ConfigError(
                        f"space.{name}: {key} is not varied in a study; what changes no result is set in overrides, "
                        "seeds are listed in seeds"
                    )
            for other, allowed in entry.when.items():
                if other not in entries:
                    raise ConfigError(f"space.{name}.when.{other}: no such entry{did_you_mean(other, entries)}")
                possible = entries[other].values()
                for value in allowed if possible is not None else ():
                    if not any(same(value, one) for one in possible or ()):
                        raise ConfigError(f"space.{name}.when.{other}={value}: is never drawn; drawn are {possible}")
        self.names = _in_order(entries)
        self._parents = [name for name in self.names if any(name in entry.when for entry in entries.values())]

    def _keys(self, name: str) -> list[str]:
        entry = self._entries[name]
        if isinstance(entry, Categorical) and isinstance(entry.choices, dict):
            return sorted({key for settings in entry.choices.values() for key in settings})
        return [entry.key or name]

    def draw(self, trial: Trial) -> Values:
        """Parameters by name, those alone that the trial has a use for."""
        drawn: Values = {}
        for name in self.names:
            if self._active(name, drawn):
                drawn[name] = self._entries[name].draw(name, trial)
        return drawn

    def _active(self, name: str, drawn: Values) -> bool:
        return all(
            other in drawn and any(same(drawn[other], value) for value in allowed)
            for other, allowed in self._entries[name].when.items()
        )

    def overrides(self, drawn: Values) -> list[str]:
        """Drawn parameters as "section.key=value" texts.

        >>> space = Space({"local.lr": Float(type="float", low=1e-5, high=1e-5)})
        >>> space.overrides({"local.lr": 1e-05})
        ['local.lr=1e-05']
        """
        settings: Values = {}
        for name, value in drawn.items():
            entry = self._entries[name]
            of_this = (
                entry.settings(entry.key or name, value)
                if isinstance(entry, Categorical)
                else {entry.key or name: value}
            )
            for key in of_this:
                if key in settings:
                    raise ConfigError(f"space.{name}: {key} is set by another entry in the same trial")
            settings |= of_this
        return [f"{key}={json.dumps(value)}" for key, value in settings.items()]

    def combinations(self) -> Iterator[Values]:
        """Every possible trial once.

        Raises:
            ConfigError: an entry is continuous.
        """
        for name, entry in self._entries.items():
            if entry.values() is None:
                raise ConfigError(f"space.{name}: a grid needs values to visit; give it a step, or choices")
        yield from self._combined(0, {}, lambda name: self._entries[name].values() or [])

    def size(self) -> int | None:
        """Number of possible trials; None where an entry is continuous."""
        if any(entry.values() is None for entry in self._entries.values()):
            return None
        return sum(1 for _ in self.combinations())

    def branches(self) -> Iterator[Values]:
        """A trial of every kind: each way through the conditions, at both ends, and each choice at least once."""

        def ends(name: str) -> list[Any]:
            entry = self._entries[name]
            if name in self._parents:
                return entry.values() or _ends(entry)
            return _ends(entry)[:1]

        def first_ends(name: str) -> list[Any]:
            return ends(name) if name in self._parents else _ends(self._entries[name])[-1:]

        seen: list[Values] = []
        for choose in (ends, first_ends):
            for drawn in itertools.islice(self._combined(0, {}, choose), MOST_BRANCHES):
                seen.append(drawn)
                yield drawn
        for drawn in seen:
            for name in drawn:
                entry = self._entries[name]
                if isinstance(entry, Categorical) and name not in self._parents:
                    yield from (drawn | {name: label} for label in entry.labels()[1:-1])

    def _combined(self, place: int, drawn: Values, choose: Callable[[str], list[Any]]) -> Iterator[Values]:
        if place == len(self.names):
            yield drawn
            return
        name = self.names[place]
        if not self._active(name, drawn):
            yield from self._combined(place + 1, drawn, choose)
            return
        for value in choose(name):
            yield from self._combined(place + 1, drawn | {name: value}, choose)


def same(one: object, other: object) -> bool:
    """Equality that tells true from 1, as YAML does, but not 1 from 1.0."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _ends(entry: Float | Int | Categorical) -> list[Any]:
    if isinstance(entry, Categorical):
        labels = entry.labels()
        return [labels[0], labels[-1]]
    return [entry.low, (entry.values() or [entry.high])[-1]]


def _in_order(entries: Entries) -> list[str]:
    """Names, each after those of its conditions, otherwise as written.

    Raises:
        ConfigError: conditions go in a circle.
    """
    order: list[str] = []
    waiting = list(entries)
    while waiting:
        ready = [name for name in waiting if all(other in order for other in entries[name].when)]
        if not ready:
            raise ConfigError(f"space: the conditions of {', '.join(waiting)} go in a circle")
        order.append(ready[0])
        waiting.remove(ready[0])
    return order


def in_words(parameters: Mapping[str, Any]) -> str:
    """name=value for each, in one line."""
    return " ".join(f"{name}={number(value)}" for name, value in parameters.items())


def number(value: Any) -> str:
    """Four digits are enough to compare."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
