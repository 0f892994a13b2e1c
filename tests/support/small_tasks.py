"""Small data for each task, drawn so that a little can be learned of them, and runs on them. Importable by path."""

from pathlib import Path

import numpy as np

from fedbench.config.experiment import ExperimentConfig
from fedbench.data.base import Dataset, FederatedData, InputKind, Split
from fedbench.tasks.kinds import UNSCORED, TaskName

ROWS, TEST_ROWS = 96, 32
TOKENS = 7

MODELS: dict[TaskName, tuple[str, ...]] = {
    "classification": ("model=mlp", "model.hidden=[8]"),
    "multilabel": ("model=mlp", "model.hidden=[8]"),
    "regression": ("model=mlp", "model.hidden=[8]"),
    "next_token": ("model=lstm", "model.hidden=8", "model.layers=1"),
    "segmentation": ("model=unet", "model.width=4"),
}


class Drawn(Dataset):
    """Rows of one task, the same for every seed.

    Attributes:
        of: the task.
        test_is_train: whether the test split has the training rows.
        scaled: whether arrays are normalised.
        unscored: number of test rows, from the second on, of whose tokens none counts.
    """

    name: str = "small_tasks:Drawn"
    of: TaskName = "classification"
    test_is_train: bool = False
    scaled: bool = False
    unscored: int = 0

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """Draw the rows."""
        rng = np.random.default_rng(0)
        kind: InputKind = {"next_token": "text", "segmentation": "image"}.get(self.of, "array")  # type: ignore[assignment]
        train, test = _split(self.of, ROWS, rng), _split(self.of, TEST_ROWS, rng)
        if self.unscored:
            (train if self.test_is_train else test).labels[1 : 1 + self.unscored] = UNSCORED["int64"]
        names = {"classification": 3, "multilabel": 2, "regression": 1, "segmentation": 2, "next_token": TOKENS}
        return FederatedData(
            name=self.name,
            kind=kind,
            train=train,
            test=train if self.test_is_train else test,
            class_names=tuple(f"name{number}" for number in range(names[self.of])),
            mean=(0.5, 0.0, -0.5, 0.0) if self.scaled else None,
            std=(2.0, 1.0, 1.0, 0.5) if self.scaled else None,
            vocabulary_size=TOKENS if kind == "text" else 0,
            padding_index=-1,
            source="drawn",
            fingerprint=f"drawn {self.of}",
            task=self.of,
        )


def _split(task: TaskName, rows: int, rng: np.random.Generator) -> Split:
    if task == "next_token":  # every token is mostly followed by the next one
        starts = rng.integers(TOKENS, size=(rows, 1))
        texts = ((starts + np.arange(9) + (rng.random((rows, 9)) < 0.1)) % TOKENS).astype(np.int32)
        return Split(texts[:, :-1].copy(), texts[:, 1:].astype(np.int64))
    if task == "segmentation":  # bright pixels are of the second class
        images = rng.integers(256, size=(rows, 8, 8, 1)).astype(np.uint8)
        return Split(images, (images[..., 0] > 127).astype(np.uint8))
    inputs = rng.normal(size=(rows, 4)).astype(np.float32)
    if task == "regression":
        return Split(inputs, (3 * inputs[:, :1] + 1).astype(np.float32))
    if task == "multilabel":
        return Split(inputs, (inputs[:, :2] > 0).astype(np.uint8))
    return Split(inputs, inputs[:, :3].argmax(1).astype(np.int64))


def config(task: TaskName, *overrides: str) -> ExperimentConfig:
    """A run of a second with this task, in this process, without tracking."""
    return ExperimentConfig.load(
        None,
        [
            f"name={task}",
            "rounds=3",
            "data.dataset=small_tasks:Drawn",
            f"data.dataset.of={task}",
            "data.clients=4",
            "data.partition=iid",
            *MODELS[task],
            "local.batch_size=8",
            "local.optimizer.lr=0.02",
            "schedule=full",
            "tracking.enabled=false",
            "runtime.executor=inline",
            "runtime.device=cpu",
            *overrides,
        ],
    )
