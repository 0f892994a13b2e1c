"""Libraries that fedbench can do without: a missing one is one line with the command that brings it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from fedbench.errors import ConfigError


@contextmanager
def optional_library(extra: str, purpose: str) -> Iterator[None]:
    """Context for the import of a library that an extra of fedbench brings.

        with optional_library("analysis", "fedbench analyze landscape"):
            from curvlinops import HessianLinearOperator

    Args:
        extra: name of the extra in pyproject.toml.
        purpose: what the library is needed for; begins the message.

    Raises:
        ConfigError: the library, or one that it needs, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "fedbench":
            raise
        raise ConfigError(
            f"{purpose} needs the library {error.name}, which is not installed; get it with: "
            f"pip install 'fedbench-ray[{extra}]' (in a checkout: pip install -e '.[{extra}]')"
        ) from None


def check_library(module: str, extra: str, purpose: str) -> None:
    """Check that a library is installed, without importing it.

    Args:
        module: name of its module.
        extra, purpose: as for `optional_library`.

    Raises:
        ConfigError: it is not installed.
    """
    with optional_library(extra, purpose):
        if find_spec(module) is None:
            raise ModuleNotFoundError(name=module)
