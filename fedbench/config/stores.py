"""The check of a tracking URI: MLflow takes some kinds of stores, and refuses others only after a run has begun."""

import os

from fedbench.system.home import expanded_address

TRACKING_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
"""Schemes of the tracking URIs that MLflow takes."""


def fault_of_store(uri: str) -> str | None:
    """Say why MLflow keeps no runs at this tracking URI, and what it takes instead; None for one that it takes."""
    scheme, separator, _ = uri.partition("://")
    if uri == "databricks" or (scheme.split("+")[0] in TRACKING_SCHEMES and separator):
        return None
    if not separator or scheme == "file":
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
            return None
        return "MLflow keeps no runs in a plain folder; write sqlite:///PATH/mlflow.db, or a server's http://HOST:PORT"
    return f"no tracking store is known by {scheme}://; allowed: {', '.join(TRACKING_SCHEMES)}"


def checked_store(uri: str | None) -> str | None:
    """A tracking URI that MLflow takes, with the home directory for `~` at the beginning of a file's path.

    Raises:
        ValueError: MLflow takes none of its kind.
    """
    if uri is None:
        return None
    if (fault := fault_of_store(uri)) is not None:
        raise ValueError(fault)
    return expanded_address(uri)
