"""A cache of decoded arrays on disk, keyed by the content of the files that they were decoded from.

An entry is a folder with one .npy file per array and a `manifest.json` that states their checksums. It is written under
a temporary name and renamed when complete, so that a reader never sees half of one, and two writers do no harm.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbench.errors import DataError
from fedbench.system.home import expanded, home

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Entry:
    """Cached arrays.

    Attributes:
        arrays: the arrays by name, memory-mapped and read-only.
        facts: plain JSON values that are stored beside the arrays.
        fingerprint: hex digest of source files and parameters; equal content has an equal fingerprint.
    """

    arrays: dict[str, npt.NDArray[Any]]
    facts: dict[str, Any]
    fingerprint: str


def cache_directory() -> Path:
    """The folder of the cache: `$FEDBENCH_CACHE`, or `~/.cache/fedbench`.

    Raises:
        ConfigError: neither is known.
    """
    configured = os.environ.get("FEDBENCH_CACHE")
    return expanded(configured) if configured else home("set FEDBENCH_CACHE to a folder") / ".cache" / "fedbench"


def fingerprint(files: Sequence[Path], parameters: Mapping[str, Any]) -> str:
    """SHA-256 over the contents of the files, in order, and the parameters, but not over the files' paths.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for file in files:
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); check the file and its permissions") from error
    return digest.hexdigest()


def cached(
    name: str,
    files: Sequence[Path],
    parameters: Mapping[str, Any],
    build: Callable[[], tuple[Arrays, dict[str, Any]]],
) -> Entry:
    """The cache's entry for some files and parameters; it is built where there is none, or where it is damaged.

    Args:
        name: the beginning of the entry's folder name, for people.
        files: the source files, in a fixed order.
        parameters: everything else that the arrays depend on, a decoder's version included; plain JSON values.
        build: called to make the arrays and the facts to store beside them.

    Raises:
        DataError: the cache cannot be written, or whatever `build` raises.
    """
    key = fingerprint(files, {"name": name, **parameters})
    directory = cache_directory()
    place = directory / f"{name}-{key[:32]}"
    existing = _load(place, key)
    if existing is not None:
        return existing
    arrays, facts = build()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The temporary folder goes on every way out; after the rename it is empty.
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=directory, ignore_cleanup_errors=True) as made:
            _write(Path(made) / "entry", arrays, facts, key)
            _publish(Path(made), place, key)
    except OSError as error:
        raise DataError(
            f"{directory}: the cache of decoded data cannot be written ({error.strerror or error});"
            " set FEDBENCH_CACHE to a folder with room"
        ) from error
    stored = _load(place, key)
    if stored is None:
        raise DataError(f"{place}: a cache entry just written does not read back; set FEDBENCH_CACHE to a sound disk")
    return stored


def _write(place: Path, arrays: Arrays, facts: dict[str, Any], key: str) -> None:
    place.mkdir()
    checksums = {}
    for name, array in arrays.items():
        contiguous = np.ascontiguousarray(array)
        np.save(place / f"{name}.npy", contiguous, allow_pickle=False)
        checksums[name] = _checksum(contiguous)
    manifest = {"key": key, "checksums": checksums, "facts": facts}
    (place / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _publish(made: Path, place: Path, key: str) -> None:
    """Rename the finished entry into place, unless another process has put a sound one there meanwhile."""
    if place.exists():
        if _load(place, key) is not None:
            return
        # Renamed away first: a folder cannot be replaced by another in one step while it holds files.
        place.rename(made / "damaged")
    try:
        (made / "entry").rename(place)
    except OSError:
        if not place.is_dir():
            raise
    shutil.rmtree(made / "damaged", ignore_errors=True)


def _load(place: Path, key: str) -> Entry | None:
    """The entry at `place`; None where it is missing, incomplete or does not match its checksums."""
    try:
        manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
        if manifest["key"] != key:
            return None
        arrays = {}
        for name, checksum in manifest["checksums"].items():
            array = np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            if _checksum(array) != checksum:
                return None
            arrays[name] = array
        return Entry(arrays, manifest["facts"], key)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _checksum(array: npt.NDArray[Any]) -> str:
    """CRC-32 of the bytes, with type and shape: takes little time beside decoding, and finds damage by a disk."""
    data = array.reshape(-1).view(np.uint8).data if array.size else b""
    return f"{zlib.crc32(data):08x} {array.dtype.str} {list(array.shape)}"
