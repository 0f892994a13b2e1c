"""Code that a configuration names by import path: where it is looked for, and whether it may be imported.

A user's own parts may lie in the folder in which the command is run. Python looks there last, and only for modules
that are named by import path and for what these import: a file of the folder never stands in for a library, not even
for one that is not installed, and a command that names no own part executes nothing of the folder.
"""

import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from fedbench.errors import ConfigError

TRUSTED = ("fedbench", "torchvision")
"""Packages whose code may always be imported."""

_folder: str | None = None
"""The folder of the user's own parts, or None where Python's search path alone counts."""

_modules: set[str] = set()
"""Names of the modules that may be read from the folder: those that were named, and those that they import."""

_refusal: tuple[str, tuple[str, ...]] | None = None
"""(command, texts in which import paths are allowed) while other import paths are refused; None: all are allowed."""


def look_in(folder: Path | None) -> None:
    """Set the folder in which parts that are named by import path are looked for after all libraries."""
    global _folder
    _folder = None if folder is None else str(folder)


def folder_of_parts() -> Path | None:
    """The folder that `look_in` has set."""
    return None if _folder is None else Path(_folder)


@contextmanager
def refusing_foreign_code(command: str, typed: Iterable[str]) -> Iterator[None]:
    """Context in which no code is imported that a file names, for commands that only look at a file.

    Args:
        command: what the user called, for the error.
        typed: the arguments that the user typed; the import paths in them are imported.
    """
    global _refusal
    before, _refusal = _refusal, (command, tuple(typed))
    try:
        yield
    finally:
        _refusal = before


def import_module(name: str, path: str) -> ModuleType:
    """Import the module `name` of the import path `path`.

    Raises:
        ConfigError: it is named in a file, and the command does not import what files name.
        ImportError: there is no such module, or its own imports fail.
    """
    if name.partition(".")[0] in TRUSTED:
        return importlib.import_module(name)
    if _refusal is not None and not any(path in text for text in _refusal[1]):
        raise ConfigError(
            f"{path}: {_refusal[0]} does not execute code that a file names; add --trust if you trust that code"
        )
    _modules.add(name.partition(".")[0])
    if _LastFolder.instance not in sys.meta_path:
        sys.meta_path.append(_LastFolder.instance)
    return importlib.import_module(name)


def find_module(name: str) -> ModuleSpec | None:
    """Find the top-level module that a configuration names, without executing anything.

    Returns:
        The place that it would be imported from; None if there is no such module.

    Raises:
        ImportError, ValueError: as `importlib.util.find_spec` does.
    """
    return find_spec(name) or (PathFinder.find_spec(name, [_folder]) if _folder is not None else None)


class _LastFolder(MetaPathFinder):
    """Finds modules in the folder of the user's own parts; is asked for what is nowhere on Python's search path."""

    instance: "_LastFolder"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module `fullname` of the folder; None for one that is not there or that only a library imports."""
        if path is not None or _folder is None or not (fullname in _modules or _importer_is_in(_folder)):
            return None
        spec = PathFinder.find_spec(fullname, [_folder])
        if spec is not None:
            _modules.add(fullname)
        return spec


_LastFolder.instance = _LastFolder()


def _importer_is_in(folder: str) -> bool:
    """Whether the code that is importing a module now lies in `folder` or below it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (
        "importlib",
        "fedbench",
    ):
        frame = frame.f_back
    return Path(folder) in Path(frame.f_code.co_filename).parents


def hint_of_shadowed_file(module: ModuleType) -> str:
    """Say that a file in the folder of the user's own parts has the name of the library `module`; "" if none has."""
    top = module.__name__.partition(".")[0]
    file = None if _folder is None else Path(_folder) / f"{top}.py"
    if file is None or not file.is_file():
        return ""
    origin = getattr(module, "__file__", None)
    if origin is not None and Path(origin).resolve() == file.resolve():
        return ""
    return f"; {file} was not read, because a library is called {top}: rename the file"


class Shipment:
    """A value that another process can unpickle though its classes are only importable here.

    What arrives there is the value itself. Before it is unpickled, that process learns where this one finds modules.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle restores the parts of a tuple in their order: modules are found before the value needs them.
        return _arrived, (_SearchPath(), self._value)


class _SearchPath:
    """Unpickled, it lets a process find modules where the pickling process does, behind its own libraries."""

    def __reduce__(self) -> tuple[Any, ...]:
        is_used = _LastFolder.instance in sys.meta_path
        return _adopt, (_folder, is_used, tuple(_modules), tuple(os.path.abspath(folder) for folder in sys.path))


def _adopt(folder: str | None, is_used: bool, modules: tuple[str, ...], search_path: tuple[str, ...]) -> None:
    global _folder
    _folder = folder
    _modules.update(modules)
    if is_used and _LastFolder.instance not in sys.meta_path:
        sys.meta_path.append(_LastFolder.instance)
    sys.path.extend(folder for folder in dict.fromkeys(search_path) if folder not in sys.path)


def _arrived(_search_path: None, value: Any) -> Any:
    return value
