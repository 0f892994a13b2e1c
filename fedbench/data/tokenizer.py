"""Texts as the token ids of a pretrained model: the tokenizer of a model folder (`tokenizer: hf:PATH`)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbench.components.model_folder import PREFIX, find_model_folder, tokenizer_digest
from fedbench.components.optional_library import optional_library
from fedbench.errors import ConfigError

CHUNK = 1000
"""Texts that are cut into tokens at a time."""


class FolderTokenizer:
    """The tokenizer of a model folder, as Hugging Face's transformers loads it; read when it is first used.

    Attributes:
        digest: identifies the content of its files.
    """

    def __init__(self, name: str, key: str) -> None:
        """Args:
        name: "hf:PATH", or "hf:OWNER/NAME" of the local Hugging Face cache.
        key: the key that has the name, for messages.

        Raises:
            ConfigError: there is no such folder, or no tokenizer in it.
        """
        if not name.startswith(PREFIX):
            raise ConfigError(f"{key}={name}: must be {PREFIX}PATH of a folder with a tokenizer")
        self._name, self._key = name, key
        self._folder: Path = find_model_folder(name, key, download=None, needs="")
        self.digest = tokenizer_digest(self._folder)
        if not self.digest:
            raise ConfigError(f"{key}={name}: {self._folder} has no tokenizer (tokenizer.json, vocab.txt or the like)")

    @cached_property
    def _tokenizer(self) -> Any:
        with optional_library("huggingface", f"{self._key}={self._name}"):
            from transformers import AutoTokenizer, PreTrainedTokenizerFast
        try:
            if (self._folder / "config.json").is_file() or (self._folder / "tokenizer_config.json").is_file():
                tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True, use_fast=True)
            else:
                make: Any = PreTrainedTokenizerFast
                tokenizer = make(tokenizer_file=str(self._folder / "tokenizer.json"))
        except Exception as error:  # whatever a damaged file makes its reader raise
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise ConfigError(
                f"{self._key}={self._name}: the tokenizer cannot be read: {reason.rstrip(':.')}; the folder needs the "
                "files that save_pretrained of its tokenizer writes, such as tokenizer.json"
            ) from error
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise ConfigError(f"{self._key}={self._name}: the tokenizer has no token for padding, and no end token")
            tokenizer.pad_token = tokenizer.eos_token  # as GPT-2 is used for minibatches of texts
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        return tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return len(self._tokenizer)

    @property
    def padding_index(self) -> int:
        """Token id of padding; the end token's where the tokenizer has no padding token."""
        return int(self._tokenizer.pad_token_id)

    def encode(self, texts: Sequence[str], max_tokens: int) -> npt.NDArray[np.int32]:
        """Token ids with the special tokens of the model, cut off or padded to the same length.

        A text without any token becomes one unknown token, or one end token where there is no unknown one: attention
        over nothing but padding is not defined.

        Returns:
            int32 [len(texts), max_tokens].
        """
        tokenizer = self._tokenizer
        ids = np.empty((len(texts), max_tokens), dtype=np.int32)
        for start in range(0, len(texts), CHUNK):
            chunk = list(texts[start : start + CHUNK])
            encoded = tokenizer(chunk, truncation=True, max_length=max_tokens, padding="max_length")
            ids[start : start + CHUNK] = encoded["input_ids"]
        instead = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.eos_token_id
        ids[(ids == self.padding_index).all(axis=1), 0] = self.padding_index if instead is None else instead
        return ids

    def cut(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, whatever their number, without special tokens."""
        encoded = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def tokens(self) -> tuple[str, ...]:
        """The text of each token id."""
        return tuple(self._tokenizer.convert_ids_to_tokens(range(self.vocabulary_size)))
