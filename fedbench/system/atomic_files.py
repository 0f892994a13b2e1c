"""Files that are replaced whole: under a temporary name until they are on the disk."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to, this process's own; `path` is replaced by it once it is on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # a link of that name would lead elsewhere
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> Path:
    """Replace a file by UTF-8 text; returns `path`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_tensors(path: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file.

    Raises:
        OSError: the disk is full, or the file cannot be written otherwise.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(arrays), path, metadata=metadata)
    except SafetensorError as error:
        if "I/O error" not in str(error):
            raise
        raise OSError(str(error)) from error


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
