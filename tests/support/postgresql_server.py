"""A PostgreSQL server of a test's own, on a socket in a folder of its own, with a password."""

import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

USER = "bench"
PASSWORD = "Wach0lder"
UNPRIVILEGED = ("postgres", "nobody")
"""Who may own the server where the tests are run by root, whom PostgreSQL refuses."""

MOST_CONNECTIONS = 12
"""Few, so that a process that does not give them back is found out; three of them are kept for superusers."""


class PostgresqlServer:
    """Call `start` before, and `remove` after."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 characters
        self._data = self.folder / "data"
        (self.folder / "password").write_text(PASSWORD)
        self._as: list[str] = []
        if os.getuid() == 0:
            owner = unprivileged()
            assert owner is not None
            self._as = [
                "setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups",
            ]  # fmt: skip
            for path in (self.folder, self.folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        login = ("-U", USER, "-A", "scram-sha-256", f"--pwfile={self.folder}/password")
        self._run("initdb", "-D", str(self._data), *login, "--no-sync", "-E", "UTF8", "--locale=C")

    def _run(self, *command: str) -> None:
        with (self.folder / "said").open("a+") as said:  # no pipe: the server would keep it open
            done = subprocess.run(
                [*self._as, *command], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=120
            )
            said.seek(0)
            assert done.returncode == 0, f"{command}: {said.read()}"

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        options += f" -c max_connections={MOST_CONNECTIONS}"
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """At once, as in a crash."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def remove(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{password}@/{database}?host={self.folder}"

    def make_database(self, name: str) -> str:
        """An empty one.

        Returns:
            Its URL.
        """
        self.query("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def query(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        import psycopg2

        connection = psycopg2.connect(host=str(self.folder), user=USER, password=PASSWORD, dbname=database)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


def unprivileged() -> pwd.struct_passwd | None:
    """Who could own the server's files; None: nobody."""
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def skip_without_postgresql() -> None:
    """Skip a test that cannot have a server, and say why."""
    for program in ("initdb", "pg_ctl", "postgres"):
        if shutil.which(program) is None:
            pytest.skip(f"no PostgreSQL server: {program} is not on the PATH")
    if find_spec("psycopg2") is None:
        pytest.skip("no psycopg2: pip install psycopg2-binary")
    if os.getuid() == 0 and (shutil.which("setpriv") is None or unprivileged() is None):
        pytest.skip(f"PostgreSQL refuses root, and there is no setpriv or none of the users {', '.join(UNPRIVILEGED)}")
