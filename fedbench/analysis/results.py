"""What an analysis finds, and how it is left: tables in Parquet, pictures in PNG, and one page."""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.errors import ConfigError, RunError
from fedbench.experiment.description import versions
from fedbench.records.recorded_analysis import (
    DOCUMENT,
    FOLDER,
    FORMAT,
    PAGE,
    RecordedAnalysis,
    ShownTable,
    read_analysis,
)
from fedbench.report.analyses import write_page
from fedbench.system.atomic_files import sync

Progress = Callable[[int, int, str], None]
"""Told (steps done, steps in all, what is done next) as an analysis goes on."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of an analysis, as of its folder."""


def silent(done: int, total: int, text: str) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class Picture:
    """A picture that an analysis has drawn.

    Attributes:
        name: of its file, without the ending.
        title: one line.
        caption: what is seen, and how it was drawn.
        png: the content of the file.
    """

    name: str
    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Analysis:
    """What an analysis has found, wherever it is written to.

    Attributes:
        kind: which analysis it is, such as "kernels".
        title: one line.
        intro: what was done with which settings, in sentences.
        models: the models that were looked into, as they are called.
        settings: {option: value}, plain values.
        data: {name: table}; each becomes NAME.parquet.
        tables, pictures: what is shown.
        metrics: {name: value} for the tracker and for the statements of a suite; finite.
    """

    kind: str
    title: str
    intro: tuple[str, ...]
    models: tuple[str, ...]
    settings: Mapping[str, Any]
    data: Mapping[str, pa.Table]
    tables: tuple[ShownTable, ...] = ()
    pictures: tuple[Picture, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


def check_name(name: str) -> str:
    """The name of an analysis, checked.

    Raises:
        ConfigError: it cannot be the name of a folder.
    """
    if not NAME.fullmatch(name) or name == PAGE:
        raise ConfigError(
            f"--name {name}: must be letters, digits, dots, dashes or underscores, and begin with a letter"
        )
    return name


def default_name(kind: str, runs: int) -> str:
    """The name of an analysis that is given none: its kind, and whether it compares several runs."""
    return kind if runs == 1 else f"{kind}-compared"


def write_analysis(
    analysis: Analysis, directory: Path, name: str, *, title: str | None = None, command: str = "", identity: str = ""
) -> RecordedAnalysis:
    """Write an analysis to `directory/analysis/NAME`, in place of an earlier one, and the page of all analyses there.

    Args:
        analysis: what was found.
        directory: the run directory, or the folder of a suite.
        name: of the analysis.
        title: of the page; None: the name of the directory.
        command: the command that is named as having made it.
        identity: identifies what it was made from and how, for whoever looks whether it has to be made again.

    Returns:
        The analysis as it can be read again.

    Raises:
        RunError: the folder cannot be written; nothing half-made is left in it.
    """
    folder = directory / FOLDER / check_name(name)
    temporary = folder.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for file, table in analysis.data.items():
            pq.write_table(table, temporary / f"{file}.parquet", write_page_checksum=True)
        for picture in analysis.pictures:
            (temporary / f"{picture.name}.png").write_bytes(picture.png)
        sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(temporary.iterdir())}
        document = _document(analysis, sums, command, identity)
        (temporary / DOCUMENT).write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        for written in temporary.iterdir():
            sync(written)
        _take_place(temporary, folder)
        write_page(directory, title or f"Analyses of {directory.absolute().name}")
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_analysis(folder)


def _take_place(temporary: Path, folder: Path) -> None:
    """Put a complete folder in the place of another one; a kill in between leaves the earlier one aside, hidden."""
    aside = temporary.with_suffix(".old")
    if os.path.lexists(folder):
        os.rename(folder, aside)
    os.rename(temporary, folder)
    sync(folder.parent)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _document(analysis: Analysis, sums: Mapping[str, str], command: str, identity: str) -> dict[str, Any]:
    unfit = [name for name, value in analysis.metrics.items() if not math.isfinite(value)]
    if unfit:
        raise ValueError(f"metric {unfit[0]} of analysis {analysis.kind} is not finite")
    return {
        "format": FORMAT,
        "kind": analysis.kind,
        "title": analysis.title,
        "intro": list(analysis.intro),
        "models": list(analysis.models),
        "settings": dict(analysis.settings),
        "tables": [table.to_mapping() for table in analysis.tables],
        "pictures": [
            {"file": f"{picture.name}.png", "title": picture.title, "caption": picture.caption}
            for picture in analysis.pictures
        ],
        "metrics": dict(analysis.metrics),
        "files": dict(sums),
        "versions": versions(),
        "command": command,
        "identity": identity,
    }


def common_directories(directories: Sequence[Path]) -> list[Path]:
    """The run directories, each once, in their order."""
    return list({directory.resolve(): directory for directory in directories}.values())
