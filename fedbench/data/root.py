"""Checks of `data.root`, and the error for a data set that is not in it."""

from collections.abc import Sequence
from pathlib import Path

from fedbench.data.parquet_files import describe_content
from fedbench.errors import ConfigError, DataError


def require_root(root: Path | None, name: str, folder: str, advice: str) -> Path:
    """Check that `data.root` is set and exists.

    Args:
        root: `data.root`.
        name: the data set's name, for the message.
        folder: the folder under `root` that holds the data set, for the message.
        advice: how to get the data set, with DIR in place of `root`.

    Returns:
        `root`.

    Raises:
        ConfigError: it is not set.
        DataError: there is no such folder.
    """
    if root is None:
        raise ConfigError(
            f"data.root: must be set with data.dataset={name}: the folder DIR that holds {folder}/; {advice}"
        )
    if root.is_file():
        raise DataError(f"data.root={root}: is a file; name the folder that holds it")
    if not root.is_dir():
        raise DataError(f"data.root={root}: no such folder; make it, and {advice.replace('DIR', str(root))}")
    return root


def missing(
    name: str, root: Path, places: Sequence[Path], folders: Sequence[str], advice: str, suffix: str = ".parquet"
) -> DataError:
    """The error for a data set that is in none of the places where it may be.

    Args:
        name, advice: as for `require_root`.
        places: where it was looked for.
        folders: the folders under `root` whose content is told, where there is any.
        suffix: of the files that it may be in.
    """
    looked = ", ".join(str(place) for place in places)
    there = "; ".join(text for folder in folders if (text := describe_content(root / folder, suffix)))
    return DataError(
        f"{name}: not found, looked for {looked}{f' ({there})' if there else ''}; {advice.replace('DIR', str(root))}"
    )
