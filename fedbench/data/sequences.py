"""Texts as tokens, and as sequences whose labels are the tokens that follow."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fedbench.data.base import IntArray
from fedbench.data.text import PADDING, UNKNOWN, build_vocabulary, tokenize
from fedbench.errors import DataError
from fedbench.tasks.kinds import UNSCORED

Token = TypeVar("Token", str, int)
"""A token, as a text or as its id already."""

TOKENIZERS: dict[str, Callable[[str], Sequence[str]]] = {"words": tokenize, "characters": lambda text: text}
"""How a text is cut into tokens: lower-cased words, or characters as they are."""


def character_vocabulary(texts: Iterable[str], min_frequency: int = 1) -> dict[str, int]:
    """Ids of characters from 2 on, in the order of Unicode; 0 is padding, 1 a character that is not among them.

    Example:
        >>> character_vocabulary(["abba", "c"])
        {'a': 2, 'b': 3, 'c': 4}
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    kept = sorted(character for character, count in counts.items() if count >= min_frequency)
    return {character: index for index, character in enumerate(kept, start=UNKNOWN + 1)}


def vocabulary_of(texts: Sequence[Sequence[str]], tokens: str, min_frequency: int) -> dict[str, int]:
    """The vocabulary of training texts that are cut into tokens already; of words see `build_vocabulary`."""
    if tokens == "characters":
        return character_vocabulary(("".join(text) for text in texts), min_frequency)
    return build_vocabulary(texts, min_frequency)


def token_texts(vocabulary: dict[str, int]) -> tuple[str, ...]:
    """The text of each token id: padding, unknown, and those of a vocabulary.

    Example:
        >>> token_texts({"a": 2, "b": 3})
        ('<padding>', '<unknown>', 'a', 'b')
    """
    return ("<padding>", "<unknown>", *sorted(vocabulary, key=vocabulary.__getitem__))


def next_token_rows(
    texts: Sequence[Sequence[Token]], vocabulary: Mapping[Token, int], length: int, padding: int = PADDING
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], IntArray]:
    """Texts cut into sequences of `length` tokens, each with the tokens that follow as its labels.

    Every token of a text but the first is the label of one place. The last sequence of a text is padded; a text of
    fewer than two tokens gives none.

    Returns:
        Inputs int32 [N, length], labels int64 [N, length] (-100: not scored), and for each sequence the text that it is
        cut from, int64 [N].

    Example:
        >>> inputs, labels, origins = next_token_rows(["abcd", "b", "ba"], {"a": 2, "b": 3, "c": 4, "d": 5}, 2)
        >>> inputs.tolist(), labels.tolist(), origins.tolist()
        ([[2, 3], [4, 0], [3, 0]], [[3, 4], [5, -100], [2, -100]], [0, 0, 2])
    """
    counts = [max(0, -(-(len(text) - 1) // length)) for text in texts]
    origins = np.repeat(np.arange(len(texts), dtype=np.int64), counts)
    inputs = np.full((len(origins), length), padding, np.int32)
    labels = np.full((len(origins), length), UNSCORED["int64"], np.int64)
    row = 0
    for text, count in zip(texts, counts, strict=True):
        ids = np.array([vocabulary.get(token, UNKNOWN) for token in text], dtype=np.int64)
        for start in range(0, count * length, length):
            piece = ids[start : start + length + 1]
            inputs[row, : len(piece) - 1] = piece[:-1]
            labels[row, : len(piece) - 1] = piece[1:]
            row += 1
    return inputs, labels, origins


def require_sequences(count: int, name: str, split: str) -> None:
    """Refuse a split that has no token to predict.

    Raises:
        DataError: `count`, the number of its sequences, is 0.
    """
    if not count:
        raise DataError(
            f"{name}: no text of the {split} split has two tokens or more, so that there is none to predict"
        )
