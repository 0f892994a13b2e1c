"""Base class of every exchangeable part: a name, checked parameters, and the code that they are for.

Data sets, partitions, models, schedules, algorithms, optimizers and learning-rate schedules derive from `Component`. A
new one is a class with typed fields. The fields are the keys that a configuration may set and are checked against their
types and bounds; `fedbench list` shows the first line of the docstring, `fedbench help` its "Attributes:" section.
"""

import itertools
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError
from fedbench.system.home import expanded

DECIMAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
WHOLE = re.compile(r"[-+]?[0-9]+")
LONGEST_NUMBER = 100
"""Characters of a number, at most; whole numbers of thousands of digits take long to read."""

ALTERNATIVE = re.compile(r"(constrained-)?(float|int|bool|str)|tuple\[.*")
"""What pydantic adds to the place of an error where a key takes values of several types."""

LONGEST_SHOWN = 200
"""Characters of a value that an error message shows, at most."""


class Checked(BaseModel):
    """Values that are checked singly: numbers are finite and decimal, in quotes or not; paths may begin with `~`."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {
            key: _as_numbers(value, fields[key].annotation, key) if key in fields else value
            for key, value in values.items()
        }

    @model_validator(mode="before")
    @classmethod
    def _home_in_paths(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields.items()
        paths = {key for key, field in fields if Path in (field.annotation, *get_args(field.annotation))}
        return {
            key: expanded(value) if key in paths and isinstance(value, str | Path) else value
            for key, value in values.items()
        }


class Section(Checked):
    """A part of the configuration: frozen, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Component(Checked):
    """A part of an experiment that is chosen by name and checked with its own parameters.

    Attributes:
        name: A built-in name, or the import path of a class ("package.module:Class").
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    @classmethod
    def create(cls, key: str, parameters: dict[str, Any]) -> "Component":
        """Check parameters and make the component.

        Args:
            key: the dotted key under which the configuration has the component.
            parameters: the values of its fields, `name` included.

        Raises:
            ConfigError: a parameter is unknown, missing or out of bounds; one line that starts with its dotted key.
        """
        try:
            return cls.model_validate(parameters)
        except ValidationError as error:
            label = f"{key}.name={parameters.get('name')}"
            raise ConfigError(explain(error, key, keys_beside(cls, error), label)) from None


def _as_numbers(value: Any, annotation: Any, key: str) -> Any:
    """A value in which each text stands for the decimal number that it spells, where a number is asked for.

    Args:
        value: as it was given.
        annotation: the type of the field that it is for; what may be a text or a truth value stays as it is.
        key: the field, for messages.

    Raises:
        ValueError: a truth value, or a text with digits that no decimal number has, in place of a number.
    """
    options = _alternatives(annotation)
    if isinstance(value, list | tuple | dict):
        return _items_as_numbers(value, options, key)
    allowed = {word for option in options if get_origin(option) is Literal for word in get_args(option)}
    if not isinstance(value, bool | str) or not {int, float} & options or {bool, str, Path, Any} & options:
        return value
    if isinstance(value, str):
        if DECIMAL.fullmatch(value):
            if len(value) > LONGEST_NUMBER:
                raise ValueError(f"{key}={value[:20]}...: a number of {len(value):,} characters")
            return int(value) if WHOLE.fullmatch(value) else float(value)
        if value in allowed or "_" not in value:
            return value
    shown = str(value).lower() if isinstance(value, bool) else value
    raise ValueError(f"{key}={shown}: must be a number, in decimal digits")


def _alternatives(annotation: Any) -> set[Any]:
    """The types that an annotation allows, without their bounds."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_alternatives, get_args(annotation)))
    return {annotation}


def _items_as_numbers(value: Any, options: set[Any], key: str) -> Any:
    """`_as_numbers` for the items of a list or the values of a mapping, where just one type in `options` has such."""
    kinds = (dict,) if isinstance(value, dict) else (list, tuple)
    typed = [option for option in options if get_origin(option) in kinds]
    if len(typed) != 1:
        return value
    item = get_args(typed[0])[-1 if isinstance(value, dict) else 0]
    if isinstance(value, dict):
        return {name: _as_numbers(part, item, f"{key}.{name}") for name, part in value.items()}
    return type(value)(_as_numbers(part, item, key) for part in value)


def explain(error: ValidationError, prefix: str, known: list[str], owner: str = "") -> str:
    """One line about the first problem that pydantic reports: the dotted key, the value given, what is allowed.

    Args:
        error: pydantic's error.
        prefix: dotted key of the object that was checked, "" for the root.
        known: the keys that the object does have, for suggestions.
        owner: the part to which an unknown or missing key belongs, for the message ("schedule.name=full").
    """
    # An unknown key comes first: it is often the misspelling of a key that is reported as missing.
    first, *others = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    inside = [problem for problem in others if _key_of(problem) == _key_of(first) and len(problem["loc"]) > 1]
    deepest = max(inside, key=lambda problem: len(problem["loc"]), default=first)
    if len(deepest["loc"]) > len(first["loc"]):  # what is wrong inside a list says more than that a list is no number
        others = [problem for problem in others if _key_of(problem) != _key_of(first)]
        first = deepest
    place = [str(part) for part in (prefix, *first["loc"]) if part != ""]
    key = ".".join(part for part in place if not ALTERNATIVE.fullmatch(part))
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        leaf = str(first["loc"][-1])
        with_owner = f" with {owner}" if owner else ""
        return f"{key}: unknown key{with_owner}{did_you_mean(leaf, known)}{more}"
    if first["type"] == "missing":
        return f"{key}: must be set{f' with {owner}' if owner else ''}{more}"
    message = first["msg"].removeprefix("Value error, ")
    message = re.sub(r"^(Input|String|List|Tuple) should", "must", message)
    message = re.sub(r"valid dictionary or instance of \w+", "mapping of keys to values", message)
    given = first.get("input")
    if first["type"] == "value_error" and isinstance(given, dict):
        # The message of a check across several keys begins with one of them.
        joint = "." if re.match(r"\w+=", message) else ": "
        return f"{key}{joint}{message}{more}" if key else f"{message}{more}"
    shown = str(given)
    return f"{key}={shown if len(shown) <= LONGEST_SHOWN else shown[:LONGEST_SHOWN] + '...'}: {message}{more}"


def _key_of(problem: Any) -> tuple[Any, ...]:
    """The key that a problem of pydantic's is about: its place up to the alternative that was tried."""
    place = problem["loc"]
    return tuple(itertools.takewhile(lambda part: not ALTERNATIVE.fullmatch(str(part)), place))


def keys_beside(root: type[BaseModel], error: ValidationError) -> list[str]:
    """The keys of the section in which pydantic's first problem is."""
    fields = root.model_fields
    first = min(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    for part in first["loc"][:-1]:
        annotation = fields[str(part)].annotation if str(part) in fields else None
        sections = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        models = [kind for kind in sections if issubclass(kind, BaseModel) and not issubclass(kind, Component)]
        if not models:
            break
        fields = models[0].model_fields
    return list(fields)
