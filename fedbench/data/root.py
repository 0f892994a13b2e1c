"""Checks of `data.root`, and the error for a data set that is not in it."""

from pathlib import Path

from fedbench.errors import ConfigError, DataError


def require_root(root: Path | None, name: str, folder: str) -> Path:
    """Check that `data.root` is set and exists.

    Args:
        root: `data.root`.
        name: the data set's name, for the message.
        folder: the folder under `root` that holds the data set, for the message.

    Returns:
        `root`.

    Raises:
        ConfigError: it is not set.
        DataError: there is no such folder.
    """
    if root is None:
        raise ConfigError(
            f"data.root: must be set with data.dataset={name}: the folder that holds {folder}/"
            f" (fedbench data {name} --root DIR fetches it)"
        )
    if not root.is_dir():
        raise DataError(
            f"data.root={root}: no such folder; make it and fill it with: fedbench data {name} --root {root}"
        )
    return root


def missing(name: str, root: Path, places: list[Path]) -> DataError:
    """The error for a data set that is in none of the places where it may be."""
    looked = ", ".join(str(place) for place in places)
    return DataError(f"{name}: not found, looked for {looked}; get it with: fedbench data {name} --root {root}")
