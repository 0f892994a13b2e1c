"""A run's state as files: nested plain values as JSON, their arrays in safetensors; nothing is pickled.

A checkpoint is a directory that is written under a temporary name and renamed. `manifest.json` has a checksum of every
file, so that a torn one is told from a whole one, and the configuration's hash, so that a foreign one is.
"""

import hashlib
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedbench.atomic_files import sync, write_tensors
from fedbench.checkpoints.state import Tree
from fedbench.errors import DataError, RunError

FORMAT = "fedbench checkpoint 2"
ARRAYS, STATE, MANIFEST = "arrays.safetensors", "state.json", "manifest.json"
KEPT = 2

Array = np.ndarray[Any, Any]


class Codec:
    """Turns nested values into JSON and arrays, and back.

    Knows None, bool, int, float, str, NumPy arrays and scalars, lists, tuples, dictionaries, counters, deques,
    frozensets, and the frozen dataclasses that it is told of.
    """

    def __init__(self, *types: type) -> None:
        self._types = {kind.__name__: kind for kind in types}

    def pack(self, value: Any, arrays: dict[str, Array]) -> Any:
        """The JSON document; arrays are put into `arrays` and named in it.

        Raises:
            RunError: a value of another kind.
        """
        if isinstance(value, np.ndarray):
            name = f"{len(arrays):06}"
            arrays[name] = np.ascontiguousarray(value)
            return {"$array": name}
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if type(value) in (list, deque, frozenset):
            items = sorted(value) if isinstance(value, frozenset) else value
            packed = [self.pack(item, arrays) for item in items]
            return packed if isinstance(value, list) else {f"${type(value).__name__}": packed}
        if type(value) is tuple:
            return {"$tuple": [self.pack(item, arrays) for item in value]}
        if type(value) in (dict, Counter):
            kind = "$dict" if type(value) is dict else "$Counter"
            return {kind: [[self.pack(key, arrays), self.pack(item, arrays)] for key, item in value.items()]}
        if is_dataclass(value) and type(value).__name__ in self._types:
            content = {field.name: self.pack(getattr(value, field.name), arrays) for field in fields(value)}
            return {"$type": type(value).__name__, **content}
        raise RunError(
            f"a checkpoint cannot hold a {type(value).__name__}: state must be arrays, numbers, texts, lists or "
            "dictionaries of them"
        )

    def unpack(self, document: Any, arrays: Mapping[str, Array]) -> Any:
        """The value that `pack` was given."""
        if isinstance(document, list):
            return [self.unpack(item, arrays) for item in document]
        if not isinstance(document, dict):
            return document
        if "$array" in document:
            return np.array(arrays[document["$array"]])
        if "$type" in document:
            content = {key: self.unpack(item, arrays) for key, item in document.items() if key != "$type"}
            return self._types[document["$type"]](**content)
        ((kind, items),) = document.items()
        if kind in ("$dict", "$Counter"):
            pairs = {self.unpack(key, arrays): self.unpack(item, arrays) for key, item in items}
            return pairs if kind == "$dict" else Counter(pairs)
        plain = [self.unpack(item, arrays) for item in items]
        return {"$tuple": tuple, "$deque": deque, "$frozenset": frozenset}[kind](plain)


class Checkpoints:
    """The checkpoints of one run in a directory; only the newest `KEPT` of them are kept."""

    def __init__(self, directory: Path, config_hash: str, codec: Codec) -> None:
        """Args:
        directory: holds the checkpoints; made when the first is written.
        config_hash: identifies the run's configuration; a checkpoint of another one is refused.
        codec: knows the dataclasses in the state.
        """
        self._directory = directory
        self._hash = config_hash
        self._codec = codec

    def save(self, next_round: int, state: Tree) -> Path:
        """Write the state before round `next_round`, and remove the oldest checkpoints.

        Returns:
            The directory of the checkpoint.

        Raises:
            OSError: the checkpoint cannot be written; nothing of it is left.
            RunError: the state holds a value that a checkpoint cannot hold.
        """
        arrays: dict[str, Array] = {}
        document = self._codec.pack(state, arrays)
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"round-{next_round:08}"
        temporary = self._directory / f".{path.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            write_tensors(temporary / ARRAYS, arrays)
            (temporary / STATE).write_text(json.dumps(document), encoding="utf-8")
            manifest = {
                "format": FORMAT,
                "config_hash": self._hash,
                "next_round": next_round,
                "sha256": {name: _digest(temporary / name) for name in (ARRAYS, STATE)},
            }
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
            for written in (temporary / ARRAYS, temporary / STATE, temporary / MANIFEST, temporary):
                sync(written)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
            sync(self._directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in self._paths()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def latest(self) -> tuple[int, Tree] | None:
        """(next round, state) of the newest whole checkpoint; None when there is none.

        Newer checkpoints that were torn or foreign are named in `refused`, one line each.
        """
        self.refused: list[str] = []
        for path in reversed(self._paths()):
            try:
                return self._load(path)
            except DataError as error:
                self.refused.append(str(error))
        return None

    def drop_after(self, next_round: int) -> None:
        """Remove the checkpoints of later rounds, which the run will write anew."""
        for path in self._paths():
            if path.name > f"round-{next_round:08}":
                shutil.rmtree(path, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("round-*")) if self._directory.is_dir() else []

    def _load(self, path: Path) -> tuple[int, Tree]:
        from safetensors.numpy import load_file

        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                raise DataError(f"{path}: is of another version ({manifest['format']})")
            if manifest["config_hash"] != self._hash:
                raise DataError(f"{path}: belongs to another configuration ({manifest['config_hash']})")
            for name, digest in manifest["sha256"].items():
                if _digest(path / name) != digest:
                    raise DataError(f"{path / name}: is torn: its checksum differs")
            document = json.loads((path / STATE).read_text(encoding="utf-8"))
            return int(manifest["next_round"]), self._codec.unpack(document, load_file(path / ARRAYS))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: is torn: {' '.join(str(error).split())[:200]}") from None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
