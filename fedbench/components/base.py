"""What every exchangeable part is: a named, frozen, checked set of parameters with the code beside it.

Datasets, partitions, models, schedules, algorithms, optimizers and learning-rate schedules derive from
`Component`. Writing one is writing a class with typed fields: the fields are the keys that a configuration
may set, their types and bounds are what is checked, and the docstring's first line is what
`fedbench list` shows.
"""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(BaseModel):
    """A part of an experiment that is chosen by name and checked with its own parameters.

    Attributes:
        name: A built-in name, or the import path of a class ("package.module:Class").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    @classmethod
    def create(cls, key: str, parameters: dict[str, Any]) -> "Component":
        """Check `parameters` and make the component.

        Raises:
            ConfigError: one line that starts with the dotted `key` of the offending parameter.
        """
        try:
            return cls.model_validate(parameters)
        except ValidationError as error:
            label = f"{key}.name={parameters.get('name')}"
            raise ConfigError(explain(error, key, list(cls.model_fields), label)) from None


def explain(error: ValidationError, prefix: str, known: list[str], owner: str = "") -> str:
    """One line for one of pydantic's complaints: the dotted key, the value given, what is allowed.

    Args:
        error: pydantic's error.
        prefix: dotted key of the object that was checked, "" for the root.
        known: the keys that the object does have, for suggestions.
        owner: what does not know the key, for the text ("schedule.name=full").
    """
    # An unknown key is named first: it is often the misspelt one that another error misses.
    first, *others = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in (prefix, *first["loc"]) if part != "")
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        leaf = str(first["loc"][-1])
        whose = f" with {owner}" if owner else ""
        return f"{key}: unknown key{whose}{did_you_mean(leaf, known)}{more}"
    if first["type"] == "missing":
        return f"{key}: must be set{f' with {owner}' if owner else ''}{more}"
    message = first["msg"].removeprefix("Value error, ")
    message = re.sub(r"^(Input|String|List|Tuple) should", "must", message)
    message = re.sub(r"valid dictionary or instance of \w+", "mapping of keys to values", message)
    given = first.get("input")
    if first["type"] == "value_error" and isinstance(given, dict):
        # Checks across keys begin with the key that they are about.
        joint = "." if re.match(r"\w+=", message) else ": "
        return f"{key}{joint}{message}{more}" if key else f"{message}{more}"
    return f"{key}={given}: {message}{more}"
