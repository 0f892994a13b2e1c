"""The home directory, and `~` for it in paths: a shell does not expand that in `data.root=~/data` or in a file."""

import os
from pathlib import Path

from fedbench.errors import ConfigError

SQLITE = "sqlite:///"


def home(purpose: str) -> Path:
    """The home directory.

    Args:
        purpose: what to do where none is known, for the error.

    Raises:
        ConfigError: HOME is not set, and the system's list of users has no name for this one.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigError(f"no home directory is known for user {os.getuid()}: {purpose}") from None


def expanded(path: str | Path) -> Path:
    """A path with the home directory in place of a first part `~`, or `~USER`, as a shell has it.

    Raises:
        ConfigError: it begins with `~`, and no home directory is known.
    """
    text = os.path.expanduser(path)
    if text == "~" or text.startswith("~/"):
        home(f"write {path} as a whole path, or set HOME")
    return Path(text)


def expanded_address(address: str) -> str:
    """The address of a database, or a path, with the home directory in place of `~` where that begins a file's path.

    Raises:
        ConfigError: as for `expanded`.
    """
    if address.startswith(SQLITE + "~"):
        return f"{SQLITE}{expanded(address.removeprefix(SQLITE))}"
    return str(expanded(address)) if address.startswith("~") else address
