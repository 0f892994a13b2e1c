"""MLflow's store, as everything that records there opens it: settings, names, and which errors last.

mlflow is imported where it is used, in a process or thread in the background: the import takes seconds of a core.
"""

import getpass
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from fedbench.config.passwords import is_masked, without_passwords
from fedbench.config.stores import fault_of_store
from fedbench.errors import ConfigError
from fedbench.records.run_directory import in_a_ray_job, lasting_root
from fedbench.system.home import expanded_address
from fedbench.tracking.empty_database import put_empty_database
from fedbench.tracking.pages import ABOUT_THE_EXPERIMENT, NOTE

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIRECTORY_TAG = "fedbench.directory"
"""The tag of a run that names its run directory; suites and studies, which only hold runs, have none."""

LONGEST_PARAMETER, LONGEST_TAG, LONGEST_NAME = 6000, 8000, 250
LONGEST_DATASET_NAME, LONGEST_DIGEST, LONGEST_EXPERIMENT = 500, 36, 500

METRICS_PER_REQUEST = 1000
"""The largest number of metrics that MLflow takes in one request, which it accepts or refuses as a whole."""

MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the delivery tries again itself, and knows when to stop
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is the command's
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would write to the home directory, and to the network
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""MLflow's settings by environment variable, for those that the environment does not set."""

NO_HOME = "/nonexistent"
"""A home directory that holds nothing, as systems give it to users without one."""

LASTING_ERRORS = frozenset(
    {
        "BAD_REQUEST",
        "CUSTOMER_UNAUTHORIZED",
        "ENDPOINT_NOT_FOUND",
        "FEATURE_DISABLED",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "NOT_FOUND",
        "NOT_IMPLEMENTED",
        "PERMISSION_DENIED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
        "UNAUTHENTICATED",
    }
)
"""MLflow's error codes that trying again does not change."""


def connect(uri: str) -> "MlflowClient":
    """A client of an existing store, which prints nothing and does not try again by itself.

    Args:
        uri: as from `absolute_store`.
    """
    return load_client()(uri)


def load_client() -> "type[MlflowClient]":
    """The class of clients, imported with fedbench's settings of MLflow."""
    _configure_mlflow()
    from mlflow import MlflowClient

    return MlflowClient


def _configure_mlflow() -> None:
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    # A user without a name or a home, as in many containers: MLflow would refuse every run for the lack of either.
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = NO_HOME


def open_store(uri: str, experiment: str) -> "tuple[MlflowClient, str]":
    """A client of the store, and the id of the experiment; both are made if they are not there.

    An experiment that nobody described gets a description.

    Args:
        uri: as for `connect`.
        experiment: its name.
    """
    _configure_mlflow()
    from mlflow.exceptions import MlflowException

    database = sqlite_file(uri)
    if database is not None:
        make_database(database)
    client = connect(uri)
    known = client.get_experiment_by_name(experiment)
    if known is None:
        # Beside a SQLite file; else where MLflow puts artifacts by itself.
        artifacts = (database.absolute().parent / "mlruns" / quote(experiment, safe=" ")).as_uri() if database else None
        try:
            return client, str(client.create_experiment(experiment, artifacts, {NOTE: ABOUT_THE_EXPERIMENT}))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            known = client.get_experiment_by_name(experiment)  # another run was faster
    assert known is not None
    if known.lifecycle_stage == "deleted":
        raise ConfigError(
            f"tracking.experiment={experiment}: is deleted in MLflow; restore it by mlflow experiments restore "
            f"--experiment-id {known.experiment_id}, or name another one"
        )
    if NOTE not in known.tags:
        client.set_experiment_tag(known.experiment_id, NOTE, ABOUT_THE_EXPERIMENT)
    return client, str(known.experiment_id)


def make_database(path: Path) -> None:
    """Make MLflow's SQLite file, whole or not at all, if it is not there."""
    put_empty_database(path, sqlite_uri)


def check_experiment_name(name: str) -> None:
    """Raises:
    ConfigError: it is blank or too long, or has a slash, which MLflow's pages take for a path.
    """
    if not name.strip() or "/" in name or len(name) > LONGEST_EXPERIMENT:
        raise ConfigError(
            f"tracking.experiment={name[:60]}: must be a name of at most {LONGEST_EXPERIMENT} characters, no slash"
        )


def environment_store(uri: str | None) -> str | None:
    """`uri`, or what MLFLOW_TRACKING_URI says.

    Else None; but in a Ray job, whose working directory is deleted, a file that stays.

    Raises:
        ConfigError: MLflow keeps no runs there, or the password of the address is missing.
    """
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    given = uri or environment
    if given is None:
        return sqlite_uri(lasting_root() / "mlflow.db") if in_a_ray_job() else None
    if is_masked(given):
        if environment is None or without_passwords(environment) != given:
            raise ConfigError(
                f"tracking.mlflow_uri={given}: its password is not recorded; set the whole address, here or as "
                "MLFLOW_TRACKING_URI"
            )
        given = environment
    if (fault := fault_of_store(given)) is not None:
        key = "tracking.mlflow_uri" if uri else "MLFLOW_TRACKING_URI"
        raise ConfigError(f"{key}={without_passwords(given)}: {fault}")
    return expanded_address(given)


def is_lasting(error: Exception) -> bool:
    """Whether trying again will not help. What is not known to be an answer or a fault of the store is a defect."""
    if (answer := getattr(error, "response", None)) is not None:
        return 400 <= answer.status_code < 500 and answer.status_code not in (408, 429)
    if (code := getattr(error, "error_code", None)) is not None:
        return code in LASTING_ERRORS
    of_the_store = isinstance(error, OSError) or type(error).__module__.startswith("sqlalchemy.")
    return isinstance(error, FileNotFoundError) or not of_the_store


UNSAFE_IN_ADDRESSES = frozenset("%?#")
"""Characters with a meaning of their own in an address, which MLflow and SQLAlchemy do not agree on."""


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def plain_name(name: str) -> str:
    """`name` without the characters that MLflow refuses in names."""
    return re.sub(r"[^\w.\- /:]", "_", name)[:LONGEST_NAME]


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https", "databricks")


def sqlite_file(uri: str | None) -> Path | None:
    """The file of a SQLite address, None for another store."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)) if uri is not None and uri.startswith(prefix) else None


def default_store() -> str:
    """The store that `mlflow ui` opens in the working directory."""
    return sqlite_uri(Path("mlflow.db"))


def absolute_store(uri: str) -> str:
    """A SQLite address that does not depend on the directory in which the thread happens to open it."""
    database = sqlite_file(uri)
    return uri if database is None else sqlite_uri(database)


def sqlite_uri(path: Path) -> str:
    """The address of a SQLite file, by which MLflow and SQLAlchemy find it under whatever names its folders have."""
    absolute = path.absolute()
    if not UNSAFE_IN_ADDRESSES & set(str(absolute)):
        return f"sqlite:///{absolute}"
    here = Path.cwd()
    if absolute.is_relative_to(here) and not UNSAFE_IN_ADDRESSES & set(str(absolute.relative_to(here))):
        return f"sqlite:///{absolute.relative_to(here)}"
    raise ConfigError(f"tracking.mlflow_uri=sqlite:///{path}: no %, ? or # may be in the path; choose another folder")
