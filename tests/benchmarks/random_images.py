"""Random images of a given number: what a benchmark trains on. Importable by path: "random_images:RandomImages"."""

from pathlib import Path

import numpy as np

from fedbench.data.base import Dataset, FederatedData, Split


class RandomImages(Dataset):
    """Uniform noise in the shape of CIFAR-10."""

    name: str = "random_images:RandomImages"
    rows: int = 100

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (self.rows, 32, 32, 3), dtype=np.uint8)
        split = Split(images, rng.integers(0, 10, self.rows))
        few = Split(images[:10], split.labels[:10])
        names = tuple(map(str, range(10)))
        return FederatedData("noise", "image", split, few, names, None, None, 0, -1, "random numbers", "")
