"""MLflow's SQLite file as it is before the first run: made once, kept in fedbench's cache folder, and copied.

MLflow builds its tables by all the changes that they ever went through, for a second of a core.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from fedbench.data.cache import cache_directory
from fedbench.errors import ConfigError
from fedbench.system.atomic_files import replacing
from fedbench.system.regular_files import read_regular

FORM = 1
"""Counts the changes of what is kept here of a database."""

LARGEST = 64 << 20
"""The largest size in bytes of a file that is taken from the cache; an empty database has about one million."""


def put_empty_database(path: Path, uri_of: Callable[[Path], str]) -> None:
    """Put an empty database at a path, whole or not at all, if nothing is there.

    MLflow itself opens the copy before anybody else does: it refuses tables of another version, and enters the
    experiment that every store begins with. A copy that it does not take is not used, nor is one that is damaged.

    Args:
        path: the file.
        uri_of: gives the address of a file, by which MLflow opens it.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        made = _copied(Path(folder), path.name, uri_of)
        if made is None:
            made = Path(folder) / path.name
            _open(uri_of(made))
            _keep(made)
        with suppress(FileExistsError):  # another run was faster
            os.link(made, path)


def _open(uri: str) -> None:
    """Have MLflow make the database, or complete it."""
    from mlflow import MlflowClient

    MlflowClient(uri).search_experiments(max_results=1)


def _copied(folder: Path, name: str, uri_of: Callable[[Path], str]) -> Path | None:
    """A copy of the empty database in a folder of its own below `folder`; None where the cache has none that serves."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for kept in _kept():
        copy = folder / kept.stem / name
        try:
            content = read_regular(kept, limit=LARGEST)
            if hashlib.sha256(content).hexdigest() != kept.stem.rpartition("-")[2]:
                continue
            copy.parent.mkdir()
            copy.write_bytes(content)
            _open(uri_of(copy))
        except (OSError, MlflowException, SQLAlchemyError):
            continue
        return copy
    return None


def _keep(database: Path) -> None:
    """Put a copy into the cache, without what depends on where the database is; the cache may be missing or full."""
    with suppress(OSError, ConfigError, sqlite3.Error), tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / database.name
        copy.write_bytes(database.read_bytes())
        with closing(sqlite3.connect(copy)) as connection, connection:
            connection.execute("DELETE FROM experiments")  # the first one, which names its folder
        content = copy.read_bytes()
        place = _folder() / f"{_prefix()}{hashlib.sha256(content).hexdigest()}.db"
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temporary:
            temporary.write_bytes(content)


def _kept() -> list[Path]:
    """The files of the cache that were made in this form by this version of MLflow."""
    with suppress(OSError, ConfigError):
        return sorted(_folder().glob(f"{_prefix()}*.db"))
    return []


def _folder() -> Path:
    return cache_directory() / "mlflow"


def _prefix() -> str:
    return f"empty-{FORM}-{version('mlflow')}-"
