"""A reference of configuration keys, read off the checked classes: type, default and meaning of every field.

The meanings are the "Attributes:" sections of the class and of its bases; what a field may hold is in its annotation.
"""

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedbench.components.base import Component

REQUIRED = "(must be set)"
OF_ITS_KEYS = "(those of its keys)"

LEFT_OUT = "left_out"
"""Key of a field's `json_schema_extra`: in words, what a required field is filled in with where it is left out."""

PLAIN_TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path", Any: "anything"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}


@dataclass(frozen=True)
class KeyReference:
    """What may be written under one key.

    Attributes:
        key: the key within its section.
        type: what it may hold, in words.
        default: its value where it is left out, as YAML; "(must be set)" where there is none.
        meaning: what it does.
    """

    key: str
    type: str
    default: str
    meaning: str

    def to_mapping(self) -> dict[str, str]:
        """The fields as a JSON document."""
        return asdict(self)


def key_references(section: type[BaseModel]) -> list[KeyReference]:
    """One entry per field of a checked class, in their order."""
    meanings = field_meanings(section)
    return [
        KeyReference(key, type_in_words(field.annotation, field.metadata), default_in_words(field), meanings[key])
        for key, field in section.model_fields.items()
    ]


def field_meanings(section: type[BaseModel]) -> dict[str, str]:
    """{field: what the docstrings of a class and its bases say of it}; "" for a field that none of them names."""
    meanings = dict.fromkeys(section.model_fields, "")
    for owner in reversed(section.__mro__):
        described = attributes_section(owner.__dict__.get("__doc__") or "")
        meanings |= {name: text for name, text in described.items() if name in meanings}
    return meanings


def attributes_section(docstring: str) -> dict[str, str]:
    """{attribute: its text} of a docstring's "Attributes:" section, with null for None, as YAML has it.

    Several names before a colon share the text.

    >>> attributes_section("Sum.\\n\\n    Attributes:\\n        a, b: What is\\n            added.\\n")
    {'a': 'What is added.', 'b': 'What is added.'}
    """
    section = re.search(r"^Attributes:\n((?: +.*\n|\n)+)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else ():
        entry = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        names = entry[1].split(", ") if entry else names
        for name in names:
            texts[name] = f"{texts.get(name, '')} {entry[2] if entry else line.strip()}".strip()
    return {name: re.sub(r"\bNone\b", "null", text) for name, text in texts.items()}


def default_in_words(field: FieldInfo) -> str:
    """A field's default as YAML has it."""
    if isinstance(field.json_schema_extra, dict) and LEFT_OUT in field.json_schema_extra:
        return f"({field.json_schema_extra[LEFT_OUT]})"
    return REQUIRED if field.is_required() else _as_yaml(field.get_default(call_default_factory=True))


def _as_yaml(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Component):
        return value.name
    if isinstance(value, BaseModel):
        changed = {name: part for name, part in value.model_dump(exclude_defaults=True).items() if part != {}}
        return _as_yaml(changed) if changed else OF_ITS_KEYS
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_as_yaml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    return str(value) or '""'


def type_in_words(annotation: Any, metadata: Sequence[object] = ()) -> str:
    """What a field may hold.

    Args:
        annotation: the field's type.
        metadata: bounds on it, as pydantic keeps them.

    >>> type_in_words(Literal["ray", "inline"] | None)
    'ray | inline; or null'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_in_words(arguments[0], [*arguments[1:], *metadata])
    constraints = [part for item in metadata for part in (item, *getattr(item, "metadata", ()))]
    limits = "".join(f", {bound}" for constraint in constraints for bound in _bounds(constraint))
    if origin in (Union, types.UnionType):
        nullable = "; or null" if type(None) in arguments else ""
        alternatives = [type_in_words(part) for part in arguments if part is not type(None)]
        return " or ".join(dict.fromkeys(alternatives)) + limits + nullable
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (list, tuple):
        items = [part for part in arguments if part is not Ellipsis]
        count = f"{len(arguments)} " if origin is tuple and Ellipsis not in arguments else ""
        return f"list of {count}{_plural(type_in_words(items[0]))}" + limits
    if origin is dict:
        value = type_in_words(arguments[1])
        return "mapping" if "mapping" in value or arguments[1] is Any else f"mapping of names to {_grouped(value)}"
    if isinstance(annotation, type) and issubclass(annotation, Component):
        return "name, import path, or mapping with name and parameters"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return PLAIN_TYPES.get(annotation, str(annotation)) + limits


def _plural(words: str) -> str:
    """ "whole numbers" for "whole number"; longer phrases in brackets as they are."""
    return f"{words}s" if words in ("mapping", "number", "path", "text", "whole number") else _grouped(words)


def _grouped(words: str) -> str:
    return f"({words})" if " or " in words or "," in words or ";" in words else words


def _bounds(constraint: object) -> list[str]:
    """The bounds that a constraint sets, in words; none for constraints of other kinds."""
    values = {name: getattr(constraint, name, None) for name in BOUNDS}
    return [f"{BOUNDS[name]} {_short(value)}" for name, value in values.items() if value is not None]


def _short(number: float) -> str:
    return "2^63" if number == 2**63 else f"{number:g}"
