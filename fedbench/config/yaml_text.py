"""YAML as configurations, suites, studies and overrides have it: each text has one meaning, and reading it always ends.

Numbers are decimal: `010` is 10, `1e-6` is a number, and what YAML 1.1 takes for octal, hexadecimal, binary or base-60
numbers (`0x10`, `1_000`, `1:30`) is text, which no number key takes. `true` and `false` are the only truth values, so
that `yes`, `no`, `on` and `off` can be names. A key that stands twice, an anchor within itself, deep nesting and texts
that anchors make endless are refused.
"""

import copy
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fedbench.components.base import LONGEST_NUMBER
from fedbench.errors import ConfigError
from fedbench.system.regular_files import read_regular

SUFFIXES = (".yaml", ".yml", ".json")
"""Ends of the names of files with YAML, in small letters; JSON is YAML, too."""

LARGEST_FILE = 2**22
"""Bytes of a file, at most."""

DEEPEST = 40
"""Levels of nesting, at most."""

MOST_NODES = 100_000
"""Values in a text with all anchors written out, at most."""

LONGEST_KEPT = 2**14
"""Characters of a text whose value is kept, at most: presets and the files of a run are read again and again."""

_PREFIX = "tag:yaml.org,2002:"
_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_RESOLVERS = (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"^<<$"), "<"),
)
_KINDS = frozenset(_PREFIX + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge"))
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class YamlFault(ValueError):
    """A text that is not read as YAML; the message is one line."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the numbers and truth values of this module."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own attribute

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._count = 0

    def get_event(self) -> yaml.Event:
        """The next event, whose nesting is checked before PyYAML's recursion meets it."""
        event: yaml.Event = super().get_event()  # type: ignore[no-untyped-call]
        self._depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if self._depth > DEEPEST:
            raise YamlFault(f"is nested more than {DEEPEST} levels deep")
        self._count += 1
        if self._count > 2 * MOST_NODES:
            raise YamlFault(f"has more than {MOST_NODES:,} values")
        return event


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes what either of the two loaders takes for something else than a text."""


for _name, _pattern, _first in _RESOLVERS:
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_PREFIX + _name, _pattern, list(_first))


def _construct_int(loader: _Loader, node: ScalarNode) -> int:
    return int(node.value)


def _construct_float(loader: _Loader, node: ScalarNode) -> float:
    text = node.value.lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor(_PREFIX + "int", _construct_int)
_Loader.add_constructor(_PREFIX + "float", _construct_float)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: None, truth values, numbers, texts, lists and mappings of them.

    Raises:
        YamlFault: it is not YAML, or one of the things that this module refuses.

    >>> parse_yaml("{lr: 1e-6, seed: 010, name: on}")
    {'lr': 1e-06, 'seed': 10, 'name': 'on'}
    """
    return copy.deepcopy(_kept(text)) if len(text) <= LONGEST_KEPT else _parsed(text)


def _parsed(text: str) -> Any:
    check_printable(text)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_node(node, {}, ())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except YamlFault:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise YamlFault(" ".join(str(error).split())[:300]) from None


_kept = lru_cache(maxsize=512)(_parsed)


def read_yaml(path: Path, label: str) -> dict[str, Any]:
    """The mapping that a file holds.

    Args:
        path: the file.
        label: how it is called in messages.

    Raises:
        ConfigError: it cannot be read, or holds no mapping.
    """
    try:
        values = parse_yaml(read_regular(path, follow=True, limit=LARGEST_FILE).decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{label}: no such file") from None
    except (OSError, UnicodeDecodeError, YamlFault) as error:
        raise ConfigError(f"{label}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{label}: expected a mapping of keys to values, found {type(values).__name__}")
    return values


def parse_value(text: str) -> Any:
    """The value of an override: YAML, or else the text itself.

    Raises:
        YamlFault: it begins like a list, a mapping or a quoted text and is none, or has characters that nobody sees.
    """
    check_printable(text)
    try:
        return parse_yaml(text)
    except YamlFault:
        if text.lstrip()[:1] in tuple("[{\"'&*!|>"):
            raise
        if len(text) > LONGEST_NUMBER and _FLOAT.match(text):
            raise
        return text


def dump_yaml(value: Any, **options: Any) -> str:
    """YAML text from which `parse_yaml`, and any other reader of YAML, makes the same value."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options)
    return text


def check_printable(text: str) -> None:
    """Refuse control characters other than line breaks and tabs, and halves of surrogate pairs.

    Raises:
        YamlFault: there is one.
    """
    if hidden := _UNPRINTABLE.search(text):
        raise YamlFault(f"holds the character U+{ord(hidden[0]):04X}, which no text may have")


def is_yaml_file(source: str | Path) -> bool:
    """Whether a name is that of a file rather than of something that comes with fedbench."""
    path = Path(source)
    return path.suffix.lower() in SUFFIXES or len(path.parts) > 1


def name_of(source: str | Path) -> str:
    """The name of what a file holds: the file's name without its end, in letters, digits, dots, dashes, underscores.

    >>> name_of("runs/Größe 2.YAML")
    'Gro-e-2'
    """
    plain = unicodedata.normalize("NFKD", Path(source).stem)
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-") or "experiment"


def _check_node(node: Node, known: dict[int, tuple[int, int]], around: tuple[int, ...]) -> tuple[int, int]:
    """(number of values, levels) of a node with its anchors written out; refuses what has no place in a configuration.

    Args:
        known: the results for nodes that were visited, by identity.
        around: the nodes that this one is within.
    """
    if id(node) in around:
        raise YamlFault(f"line {node.start_mark.line + 1}: an anchor stands within itself")
    if id(node) in known:
        return known[id(node)]
    if node.tag not in _KINDS:
        raise YamlFault(f"line {node.start_mark.line + 1}: {node.tag.removeprefix(_PREFIX)} is no kind of value here")
    parts: list[Node] = []
    if isinstance(node, ScalarNode):
        check_printable(node.value)
        if node.tag in (_PREFIX + "int", _PREFIX + "float") and len(node.value) > LONGEST_NUMBER:
            raise YamlFault(f"line {node.start_mark.line + 1}: a number of {len(node.value):,} characters")
    elif isinstance(node, SequenceNode):
        parts = node.value
    elif isinstance(node, MappingNode):
        _check_keys(node)
        parts = [part for pair in node.value for part in pair]
    below = [_check_node(part, known, (*around, id(node))) for part in parts]
    count, levels = 1 + sum(part[0] for part in below), 1 + max((part[1] for part in below), default=0)
    if count > MOST_NODES:
        raise YamlFault(f"has more than {MOST_NODES:,} values with its anchors written out")
    if levels > DEEPEST + 1:
        raise YamlFault(f"is nested more than {DEEPEST} levels deep")
    known[id(node)] = count, levels
    return known[id(node)]


def _check_keys(node: MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        where = f"line {key.start_mark.line + 1}"
        if not isinstance(key, ScalarNode) or key.tag == _PREFIX + "null":
            raise YamlFault(f"{where}: a key must be a name")
        if key.value in seen:
            raise YamlFault(f"{where}: the key {key.value!r} stands there twice")
        seen.add(key.value)
