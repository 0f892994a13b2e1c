"""Finding the Parquet files of a data set, in the layouts in which hubs and libraries write them.

A split is known by its name, in the file's name or in that of its folder:

    train-00000-of-00002.parquet    mnist-train.parquet    train.parquet    train/0000.parquet

The files lie in the data set's folder, in its `data/`, or in its only subfolder that has any, such as the `default/`
of a hub's converted copy. What begins with a dot or an underscore is left alone.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.errors import DataError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}

SHOWN = 5
"""Files that a line names at most."""

_SHARD = re.compile(r"(?<!\d)(\d+)[-_.]of[-_.](\d+)(?!\d)")
_NUMBERED = re.compile(r"(?:[a-z]+[-_.])?(\d+)")

SplitFiles = dict[str, tuple[Path, ...]]


def find_splits(folder: Path, suffix: str = ".parquet") -> SplitFiles:
    """The files of a data set by split (train | test | validation); empty where there are none.

    Args:
        folder: the data set's folder.
        suffix: of the files.

    Raises:
        DataError: a numbered file of a split is missing, there twice or beside files without a number, or several
            subfolders have data.
    """
    splits = _splits_at(folder, suffix) or _splits_at(folder / "data", suffix)
    if splits or not folder.is_dir():
        return splits
    inside = {sub: splits for sub in _visible(folder) if (splits := _splits_at(sub, suffix))}
    if len(inside) > 1:
        names = ", ".join(sub.name for sub in inside)
        raise DataError(
            f"{folder}: {_kind(suffix)} files in several subfolders ({names}), expected one; move the others away"
        )
    return next(iter(inside.values()), {})


def only_file(folder: Path, suffix: str) -> SplitFiles:
    """The only file with a suffix in a folder, as the training split; empty where there are none or several."""
    files = _files_in(folder, suffix) if folder.is_dir() else []
    return {"train": (files[0],)} if len(files) == 1 else {}


def unread_beside(files: Sequence[Path]) -> tuple[str, ...]:
    """A remark on files of the same kind that lie beside those of a data set and are not read; () without any."""
    read = set(files)
    folders = dict.fromkeys((file.parent, file.suffix) for file in files)
    others = [file.name for folder, suffix in folders for file in _files_in(folder, suffix) if file not in read]
    if not others:
        return ()
    names = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
    return (f"not read, since no split that is used has such a name: {names}",)


def refuse_copies(files: Sequence[Path]) -> None:
    """Refuse a file whose content another file of the data set has, too: its rows would count twice, or be tested on.

    Raises:
        DataError: names both files.
    """
    by_size: dict[int, list[Path]] = {}
    for file in files:
        by_size.setdefault(file.stat().st_size, []).append(file)
    for candidates in by_size.values():
        seen: dict[bytes, Path] = {}
        for file in candidates if len(candidates) > 1 else ():
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
            if digest in seen and not _is_without_rows(file):
                raise DataError(f"{file}: the same content as {seen[digest]}; remove the copy, or get the right file")
            seen[digest] = file


def describe_content(folder: Path, suffix: str = ".parquet") -> str:
    """Names a few files of a folder in which no file of a split was found, for an error message; "" without any.

    Args:
        suffix: of the files that were looked for.
    """
    if not folder.is_dir():
        return ""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        return f"{folder} is empty"
    alike = [path for path in files if path.suffix.lower() == suffix]
    names = ", ".join(path.relative_to(folder).as_posix() for path in (alike or files)[:3])
    number = len(alike or files)
    noun, none = ("file", "which is not") if number == 1 else ("files", "none of them")
    kind = f"{_kind(suffix)} {noun} that no split is known by" if alike else f"{noun}, {none} {_kind(suffix)}"
    return f"{folder} has {number} {kind} ({names})"


def _splits_at(place: Path, suffix: str) -> SplitFiles:
    """The splits whose files, or whose folders of files, lie directly in `place`."""
    if not place.is_dir():
        return {}
    splits: dict[str, list[Path]] = {}
    for file in _files_in(place, suffix):
        if (split := _split_of(file.stem)) is not None:
            splits.setdefault(split, []).append(file)
    folders: dict[str, Path] = {}
    for sub in _visible(place):
        files = _files_in(sub, suffix) if sub.is_dir() else []
        if not files:
            continue
        if sub.name.lower().startswith("partial-") and _split_of(sub.name[len("partial-") :]) is not None:
            raise DataError(f"{sub}: only the beginning of a split, as its name says; get the whole data set")
        split = SPLIT_NAMES.get(sub.name.lower())
        if split is None:
            continue
        if split in splits:
            other = folders.get(split, place / splits[split][0].name)
            raise DataError(f"{sub}: the {split} split is there twice, see {other}; move one of them away")
        for file in files:
            if _split_of(file.stem) not in (None, split):
                raise DataError(f"{file}: named for another split than its folder; move it, or rename it")
        splits[split], folders[split] = files, sub
    for split, paths in splits.items():
        _check_complete(split, paths, folders.get(split, place))
    return {split: tuple(paths) for split, paths in splits.items()}


def _check_complete(split: str, paths: Sequence[Path], place: Path) -> None:
    """Check that the numbers in the names of a split's files leave no gap, and that no file stands beside the numbers.

    Raises:
        DataError: names the first file that is missing, or that is not one of the numbered ones.
    """
    shards: dict[tuple[int, int], Path] = {}
    others = []
    for path in paths:
        match = _SHARD.search(path.stem)
        if match is None:
            others.append(path)
            continue
        number = int(match[1]), int(match[2])
        if number in shards:
            raise DataError(
                f"{path}: has the number of {shards[number].name}; move the one that does not belong there away"
            )
        shards[number] = path
    if shards:
        totals = {total for _, total in shards}
        foreign = others or ([] if len(totals) == 1 else [shards[min(shards, key=lambda number: number[1])]])
        if foreign:
            raise DataError(f"{foreign[0]}: stands beside numbered files of the {split} split; move it away")
        (total,) = totals
        missing = [number for number in range(total) if (number, total) not in shards]
        if missing or len(shards) > total:
            wrong = f"number {missing[0]} is missing" if missing else "some have a number beyond that"
            raise DataError(
                f"{place}: {len(shards)} {_kind(paths[0].suffix)} file(s) of the {split} split, expected {total} by"
                f" their names (-of-), numbered from 0: {wrong}; get the missing ones, or move the foreign ones away"
            )
        return
    whole = [path for path in others if SPLIT_NAMES.get(path.stem.lower()) == split]
    if (whole and len(others) > len(whole)) or len(whole) > 1:
        beside = next(path for path in others if path is not whole[0])
        raise DataError(f"{whole[0]}: holds a whole split by its name, but {beside.name} is there too; move one away")
    numbers = [int(match[1]) for path in others if (match := _NUMBERED.fullmatch(path.stem.lower()))]
    if len(numbers) == len(others) and sorted(numbers) != list(range(len(numbers))):
        missing_number = next(number for number in range(len(numbers) + 1) if number not in numbers)
        raise DataError(
            f"{place}: the {_kind(paths[0].suffix)} files of the {split} split are numbered, and number"
            f" {missing_number} is missing; get it, or number the files from 0"
        )


def _split_of(name: str) -> str | None:
    """The split that a name tells: by its first word, or else by the only one of its words that names a split."""
    words = re.split(r"[-_. ]", name.lower())
    if words[0] in SPLIT_NAMES:
        return SPLIT_NAMES[words[0]]
    told = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return told.pop() if len(told) == 1 else None


def _visible(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "_"))]


def _files_in(folder: Path, suffix: str) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix == suffix and path.is_file()]


def _kind(suffix: str) -> str:
    return "Parquet" if suffix == ".parquet" else suffix.removeprefix(".").upper()


def _is_without_rows(file: Path) -> bool:
    if file.suffix != ".parquet":
        return False
    try:
        return bool(pq.ParquetFile(file).metadata.num_rows == 0)
    except (pa.ArrowException, OSError):  # whoever reads it says what is wrong with it
        return True
