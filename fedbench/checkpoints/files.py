"""A run's state as files: nested plain values as JSON, their arrays in safetensors; nothing is pickled.

A checkpoint is a directory that is written under a temporary name and renamed. It holds the state, and copies of the
tables that were recorded before it. `manifest.json` has a checksum of every file, so that a torn one is told from a
whole one, and the configuration with its hash, so that a foreign one is.
"""

import hashlib
import json
import os
import shutil
import stat
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedbench.checkpoints.state import Tree
from fedbench.errors import DataError, RunError
from fedbench.system.atomic_files import sync, write_tensors
from fedbench.system.regular_files import kind_of, open_regular, read_regular

FORMAT = "fedbench checkpoint 3"
ARRAYS, STATE, MANIFEST = "arrays.safetensors", "state.json", "manifest.json"
KEPT = 2

LARGEST_MANIFEST = 2**20
"""Bytes of a manifest, at most; the largest that is written has some thousands."""

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


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint that was read.

    Attributes:
        next_round: the round that comes next, from 0.
        state: what `Checkpoints.save` was given.
        directory: its directory, where the copies of the recorded tables are.
    """

    next_round: int
    state: Tree
    directory: Path


class Checkpoints:
    """The checkpoints of one run in a directory; only the newest `KEPT` of them are kept.

    Attributes:
        refused: {name of a checkpoint: why it cannot be used, one line}.
    """

    def __init__(
        self, directory: Path, config_hash: str, codec: Codec, config: Mapping[str, Any] | None = None
    ) -> None:
        """Args:
        directory: holds the checkpoints; made when the first is written.
        config_hash: identifies the run's configuration; a checkpoint of another one is refused.
        codec: knows the dataclasses in the state.
        config: the configuration that `config_hash` is of, nested plain values; kept so that an edit can be named.
        """
        self._directory = directory
        self._hash = config_hash
        self._codec = codec
        self._config = dict(config or {})
        self.refused: dict[str, str] = {}

    def save(self, next_round: int, state: Tree, tables: Sequence[Path] = ()) -> Path:
        """Write the state before round `next_round`, and remove the oldest checkpoints.

        Args:
            tables: the files with what was recorded before that round; copied.

        Returns:
            The directory of the checkpoint.

        Raises:
            OSError: the checkpoint cannot be written; nothing of it is left.
            RunError: the state holds a value that a checkpoint cannot hold.
        """
        arrays: dict[str, Array] = {}
        document = self._codec.pack(state, arrays)
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / _name(next_round)
        temporary = self._directory / f".{path.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            write_tensors(temporary / ARRAYS, arrays)
            (temporary / STATE).write_text(json.dumps(document), encoding="utf-8")
            for table in tables:
                shutil.copyfile(table, temporary / table.name)
            names = (ARRAYS, STATE, *(table.name for table in tables))
            manifest = {
                "format": FORMAT,
                "config_hash": self._hash,
                "config": self._config,
                "next_round": next_round,
                "sha256": {name: _digest(temporary / name) for name in names},
            }
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
            for name in (*names, MANIFEST):
                sync(temporary / name)
            sync(temporary)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif os.path.lexists(path):
                path.unlink()
            os.replace(temporary, path)
            sync(self._directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self.refused.pop(path.name, None)
        earlier = [
            other for other in self._paths() if other.name <= path.name
        ]  # later ones are no run's of this course
        for old in earlier[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be used; None when there is none. `refused` says why newer ones cannot be."""
        for path in reversed(self._paths()):
            if path.name in self.refused:
                continue
            try:
                return self.load(path)
            except DataError as error:
                self.refused[path.name] = str(error)
        return None

    def refuse(self, checkpoint: Checkpoint, reason: str) -> None:
        """Leave out a checkpoint whose files are whole and whose state cannot be taken up, for a reason in one line."""
        self.refused[checkpoint.directory.name] = f"{checkpoint.directory}: {reason}"

    def recorded_config(self) -> dict[str, Any] | None:
        """The configuration that the newest readable manifest was written with; None where there is none."""
        for path in reversed(self._paths()):
            try:
                config = json.loads(read_regular(path / MANIFEST, limit=LARGEST_MANIFEST))["config"]
            except Exception:
                continue
            if isinstance(config, dict):
                return config
        return None

    def _paths(self) -> list[Path]:
        """What is named like a checkpoint, in the order of the rounds."""
        return sorted(self._directory.glob("round-*")) if self._directory.is_dir() else []

    def load(self, path: Path) -> Checkpoint:
        """Read a checkpoint of this run.

        Raises:
            DataError: it is torn, foreign, or not a checkpoint at all.
        """
        from safetensors.numpy import load_file

        try:
            if not stat.S_ISDIR(mode := path.lstat().st_mode):
                raise ValueError(f"is {kind_of(mode)}, not a checkpoint's folder")
            manifest = json.loads(read_regular(path / MANIFEST, limit=LARGEST_MANIFEST))
            if manifest["format"] != FORMAT:
                raise DataError(f"{path}: is of another version ({str(manifest['format'])[:50]})")
            if manifest["config_hash"] != self._hash:
                raise DataError(f"{path}: belongs to another configuration ({str(manifest['config_hash'])[:50]})")
            next_round = manifest["next_round"]
            if type(next_round) is not int or path.name != _name(next_round):
                raise ValueError(f"its manifest is one of {str(next_round)[:50]} finished rounds")
            if not {ARRAYS, STATE} <= manifest["sha256"].keys():
                raise ValueError(f"its manifest lacks {ARRAYS} or {STATE}")
            for name, digest in manifest["sha256"].items():
                self._verify(path, name, digest)
            state = self._codec.unpack(json.loads(read_regular(path / STATE)), load_file(path / ARRAYS))
            if not isinstance(state, dict):
                raise ValueError(f"its state is a {type(state).__name__}")
            return Checkpoint(next_round, state, path)
        except DataError:
            raise
        except Exception as error:  # whatever a damaged file makes its reader raise
            reason = " ".join(f"{error}".split())[:200] or type(error).__name__
            raise DataError(f"{path}: is torn: {reason}") from None

    def _verify(self, path: Path, name: str, digest: object) -> None:
        """Check that a file of a checkpoint has the checksum `digest`."""
        if Path(name).name != name:
            raise ValueError(f"its manifest names a file elsewhere: {name[:100]!r}")
        if _digest(path / name) != digest:
            raise DataError(f"{path / name}: is torn: its checksum differs")


def _name(next_round: int) -> str:
    return f"round-{next_round:08}"


def _digest(path: Path) -> str:
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
