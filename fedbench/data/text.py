"""Text data sets as token ids."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fedbench.data.base import Dataset, FederatedData, Split
from fedbench.data.cache import cached
from fedbench.data.holdout import refuse_test_fraction
from fedbench.data.overlap import count_shared
from fedbench.data.parquet import read_texts
from fedbench.data.parquet_files import SplitFiles, find_splits, refuse_copies, unread_beside
from fedbench.data.root import missing, require_root
from fedbench.data.tokenizer import FolderTokenizer
from fedbench.errors import DataError

PADDING = 0
UNKNOWN = 1
TOKENIZER_VERSION = 2
"""Part of the cache key: raise it when the same text would give other tokens."""

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def tokenize(text: str) -> list[str]:
    """Lower-cased words: runs of letters and digits, with apostrophes inside them; all else separates.

    Example:
        >>> tokenize("Don't buy 3.5% -- U.S. stocks_fall")
        ["don't", 'buy', '3', '5', 'u', 's', 'stocks', 'fall']
    """
    return _TOKEN.findall(text.lower())


def build_vocabulary(texts: Iterable[Sequence[str]], min_frequency: int) -> dict[str, int]:
    """Token ids from 2 on, by falling frequency, then alphabetically; 0 is padding, 1 an unknown token.

    Args:
        texts: tokenized training texts.
        min_frequency: tokens seen less often are left out.

    Example:
        >>> build_vocabulary([["b", "a"], ["b", "c"]], min_frequency=1)
        {'b': 2, 'a': 3, 'c': 4}
    """
    counts = Counter(token for tokens in texts for token in tokens)
    kept = sorted((token for token, count in counts.items() if count >= min_frequency), key=lambda t: (-counts[t], t))
    return {token: index for index, token in enumerate(kept, start=UNKNOWN + 1)}


def require_tokens(vocabulary: dict[str, int], min_frequency: int) -> None:
    """Refuse texts of which no token is known.

    Raises:
        DataError: the vocabulary is empty.
    """
    if not vocabulary:
        raise DataError(
            f"data.dataset.min_frequency={min_frequency}: no token of the training split occurs so often; lower it"
            if min_frequency > 1
            else "the texts of the training split have no token; write texts with words in them"
        )


def encode(texts: Sequence[Sequence[str]], vocabulary: dict[str, int], max_tokens: int) -> npt.NDArray[np.int32]:
    """Token ids, cut off or padded to the same length. A text without any token becomes one unknown token, because
    attention over nothing but padding is not defined.

    Returns:
        int32 [len(texts), max_tokens].
    """
    ids = np.full((len(texts), max_tokens), PADDING, dtype=np.int32)
    for row, tokens in zip(ids, texts, strict=True):
        known = [vocabulary.get(token, UNKNOWN) for token in tokens[:max_tokens]] or [UNKNOWN]
        row[: len(known)] = known
    return ids


class AgNews(Dataset):
    """AG News: 120,000 + 7,600 short news texts, 4 classes (Zhang et al. 2015), as token ids.

    Tokens are lower-cased words (`tokenize`), whose vocabulary comes from the training split alone, or those of the
    tokenizer that belongs to a pretrained model.

    Attributes:
        max_tokens: Tokens of a text; longer texts are cut off, shorter ones padded.
        min_frequency: Number of times that a word must occur in the training split to be in the vocabulary.
        tokenizer: hf:PATH of a model folder whose tokenizer makes the tokens. null: words.
    """

    name: str = "ag-news"
    max_tokens: int = Field(default=64, ge=1, le=4096)
    min_frequency: int = Field(default=1, ge=1)
    tokenizer: str | None = None

    folders: ClassVar[tuple[str, ...]] = ("ag-news", "ag_news")
    known_classes: ClassVar[tuple[str, ...]] = ("World", "Sports", "Business", "Sci/Tech")

    @model_validator(mode="after")
    def _words_are_counted(self) -> Self:
        if self.tokenizer is not None and self.min_frequency > 1:
            raise ValueError(f"min_frequency={self.min_frequency}: has no effect with a tokenizer; leave it out")
        return self

    @model_serializer(mode="wrap")
    def _as_before_tokenizers(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Without one, a configuration is what it was before there were tokenizers, and has the same hash.
        return {key: value for key, value in values(self).items() if key != "tokenizer" or value is not None}

    @property
    def advice(self) -> str:
        """How to get the data set, to stand in an error message; DIR stands for `data.root`."""
        return (
            f"place DIR/{self.folders[0]}/train-00000-of-00001.parquet and test-00000-of-00001.parquet with the columns"
            " text and label (0..3)"
        )

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`."""
        self._find(root)
        self._folder_tokenizer()

    def _folder_tokenizer(self) -> FolderTokenizer | None:
        return None if self.tokenizer is None else FolderTokenizer(self.tokenizer, "data.dataset.tokenizer")

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """See `Dataset.load`."""
        refuse_test_fraction(self.name, test_fraction)
        folder, files = self._find(root)
        tokenizer = self._folder_tokenizer()

        def build() -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
            return self._tokens(files, tokenizer)

        parameters = {
            "tokenizer": TOKENIZER_VERSION,
            **{split: len(paths) for split, paths in files.items() if split != "test"},
            "max_tokens": self.max_tokens,
            "min_frequency": self.min_frequency,
            **({} if tokenizer is None else {"folder_tokenizer": tokenizer.digest}),
        }
        entry = cached(self.folders[0], tuple(itertools.chain(*files.values())), parameters, build)
        arrays, facts = entry.arrays, entry.facts
        validation = None
        if "validation" in files:
            validation = Split(arrays["validation_tokens"], arrays["validation_labels"])
        return FederatedData(
            name=self.name,
            kind="text",
            train=Split(arrays["train_tokens"], arrays["train_labels"]),
            test=Split(arrays["test_tokens"], arrays["test_labels"]),
            validation=validation,
            class_names=tuple(facts["class_names"]),
            mean=None,
            std=None,
            vocabulary_size=facts["vocabulary_size"],
            padding_index=facts.get("padding_index", PADDING),
            tokenizer="" if tokenizer is None else tokenizer.digest,
            source=f"Parquet in {folder.name}/",
            fingerprint=entry.fingerprint,
            test_rows_in_train=facts["test_rows_in_train"],
            remarks=unread_beside(tuple(itertools.chain(*files.values()))),
        )

    def _find(self, root: Path | None) -> tuple[Path, SplitFiles]:
        """The folder, and the files of its splits: train, test, and validation where there is one."""
        where = require_root(root, self.name, self.folders[0], self.advice)
        for folder in (where / name for name in self.folders):
            splits = find_splits(folder)
            if not splits:
                continue
            for split in ("train", "test"):
                if split not in splits:
                    raise DataError(f"{folder}: no {split} split; put {split}-00000-of-00001.parquet there too")
            files: SplitFiles = {split: splits[split] for split in ("train", "test", "validation") if split in splits}
            refuse_copies(tuple(itertools.chain(*files.values())))
            return folder, files
        places = [where / name / "{train,test}-*.parquet" for name in self.folders]
        raise missing(self.name, where, places, self.folders, self.advice)

    def _tokens(
        self, files: SplitFiles, tokenizer: FolderTokenizer | None
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        known = self.known_classes
        rows = {
            split: read_texts(paths, label_columns=("label",), classes=len(known), class_names=known)
            for split, paths in files.items()
        }
        arrays: dict[str, npt.NDArray[Any]] = {f"{split}_labels": read.labels for split, read in rows.items()}
        if tokenizer is not None:
            for split, read in rows.items():
                arrays[f"{split}_tokens"] = tokenizer.encode(read.texts, self.max_tokens)
            size, padding = tokenizer.vocabulary_size, tokenizer.padding_index
        else:
            tokenized = {split: [tokenize(text) for text in read.texts] for split, read in rows.items()}
            vocabulary = build_vocabulary(tokenized["train"], self.min_frequency)
            require_tokens(vocabulary, self.min_frequency)
            for split, tokens in tokenized.items():
                arrays[f"{split}_tokens"] = encode(tokens, vocabulary, self.max_tokens)
            size, padding = len(vocabulary) + UNKNOWN + 1, PADDING
        names = rows["train"].class_names or self.known_classes
        facts = {
            "class_names": names,
            "vocabulary_size": size,
            "padding_index": padding,
            "test_rows_in_train": count_shared(arrays["train_tokens"], arrays["test_tokens"]),
        }
        return arrays, facts
