"""Small data sets of every kind as files, and what to type to run on each of them by configuration alone."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SPEECHES = [f"{role}:\n{words}" for role in ("ANN", "BEN", "CAT") for words in ["so it is, and so it was. " * 8] * 3]


def write_table(root: Path) -> None:
    """Synthetic patients as CSV: two measurements and a name for a class, by clinic."""
    rng = np.random.default_rng(0)
    lines = ["age,weight,clinic,label"]
    for row in range(120):
        age, weight = rng.normal(50 + 20 * (row % 2), 5), rng.normal(70, 10)
        lines.append(f"{age:.2f},{weight:.2f},clinic {row % 5},{('well', 'ill')[row % 2]}")
    (root / "patients.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_series(root: Path) -> None:
    """Synthetic series: a slow and a fast sine, seen by two sensors of different scale, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    steps = np.arange(24)
    phases = rng.uniform(0, 6, (80, 1))
    left = np.sin(steps * (0.3 + 0.9 * labels[:, None]) + phases) + rng.normal(0, 0.1, (80, 24))
    right = 100 + 50 * np.cos(steps * (0.3 + 0.9 * labels[:, None]) + phases)
    columns = {"left": left.astype(np.float32).tolist(), "right": right.tolist(), "label": labels.tolist()}
    pq.write_table(pa.table(columns), root / "train.parquet")


def write_labels(root: Path) -> None:
    """Synthetic rows with two labels that may both apply."""
    values = np.random.default_rng(0).normal(size=(100, 3))
    labels = (values[:, :2] > 0).astype(int).tolist()
    pq.write_table(pa.table({"features": values.tolist(), "labels": labels}), root / "train.parquet")


def write_texts(root: Path) -> None:
    """Synthetic sentences of two kinds."""
    texts = [f"{('the match was won', 'shares fell again')[row % 2]} {row % 7}" for row in range(60)]
    topics = [("sports", "business")[row % 2] for row in range(60)]
    pq.write_table(pa.table({"text": texts, "label": topics}), root / "train.parquet")


def write_plays(root: Path) -> None:
    """Speeches of three roles, made up."""
    (root / "shakespeare").mkdir()
    (root / "shakespeare" / "input.txt").write_text("\n\n".join(SPEECHES), encoding="utf-8")


def write_leaf(root: Path) -> None:
    """The same speeches as LEAF writes its Shakespeare: 10 characters and the one after them, by role."""
    texts = {speech[:3]: speech[5:] for speech in SPEECHES[::3]}
    samples = {
        role: {"x": [text[i : i + 10] for i in range(60)], "y": list(text[10:70])} for role, text in texts.items()
    }
    content = {"users": list(samples), "num_samples": [60] * len(samples), "user_data": samples}
    (root / "all_data").mkdir()
    (root / "all_data" / "all_data.json").write_text(json.dumps(content), encoding="utf-8")


def write_masks(root: Path) -> None:
    """Synthetic images of a bright square, whose mask has the class 1 in it."""
    rng = np.random.default_rng(0)
    images, masks = [], []
    for _ in range(40):
        pixels, mask = rng.integers(0, 100, (8, 8, 3), dtype=np.uint8), np.zeros((8, 8), np.uint8)
        top, left = rng.integers(0, 5, 2)
        pixels[top : top + 4, left : left + 4] += 120
        mask[top : top + 4, left : left + 4] = 1
        images.append(_png(pixels))
        masks.append(_png(mask))
    pq.write_table(pa.table({"image": images, "mask": masks}), root / "train.parquet")


def _png(pixels: np.ndarray) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


SMALL = (
    "data.clients=3",
    "rounds=2",
    "schedule=full",
    "local.epochs=null",
    "local.steps=2",
    "local.batch_size=8",
    "local.optimizer.lr=0.01",
    "tracking.enabled=false",
    "runtime.device=cpu",
)

KINDS: dict[str, tuple[Callable[[Path], None] | None, tuple[str, ...], str, str]] = {
    "table": (write_table, ("data.dataset=csv", "data.dataset.owner=clinic", "data.partition=natural", "model=mlp"),
              "classification", "accuracy"),
    "table of scikit-learn": (None, ("data.dataset=breast-cancer", "model=mlp", "data.partition=dirichlet",
                                     "data.partition.alpha=1"), "classification", "accuracy"),
    "regression": (None, ("data.dataset=diabetes", "model=mlp", "data.partition=shards"), "regression", "mae"),
    "series": (write_series, ("data.dataset=parquet", "data.dataset.inputs=[left, right]", "model=conv1d",
                              "model.width=4"), "classification", "accuracy"),
    "series to forecast": (None, ("data.dataset=co2", "data.partition=natural", "model=conv1d", "model.width=4"),
                           "regression", "mae"),
    "series by parts": (None, ("data.dataset=macrodata", "data.partition=natural", "model=lstm", "model.hidden=8",
                               "model.layers=1", "rounds=3",
                               "schedule={name: sequential, warmup_rounds: 1, cycles: 1, rounds_per_group: 1}"),
                        "regression", "mae"),
    "several labels": (write_labels, ("data.dataset=parquet", "model=mlp"), "multilabel", "macro_f1"),
    "text": (write_texts, ("data.dataset=parquet", "data.dataset.max_tokens=8", "model=lstm", "model.hidden=8"),
             "classification", "accuracy"),
    "next character": (write_plays, ("data.dataset=shakespeare", "data.dataset.length=20", "data.partition=natural",
                                     "model=lstm", "model.hidden=8"), "next_token", "perplexity"),
    "LEAF's files": (write_leaf, ("data.dataset=leaf", "data.dataset.tokens=characters", "data.dataset.max_tokens=10",
                                  "data.partition=natural", "model=lstm", "model.hidden=8"),
                     "classification", "accuracy"),
    "masks": (write_masks, ("data.dataset=parquet", "model=unet", "model.width=2", "model.depth=1"),
              "segmentation", "mean_iou"),
}  # fmt: skip
"""{kind: (what writes it, overrides, the task that is found, the metric that it is judged by)}"""


def overrides_of(kind: str, root: Path) -> list[str]:
    """Write the data of a kind into `root`, and say what to type to run on them."""
    write, overrides, _, _ = KINDS[kind]
    if write is None:
        return [*SMALL, *overrides]
    root.mkdir(exist_ok=True)
    write(root)
    return [*SMALL, f"data.root={root}", *overrides]
