"""The cache of decoded arrays: decoded once, found by content, whole or not at all."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbench.data.cache import cache_directory, cached, fingerprint
from fedbench.errors import DataError


class Decoder:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.calls += 1
        arrays = {"x": np.arange(1000, dtype=np.int64).reshape(10, 100), "empty": np.empty((0, 3), np.uint8)}
        return arrays, {"names": ["a", "b"]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "source.bin"
    file.write_bytes(b"content")
    return file


def entry_folder() -> Path:
    (found,) = cache_directory().iterdir()
    return found


def test_the_second_load_does_not_decode(source: Path) -> None:
    decoder = Decoder()
    first, second = (cached("data", [source], {"size": 1}, decoder) for _ in range(2))
    assert decoder.calls == 1
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(second.arrays["x"], Decoder()()[0]["x"])
    assert second.arrays["empty"].shape == (0, 3)
    assert second.facts == {"names": ["a", "b"]}


def test_arrays_are_memory_mapped_and_read_only(source: Path) -> None:
    array = cached("data", [source], {}, Decoder()).arrays["x"]
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_other_content_and_other_parameters_are_other_entries(source: Path) -> None:
    decoder = Decoder()
    digests = [cached("data", [source], {"size": 1}, decoder).fingerprint]
    digests.append(cached("data", [source], {"size": 2}, decoder).fingerprint)
    source.write_bytes(b"Content")
    digests.append(cached("data", [source], {"size": 1}, decoder).fingerprint)
    assert decoder.calls == 3
    assert len(set(digests)) == 3


def test_the_fingerprint_is_of_the_content_not_of_the_place(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere.bin"
    other.write_bytes(source.read_bytes())
    assert fingerprint([source], {}) == fingerprint([other], {})
    other.write_bytes(b"different")
    assert fingerprint([source, other], {}) != fingerprint([other, source], {})


@pytest.mark.parametrize("damage", ["flipped", "shortened", "emptied", "missing", "manifest", "no manifest"])
def test_a_damaged_entry_is_built_again(source: Path, damage: str) -> None:
    decoder = Decoder()
    cached("data", [source], {}, decoder)
    array, manifest = entry_folder() / "x.npy", entry_folder() / "manifest.json"
    whole = array.read_bytes()
    if damage == "flipped":
        array.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    elif damage == "shortened":
        array.write_bytes(whole[:-8])
    elif damage == "emptied":
        array.write_bytes(b"")
    elif damage == "missing":
        array.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        manifest.unlink()
    again = cached("data", [source], {}, decoder)
    assert decoder.calls == 2
    np.testing.assert_array_equal(again.arrays["x"], Decoder()()[0]["x"])
    cached("data", [source], {}, decoder)
    assert decoder.calls == 2
    assert len(list(cache_directory().iterdir())) == 1


def test_two_that_build_at_once_both_get_a_whole_entry(source: Path) -> None:
    together = threading.Barrier(2)
    found = []

    def build() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        together.wait(timeout=30)
        return Decoder()()

    threads = [threading.Thread(target=lambda: found.append(cached("data", [source], {}, build))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == 2
    for entry in found:
        np.testing.assert_array_equal(entry.arrays["x"], Decoder()()[0]["x"])
    assert len(list(cache_directory().iterdir())) == 1


def test_a_failed_build_leaves_nothing(source: Path) -> None:
    def build() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        raise DataError("damaged")

    with pytest.raises(DataError, match="damaged"):
        cached("data", [source], {}, build)
    assert not cache_directory().exists() or list(cache_directory().iterdir()) == []


def test_a_cache_that_cannot_be_written_names_the_variable(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="FEDBENCH_CACHE"):
        cached("data", [source], {}, Decoder())


def test_the_cache_lies_in_the_home_folder_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FEDBENCH_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "fedbench"
