"""Shakespeare's plays as sequences of characters, by speaking role."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbench.data.base import Dataset, FederatedData
from fedbench.data.cache import cached
from fedbench.data.column_dataset import SPLITS, assembled, facts_of, split_roles
from fedbench.data.column_rows import ColumnRows
from fedbench.data.holdout import DEFAULT_TEST_FRACTION
from fedbench.data.parquet_files import SplitFiles, find_splits, refuse_copies, unread_beside
from fedbench.data.parquet_table import ParquetTable
from fedbench.data.root import missing, require_root
from fedbench.data.sequences import character_vocabulary, next_token_rows, require_sequences, token_texts
from fedbench.data.text import PADDING, UNKNOWN
from fedbench.errors import ConfigError, DataError

READER_VERSION = 1
"""Part of the cache key: raise it when the same text would give other sequences."""

DEFAULT_CHUNKS = 100

_ROLE = re.compile(r"([^\n:]{1,60}):(?:\n|$)")

Speeches = list[tuple[str, str]]
"""(role, what it says), in the order of the text."""


class Shakespeare(Dataset):
    """Shakespeare, next character: sequences of 80 characters, clients are speaking roles (LEAF, Caldas et al. 2018).

    Read from Parquet with a column `text`, or from input.txt; speeches are separated by blank lines, and the role's
    name, with a colon, is the first line of each. What a role says is cut into sequences; the label of each character
    is the one after it. The vocabulary is that of the training split.

    Attributes:
        length: Characters of a sequence.
        chunks: Number of contiguous pieces of the text that are the natural clients. null: the speaking roles are, or
            100 pieces where the text names no roles.
    """

    name: str = "shakespeare"
    length: int = Field(default=80, ge=1, le=4096)
    chunks: int | None = Field(default=None, ge=2)

    folders: ClassVar[tuple[str, ...]] = ("shakespeare", "tinyshakespeare", "tiny_shakespeare", "tiny-shakespeare")

    @property
    def advice(self) -> str:
        """How to get the data set, to stand in an error message; DIR stands for `data.root`."""
        return (
            f"place DIR/{self.folders[0]}/train-00000-of-00001.parquet with the column text, and"
            f" test-00000-of-00001.parquet where there is one, or the plain text as DIR/{self.folders[0]}/input.txt"
        )

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`."""
        self._find(root)

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """See `Dataset.load`."""
        folder, files = self._find(root)
        roles, note = split_roles(files, self.name, test_fraction)
        chosen = {role: files[split] for role, split in zip(SPLITS, roles, strict=True) if split}
        # Without a test split, the end of what each client says is held out: neighbours in a text are alike.
        share = (DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction) if "test" not in chosen else None

        def build() -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
            rows, clients = self._sequences({role: _speeches(paths) for role, paths in chosen.items()}, share)
            return rows.arrays, facts_of(rows) | {"clients": clients}

        parameters = {
            "reader": READER_VERSION,
            "layout": {role: len(paths) for role, paths in chosen.items()},
            "length": self.length,
            "chunks": self.chunks,
            "held_out": share,
        }
        entry = cached(self.folders[0], tuple(itertools.chain(*chosen.values())), parameters, build)
        held = "" if share is None else f", the last {share:g} of each client's text held out as the test split"
        source = f"the text in {folder.name}/{note}, natural clients: {entry.facts['clients']}{held}"
        remarks = unread_beside(tuple(itertools.chain(*files.values())))
        return assembled(self.name, entry, source, test_fraction=test_fraction, seed=seed, remarks=remarks)

    def _find(self, root: Path | None) -> tuple[Path, SplitFiles]:
        """The folder, and the files of its splits: Parquet, or else input.txt as the training split."""
        where = require_root(root, self.name, self.folders[0], self.advice)
        for folder in (where / name for name in self.folders):
            splits = find_splits(folder)
            if splits:
                refuse_copies(tuple(itertools.chain(*splits.values())))
                return folder, splits
            if (text := folder / "input.txt").is_file():
                return folder, {"train": (text,)}
        places = [where / name / "{train,test}-*.parquet" for name in self.folders]
        places.extend(where / name / "input.txt" for name in self.folders)
        raise missing(self.name, where, places, self.folders, self.advice)

    def _sequences(self, splits: Mapping[str, Speeches], share: float | None) -> tuple[ColumnRows, str]:
        """The rows of every split, and what its natural clients are, in words.

        Args:
            splits: the speeches of each split.
            share: of each client's text in the training split, which becomes the test split; None: none.
        """
        have_roles = all(role for speeches in splits.values() for role, _ in speeches)
        by_role = have_roles and self.chunks is None
        texts = {split: _by_role(part) if by_role else self._in_chunks(part) for split, part in splits.items()}
        clients = "speaking roles" if by_role else f"{len(texts['train'])} contiguous pieces of the text"
        if share is not None:
            borders = {name: round(len(text) * (1 - share)) for name, text in texts["train"].items()}
            texts["test"] = {name: text[borders[name] :] for name, text in texts["train"].items()}
            texts["train"] = {name: text[: borders[name]] for name, text in texts["train"].items()}
        vocabulary = character_vocabulary(texts["train"].values())
        rows = ColumnRows(
            {}, "text", "next_token", token_texts(vocabulary), None, len(vocabulary) + UNKNOWN + 1, PADDING
        )
        known = sorted(set().union(*texts.values()))
        number = {name: index for index, name in enumerate(known)}
        for split, of_client in texts.items():
            inputs, labels, origins = next_token_rows(list(of_client.values()), vocabulary, self.length)
            require_sequences(len(inputs), self.name, split)
            owners = np.array([number[name] for name in of_client], dtype=np.int64)[origins]
            rows.arrays |= {f"{split}_inputs": inputs, f"{split}_labels": labels, f"{split}_owners": owners}
        return rows, clients if have_roles else f"{clients}, since it names no roles"

    def _in_chunks(self, speeches: Speeches) -> dict[str, str]:
        """The whole text in contiguous pieces of equal length, by their number.

        Raises:
            ConfigError: more pieces than sequences.
        """
        text = "\n\n".join(f"{role}:\n{words}" if role else words for role, words in speeches)
        most = max(1, len(text) // (self.length + 1))
        if self.chunks is not None and self.chunks > most:
            raise ConfigError(
                f"data.dataset.chunks={self.chunks}: the text of {len(text):,} characters fills {most} sequences of"
                f" {self.length}; ask for no more"
            )
        pieces = self.chunks or min(DEFAULT_CHUNKS, most)
        borders = [round(len(text) * piece / pieces) for piece in range(pieces + 1)]
        return {f"{piece:09}": text[borders[piece] : borders[piece + 1]] for piece in range(pieces)}


def _speeches(files: Sequence[Path]) -> Speeches:
    """The speeches of a split; without a role's name where any of them has none.

    Raises:
        DataError: a file that cannot be read, or is no UTF-8.
    """
    blocks: list[str] = []
    for file in files:
        if file.suffix == ".parquet":
            table = ParquetTable(file)
            blocks.extend(table.texts(table.column(("text",), "text", "of strings")))
        else:
            blocks.extend(_read(file).split("\n\n"))
    blocks = [block.strip("\n") for block in blocks if block.strip()]
    matches = [_ROLE.match(block) for block in blocks]
    speeches = [(match[1], block[match.end() :]) for match, block in zip(matches, blocks, strict=True) if match]
    return speeches if len(speeches) == len(blocks) else [("", block) for block in blocks]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error}); get the file again") from error


def _by_role(speeches: Speeches) -> dict[str, str]:
    """What each role says, in the order of the text, one speech a paragraph."""
    said: dict[str, list[str]] = {}
    for role, words in speeches:
        said.setdefault(role, []).append(words)
    return {role: "\n".join(part for part in parts if part) for role, parts in said.items()}
