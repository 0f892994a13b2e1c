"""What a call from Python leaves of the process as it was: environment variables and MLflow's log."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fedbench.tracking.store import MLFLOW_SETTINGS

SET_BY_FEDBENCH = (*MLFLOW_SETTINGS, "RAY_USAGE_STATS_ENABLED", "RAY_IGNORE_UNHANDLED_ERRORS")
"""Environment variables that runs set for MLflow and Ray, and that would change what the caller does with these."""


@contextmanager
def restored() -> Iterator[None]:
    """Context after which the environment variables of MLflow and Ray, and MLflow's level of logging, are as before.

    Within it MLflow logs warnings alone.
    """
    before = {name: os.environ.get(name) for name in SET_BY_FEDBENCH}
    is_loaded, logger = "mlflow" in sys.modules, logging.getLogger("mlflow")
    level = logger.level
    if is_loaded:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if is_loaded:
            logger.setLevel(level)
        elif "mlflow" in sys.modules:  # MLflow sets its level when it is loaded, by a variable that is restored now
            logger.setLevel(os.environ.get("MLFLOW_LOGGING_LEVEL", "INFO").upper())
