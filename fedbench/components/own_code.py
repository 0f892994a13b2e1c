"""The content of parts of one's own, which identifies a run beside its configuration.

A part is named by an import path ("package.module:Class"). Its digest is taken over its source file and over every own
file that it imports, directly or through others. Own is what belongs neither to Python, nor to fedbench, nor to an
installed package; a part of an installed package is identified by the package's version. Files are found as Python
would find them, and are read, never executed. What code reads or imports by a name that it makes itself is not seen.
"""

import ast
import hashlib
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions, version
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from fedbench.components.model_folder import PREFIX, model_folders
from fedbench.components.named_code import find_module
from fedbench.errors import ConfigError

IMPORT_PATH = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_][\w.]*")
LIBRARY_FOLDERS = ("site-packages", "dist-packages")
DIGITS = 16
"""Hexadecimal digits of a part's digest."""

_loaded: dict[str, tuple[ModuleSpec, str]] = {}
"""{own module: its import and the digest of its file when this process first looked at it}."""


def own_code(values: object) -> dict[str, str]:
    """{import path: digest of its content, or "PACKAGE VERSION"} of the parts that nested plain values name.

    A model folder ("hf:PATH") is such a part, too.

    Raises:
        ConfigError: a file was changed after this process had imported it.

    >>> own_code({"algorithm": {"name": "fedavg"}, "data": {"dataset": {"name": "fedbench.data.digits:Digits"}}})
    {}
    """
    parts = sorted({text for text in _texts(values) if IMPORT_PATH.fullmatch(text)})
    identified = {part: _identify(part.partition(":")[0]) for part in parts}
    folders = model_folders(values) if isinstance(values, Mapping) else {}
    return {part: content for part, content in identified.items() if content is not None} | folders


def source_digests(values: object) -> dict[str, str]:
    """{own module: digest of its file} of the parts that nested plain values name, and of what these import.

    They tell whether a process that has imported the modules would run what their files say now.
    """
    modules = {text.partition(":")[0] for text in _texts(values) if IMPORT_PATH.fullmatch(text)}
    files = {name: file for module in modules for name, file in own_sources(module).items()}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def own_sources(module: str) -> dict[str, Path]:
    """{module: source file} of an own module and of the own modules that it imports, directly or through others.

    Args:
        module: its full name.
    """
    sources: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = list(_with_parents(module))
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = _own_file(name)
        if file is not None:
            sources[name] = file
            waiting += _imports(name, file.stem == "__init__", file.read_bytes())
    return dict(sorted(sources.items()))


def _identify(module: str) -> str | None:
    """The digest of an own module, the version of an installed one; None for Python's, fedbench's, and unknown ones."""
    top = module.partition(".")[0]
    if top in ("fedbench", "torchvision", PREFIX.removesuffix(":")) or top in sys.stdlib_module_names:
        return None
    sources = own_sources(module)
    if module in sources:
        whole = hashlib.sha256()
        for name, file in sources.items():
            content = file.read_bytes()
            _refuse_stale(name, file, hashlib.sha256(content).hexdigest())
            whole.update(f"{name} {len(content)}\n".encode() + content)
        return whole.hexdigest()[:DIGITS]
    if _find(module) is None:
        return None
    distributions = packages_distributions().get(top, [])
    return ", ".join(f"{name} {version(name)}" for name in sorted(set(distributions))) or None


def _refuse_stale(module: str, file: Path, digest: str) -> None:
    """Refuse a file whose present content is not what this process has imported: it would run the old content."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if spec is None:
        return
    imported, first = _loaded.setdefault(module, (spec, digest))
    if imported is not spec:  # reloaded since
        _loaded[module] = spec, digest
    elif first != digest:
        raise ConfigError(
            f"{file}: has changed since this process imported it; start again, so that what runs is what is recorded"
        )


def _own_file(module: str) -> Path | None:
    """The source file of an own module; None for a foreign one, and for a folder without a file of its own."""
    spec = _find(module)
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    file = Path(spec.origin)
    return None if not file.is_file() or _is_in_a_library(file) else file


def _find(module: str) -> ModuleSpec | None:
    """Find the place that a module would be imported from, without importing its packages; None if there is none."""
    top, *rest = module.split(".")
    if top == "fedbench" or top in sys.stdlib_module_names:
        return None
    try:
        spec = find_module(top)
        name = top
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    except (ImportError, ValueError, AttributeError):
        return None
    return spec


def _is_in_a_library(file: Path) -> bool:
    if any(part in LIBRARY_FOLDERS for part in file.parts):
        return True
    folders = {sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(file.is_relative_to(folder) for folder in (*folders, site.getusersitepackages()))


@lru_cache(maxsize=256)
def _imports(module: str, is_package: bool, source: bytes) -> tuple[str, ...]:
    """The modules that a source may import, with the packages that they are in; its own names among others."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # no Python source: a compiled module, or one whose import will fail
        return ()
    package = module if is_package else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:
                continue
            names += [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
    return tuple(name for imported in names for name in _with_parents(imported))


def _with_parents(module: str) -> list[str]:
    """
    >>> _with_parents("a.b.c")
    ['a', 'a.b', 'a.b.c']
    """
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _texts(values: object) -> Iterator[str]:
    """All texts among nested plain values; the keys of mappings are none of them."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _texts(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value)


def changed_parts(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """What differs between the parts of a record and those of now, one phrase each.

    >>> changed_parts({"mine:Step": "aaaa"}, {"mine:Step": "bbbb"})
    ['mine:Step was aaaa and is bbbb']
    """
    return [
        f"{part} was {recorded.get(part, 'not there')} and is {present.get(part, 'not there')}"
        for part in sorted({*recorded, *present})
        if recorded.get(part) != present.get(part)
    ]
