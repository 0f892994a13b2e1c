"""Opens the storage of a study, a journal file or a database, with errors that a person can act on."""

import time
from importlib.util import find_spec
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from fedbench.config.passwords import without_passwords
from fedbench.errors import ConfigError

POSTGRESQL = ("postgresql", "postgres")
POSTGRESQL_DRIVERS = ("psycopg2", "psycopg")
"""Python packages; the first that is installed is taken. SQLAlchemy's own choice changed between its versions."""

CONNECT_SECONDS = 10
"""The time limit, in seconds, for a PostgreSQL server to answer for the first time."""

TABLE_ATTEMPTS = 8
TABLE_SECONDS = 0.5
"""The number of attempts to make or find the tables of a new database, and the seconds between two of them."""


def open_storage(where: str) -> BaseStorage:
    """Optuna's storage at a database URL, or in a journal file.

    Raises:
        ConfigError: it cannot be opened; no password is in the text.
    """
    shown = without_passwords(where)
    try:
        if "://" in where:
            return _open_database(where)
        # Absolute, because the lock beside the journal is a link to it.
        path = Path(where).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    except ImportError as error:
        lacking = " ".join(str(error.__cause__ or error).split())
        advice = "; for PostgreSQL: pip install psycopg2-binary" if where.startswith("postgres") else ""
        raise ConfigError(f"storage={shown}: the database's driver is not installed ({lacking}){advice}") from None
    except Exception as error:
        if isinstance(error, OSError | ValueError) or is_storage_failure(error):
            raise ConfigError(f"storage={shown}: cannot be opened ({reason_of(error)})") from None
        raise


def close_storage(storage: BaseStorage) -> None:
    """Give a database's connections back now, not when Python collects the storage; used again, it opens new ones."""
    database = getattr(storage, "_backend", storage)  # Optuna's cache around it has no such call
    if isinstance(database, RDBStorage):
        database.remove_session()
        database.engine.dispose()


def _open_database(url: str) -> BaseStorage:
    scheme, _, rest = url.partition("://")
    settings: dict[str, object] = {}
    if not scheme.startswith("sqlite"):
        if rest.partition("?")[0].count("@") > 1:
            raise ConfigError(f"storage={without_passwords(url)}: an @ in a user's name or password is written %40")
        settings["pool_pre_ping"] = True  # between two trials a connection may rest for hours
    if scheme in POSTGRESQL and "connect_timeout" not in rest:
        settings["connect_args"] = {"connect_timeout": CONNECT_SECONDS}
    url = with_driver(url)
    for _ in range(TABLE_ATTEMPTS - 1):
        try:
            return get_storage(RDBStorage(url, engine_kwargs=dict(settings)))
        except Exception as error:
            if not _may_be_a_race(error):
                raise
            time.sleep(TABLE_SECONDS)
    return get_storage(RDBStorage(url, engine_kwargs=settings))


def with_driver(url: str) -> str:
    """A URL that names the installed driver, where it is PostgreSQL's and names none."""
    scheme, separator, rest = url.partition("://")
    if scheme not in POSTGRESQL:
        return url
    driver = next((name for name in POSTGRESQL_DRIVERS if find_spec(name)), POSTGRESQL_DRIVERS[0])
    return f"postgresql+{driver}{separator}{rest}"


def _may_be_a_race(error: Exception) -> bool:
    """Whether another process that opens the same new database may just be making its tables."""
    return type(error).__name__ in ("IntegrityError", "ProgrammingError") or "already exists" in str(error)


def is_storage_failure(error: BaseException) -> bool:
    """Whether an exception says that the storage cannot be read or written."""
    return isinstance(error, StorageInternalError) or type(error).__module__.partition(".")[0] == "sqlalchemy"


def reason_of(error: BaseException) -> str:
    """The first line of what a driver says; Optuna keeps it behind a text of its own."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
