"""MLflow's empty database is made once and copied; a copy is what MLflow makes, and a damaged one is never used."""

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_line import EMPTY_DATABASES

from fedbench.tracking.store import make_database, open_store, sqlite_uri

pytestmark = pytest.mark.slow


def query(database: Path, statement: str) -> list[tuple[Any, ...]]:
    """Rows that an SQL statement gives."""
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(statement).fetchall()


def tables(database: Path) -> dict[str, list[str]]:
    """The lines of the statements by which tables and indices were made; MLflow puts constraints in any order."""
    rows = query(database, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: sorted(line.strip(" ,\t") for line in sql.splitlines()) for name, sql in rows}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of fedbench's, and the folder in which it keeps databases."""
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "mlflow"


@pytest.fixture
def marked(cache: Path, empty_store: Path) -> Path:
    """The cache's database, with a table by which its copies are known, and a name that vouches for it."""
    shutil.copytree(EMPTY_DATABASES.name, cache)
    (kept,) = cache.iterdir()
    query(kept, "CREATE TABLE marker (x)")
    return renamed(kept)


def renamed(kept: Path) -> Path:
    """A database of the cache under the name that its content has."""
    checksum = hashlib.sha256(kept.read_bytes()).hexdigest()
    return kept.rename(kept.with_name(f"{kept.stem.rpartition('-')[0]}-{checksum}.db"))


def test_a_copy_is_what_mlflow_makes(cache: Path) -> None:
    first, second = Path("first/mlflow.db"), Path("second/mlflow.db")
    make_database(first)
    make_database(second)
    assert tables(first) == tables(second)
    of_experiments = "SELECT name, artifact_location, lifecycle_stage FROM experiments"
    assert query(first, of_experiments) == query(second, of_experiments) != []
    for table in ("alembic_version", "workspaces"):
        assert query(first, f"SELECT * FROM {table}") == query(second, f"SELECT * FROM {table}")
    client, experiment = open_store(sqlite_uri(second), "mine")
    run = client.create_run(experiment)
    assert client.get_run(run.info.run_id).info.experiment_id == experiment
    assert [file.name for file in Path("second").iterdir()] == ["mlflow.db"]


def test_a_copy_names_the_folder_in_which_it_was_asked_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    for name in ("here", "there"):
        Path(name).mkdir()
        with monkeypatch.context() as moved:
            moved.chdir(name)
            make_database(Path("mlflow.db"))
            places += query(Path("mlflow.db"), "SELECT artifact_location FROM experiments")
    assert [Path(place).parts[-3:] for (place,) in places] == [("here", "mlruns", "0"), ("there", "mlruns", "0")]


def test_what_the_cache_vouches_for_is_copied(marked: Path) -> None:
    make_database(Path("copied.db"))
    assert query(Path("copied.db"), "SELECT name FROM sqlite_master WHERE name = 'marker'") == [("marker",)]


@pytest.mark.parametrize("fault", ["a changed byte", "tables of another version", "no database"])
def test_what_is_damaged_or_of_another_version_is_made_anew(marked: Path, empty_store: Path, fault: str) -> None:
    match fault:
        case "a changed byte":
            content = bytearray(marked.read_bytes())
            content[len(content) // 2] ^= 1
            marked.write_bytes(content)
        case "tables of another version":
            query(marked, "UPDATE alembic_version SET version_num = '000000000000'")
            renamed(marked)
        case "no database":
            marked.write_bytes(b"not a database")
            renamed(marked)
    make_database(Path("anew.db"))
    assert query(Path("anew.db"), "SELECT name FROM sqlite_master WHERE name = 'marker'") == []
    assert tables(Path("anew.db")) == tables(empty_store)


def test_a_cache_that_cannot_be_used_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "file" / "cache"))
    make_database(tmp_path / "mlflow.db")
    assert query(tmp_path / "mlflow.db", "SELECT name FROM experiments") == [("Default",)]
