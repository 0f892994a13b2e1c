"""What an analysis leaves in a folder, and how it is read again: a document, tables in Parquet, pictures in PNG.

An analysis of a run is in `RUN/analysis/NAME/`, an analysis of a suite in `analysis/NAME/` below the suite's folder.
`analysis.json` holds what is shown, and vouches for the other files by their checksums. `analysis/index.html` shows all
analyses of a run or a suite.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbench.errors import DataError
from fedbench.system.regular_files import read_regular

FOLDER = "analysis"
"""The folder of the analyses, below a run directory or the folder of a suite."""

DOCUMENT, PAGE = "analysis.json", "index.html"

FORMAT = "fedbench analysis 1"


@dataclass(frozen=True)
class ShownTable:
    """A table as an analysis shows it: texts alone.

    Attributes:
        title: one line.
        corner: the heading of the row labels.
        columns: the headings of the columns.
        rows: (label, one text a column) each.
        notes: lines below the table.
    """

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "title": self.title,
            "corner": self.corner,
            "columns": list(self.columns),
            "rows": [[label, list(texts)] for label, texts in self.rows],
            "notes": list(self.notes),
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "ShownTable":
        """The table that `to_mapping` made plain values of.

        Raises:
            ValueError: a row has another number of texts than there are columns.
        """
        rows = tuple((str(label), tuple(map(str, texts))) for label, texts in values["rows"])
        columns = tuple(map(str, values["columns"]))
        for label, texts in rows:
            if len(texts) != len(columns):
                raise ValueError(f"row {label!r} has {len(texts)} cells for {len(columns)} columns")
        notes = tuple(map(str, values["notes"]))
        return cls(str(values["title"]), str(values["corner"]), columns, rows, notes)


@dataclass(frozen=True)
class ShownPicture:
    """A picture of an analysis.

    Attributes:
        file: its PNG, with the folder.
        title: one line.
        caption: what is seen, and how it was drawn.
    """

    file: Path
    title: str
    caption: str


@dataclass(frozen=True)
class RecordedAnalysis:
    """One analysis as its folder has it.

    Attributes:
        folder: where its files lie.
        kind: which analysis it is, such as "kernels".
        title: one line.
        intro: what was done with which settings, in sentences.
        models: the models that were looked into.
        tables, pictures: what is shown.
        metrics: {name: value} for the tracker.
        files: {name of a file: its SHA-256}.
        command: the command that made it; "" where it was made from Python.
        identity: identifies what it was made from and how; "" where nobody needs to know.
    """

    folder: Path
    kind: str
    title: str
    intro: tuple[str, ...]
    models: tuple[str, ...]
    tables: tuple[ShownTable, ...]
    pictures: tuple[ShownPicture, ...]
    metrics: dict[str, float]
    files: dict[str, str]
    command: str
    identity: str = ""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def content(self) -> str:
        """Hex digest of its files: an analysis of several runs is in each of their directories."""
        return hashlib.sha256(json.dumps([self.kind, sorted(self.files.items())]).encode()).hexdigest()


def read_analysis(folder: Path) -> RecordedAnalysis:
    """What an analysis left in a folder.

    Raises:
        DataError: a file is missing, damaged, or of another version.
    """
    file = folder / DOCUMENT
    try:
        document = json.loads(read_regular(file))
        if document["format"] != FORMAT:
            raise DataError(f"{file}: is of another version ({str(document['format'])[:50]}); analyze the run again")
        files = {str(name): str(digest) for name, digest in document["files"].items()}
        for name, digest in files.items():
            if Path(name).name != name:
                raise ValueError(f"names a file elsewhere: {name[:100]!r}")
            if hashlib.sha256(read_regular(folder / name)).hexdigest() != digest:
                raise DataError(f"{folder / name}: is not as it was written (its checksum differs); analyze again")
        pictures = []
        for picture in document["pictures"]:
            if picture["file"] not in files:
                raise ValueError(f"has no checksum of {str(picture['file'])[:100]!r}")
            pictures.append(ShownPicture(folder / picture["file"], str(picture["title"]), str(picture["caption"])))
        return RecordedAnalysis(
            folder=folder,
            kind=str(document["kind"]),
            title=str(document["title"]),
            intro=tuple(map(str, document["intro"])),
            models=tuple(map(str, document["models"])),
            tables=tuple(map(ShownTable.from_mapping, document["tables"])),
            pictures=tuple(pictures),
            metrics={str(name): float(value) for name, value in document["metrics"].items()},
            files=files,
            command=str(document["command"]),
            identity=str(document["identity"]),
        )
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file makes its reader raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{file}: cannot be read: {reason}; analyze the run again") from None


def recorded_analyses(directory: Path) -> tuple[list[RecordedAnalysis], list[str]]:
    """(the analyses of a run or a suite by name, one line for each that cannot be read).

    Args:
        directory: the run directory, or the folder of the suite.
    """
    whole: list[RecordedAnalysis] = []
    faults: list[str] = []
    for document in sorted((directory / FOLDER).glob(f"*/{DOCUMENT}")):
        if document.parent.name.startswith("."):
            continue
        try:
            whole.append(read_analysis(document.parent))
        except DataError as error:
            faults.append(str(error))
    return whole, faults
