"""Model folders as Hugging Face's libraries write them, under names "hf:PATH" and "hf:OWNER/NAME".

A folder holds `config.json`, perhaps weights in safetensors, perhaps a tokenizer. A name that is no folder is looked
for in the local cache of huggingface_hub. Nothing is downloaded unless that is asked for.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedbench.components.optional_library import optional_library
from fedbench.errors import ConfigError
from fedbench.system.home import expanded

PREFIX = "hf:"
CONFIG = "config.json"
WEIGHTS = "*.safetensors"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
"""Files of a tokenizer."""

DIGITS = 16
"""Hexadecimal digits of a folder's digest."""


def find_model_folder(name: str, key: str, *, download: bool | None = False, needs: str = CONFIG) -> Path:
    """The folder that a name "hf:PATH" or "hf:OWNER/NAME" stands for.

    Args:
        name: the configured name.
        key: the key that has it, for messages.
        download: whether a name that is in no cache may be fetched from the Hugging Face hub; None: not by this key,
            only with its model.
        needs: a file that the folder must have; "": none.

    Raises:
        ConfigError: there is no such folder, or it lacks that file.
    """
    wanted = name.removeprefix(PREFIX)
    folder = Path(expanded(wanted))
    if not wanted:
        raise ConfigError(f"{key}={name}: names no folder; write {PREFIX}PATH, or {PREFIX}OWNER/NAME of a cached model")
    if not folder.is_dir():
        folder = _cached_folder(wanted, name, key, download)
    if needs and not (folder / needs).is_file():
        raise ConfigError(f"{key}={name}: {folder} has no {needs}; name a folder as save_pretrained writes it")
    return folder


def _cached_folder(wanted: str, name: str, key: str, download: bool | None) -> Path:
    """The snapshot of a repository in the cache of huggingface_hub."""
    is_repository = wanted.count("/") <= 1 and not wanted.startswith((".", "/", "~"))
    if not is_repository:
        raise ConfigError(f"{key}={name}: there is no folder {wanted}")
    with optional_library("huggingface", f"{key}={name}: there is no folder {wanted}, and the Hugging Face cache"):
        from huggingface_hub import snapshot_download
    try:
        patterns = ["*.json", WEIGHTS, "*.txt", "*.model"]
        return Path(snapshot_download(wanted, local_files_only=not download, allow_patterns=patterns))
    except Exception as error:  # whatever the hub, its cache or the network raise
        if download:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(f"{key}={name}: cannot be downloaded: {reason}") from error
        asked_for = (
            "model.download=true" if download is not None else f"with its model: model={name} model.download=true"
        )
        raise ConfigError(
            f"{key}={name}: there is no folder {wanted}, and no such model in the Hugging Face cache; nothing is "
            f"downloaded without being asked for ({asked_for})"
        ) from None


def config_values(folder: Path, name: str) -> dict[str, Any]:
    """The content of a folder's `config.json`.

    Raises:
        ConfigError: it is no JSON object.
    """
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.name={name}: {folder / CONFIG} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"model.name={name}: {folder / CONFIG} holds no JSON object")
    return values


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights in safetensors."""
    return any(folder.glob(WEIGHTS))


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder's tokenizer, by name."""
    return sorted({path for pattern in TOKENIZER for path in folder.glob(pattern) if path.is_file()})


def tokenizer_digest(folder: Path) -> str:
    """Identifies the content of a folder's tokenizer; "" where the folder has none."""
    files = tokenizer_files(folder)
    return _digest_of(files) if files else ""


def model_folders(values: Mapping[str, Any]) -> dict[str, str]:
    """{configured name: digest of the folder's content} of the model folders that a configuration names.

    Folders that are not there are left out: whoever needs them says so.

    Args:
        values: a configuration as nested plain values.
    """
    model, data = values.get("model"), values.get("data")
    named = [model.get("name")] if isinstance(model, Mapping) else []
    dataset = data.get("dataset") if isinstance(data, Mapping) else None
    if isinstance(dataset, Mapping):
        named.append(dataset.get("tokenizer"))
    digests: dict[str, str] = {}
    for name in named:
        if isinstance(name, str) and name.startswith(PREFIX):
            try:
                folder = find_model_folder(name, "model.name", needs="")
            except ConfigError:
                continue
            files = {folder / CONFIG, *folder.glob(WEIGHTS), *tokenizer_files(folder)}
            digests[name] = _digest_of(sorted(path for path in files if path.is_file()))
    return digests


def _digest_of(files: list[Path]) -> str:
    whole = hashlib.sha256()
    for file in files:
        state = os.stat(file)
        whole.update(f"{file.name} {_file_digest(file, state.st_size, state.st_mtime_ns)}\n".encode())
    return whole.hexdigest()[:DIGITS]


@lru_cache(maxsize=1024)
def _file_digest(file: Path, size: int, modified: int) -> str:
    """SHA-256 of a file, which is read once as long as its size and its time of change stay."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
