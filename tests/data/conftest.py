"""Small data sets made on the spot, a cache of each test's own, and the real data where it is there."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedbench.data.parquet_writer import write_parquet


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test."""
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def random_images() -> Callable[..., np.ndarray]:
    """(count, size, channels) -> uint8 [count, size, size, channels]."""

    def make(count: int, size: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)

    return make


@pytest.fixture
def image_bytes() -> Callable[..., bytes]:
    """(pixels uint8 [H, W, C], Pillow's format name) -> the encoded file."""

    def encode(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, form, **options)
        return stream.getvalue()

    return encode


@pytest.fixture
def make_cifar10(random_images: Callable[..., np.ndarray]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """(root) -> writes a small CIFAR-10 in Parquet there; gives its training images and labels."""

    def make(root: Path, folder: str = "cifar10", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        images, labels = random_images(30, seed=seed), np.arange(30, dtype=np.int64) % 10
        write_parquet(root / folder / "train-00000-of-00001.parquet", images, labels, names)
        write_parquet(root / folder / "test-00000-of-00001.parquet", images[:10], labels[:10], names)
        return images, labels

    return make
