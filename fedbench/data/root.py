"""`data.root`: that it is set and there, and what to say where a data set is not in it."""

from pathlib import Path

from fedbench.errors import ConfigError, DataError


def require_root(root: Path | None, name: str, folder: str) -> Path:
    """`root`, if it is set and there.

    Raises:
        ConfigError: not set.
        DataError: no such folder.
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
    """The error for a data set of which nothing is there."""
    looked = ", ".join(str(place) for place in places)
    return DataError(f"{name}: not found, looked for {looked}; get it with: fedbench data {name} --root {root}")
