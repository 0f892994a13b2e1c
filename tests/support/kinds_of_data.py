"""Small data sets of every kind as files, and what to type to run on each of them by configuration alone.

The content is real wherever an installed library brings some of the kind: answers to a survey, weeks of the CO2 on
Mauna Loa, handwriting, Python's own documentation.
"""

import inspect
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image

from fedbench.tasks.kinds import TaskName

SPEECHES = [f"{role}:\n{words}" for role in ("ANN", "BEN", "CAT") for words in ["so it is, and so it was. " * 8] * 3]


def write_survey(root: Path) -> None:
    """American National Election Study of 1996, as CSV: opinions, age and income, by days of TV news a week."""
    from statsmodels.datasets import anes96

    answers = anes96.load_pandas().data
    columns = {name: answers[name].to_numpy() for name in ("selfLR", "ClinLR", "DoleLR", "PID", "age", "income")}
    columns["news"] = np.array([f"{days:.0f} days" for days in answers["TVnews"]])
    columns["label"] = np.where(answers["vote"] == 1, "Dole", "Clinton")
    pyarrow.csv.write_csv(pa.table(columns), root / "survey.csv")


def write_seasons(root: Path) -> None:
    """Thirteen weeks of the CO2 on Mauna Loa each, against the first and week by week, with the season of the first."""
    from statsmodels.datasets import co2

    weeks = co2.load_pandas().data["co2"]
    levels, changes, seasons = [], [], []
    for first in range(0, len(weeks) - 13, 13):
        window = weeks.iloc[first : first + 13].to_numpy()
        if not np.isnan(window).any():
            levels.append((window - window[0]).astype(np.float32).tolist())
            changes.append(np.diff(window, prepend=window[0]).tolist())
            seasons.append(("winter", "spring", "summer", "autumn")[weeks.index[first].month % 12 // 3])
    pq.write_table(pa.table({"level": levels, "change": changes, "label": seasons}), root / "train.parquet")


def write_kinds_of_digits(root: Path) -> None:
    """Handwritten digits, and what is true of each: odd, five or more, written with a loop."""
    images, digits = _digits(400)
    true_of = {"odd": {1, 3, 5, 7, 9}, "five or more": {5, 6, 7, 8, 9}, "with a loop": {0, 6, 8, 9}}
    labels = [[name for name, those in true_of.items() if digit in those] for digit in digits.tolist()]
    pq.write_table(pa.table({"image": [_png(image) for image in images], "labels": labels}), root / "train.parquet")


def write_ink(root: Path) -> None:
    """Handwritten digits on photographed ground, and masks in which the ink has the class 1."""
    from sklearn.datasets import load_sample_images

    ground = load_sample_images().images[0]
    images, masks = [], []
    for number, digit in enumerate(_digits(80)[0]):
        top, left = 5 * number % 400, 7 * number % 600
        inked = digit >= 120
        images.append(
            _png(np.where(inked[..., None], 255 - digit[..., None] // 4, ground[top : top + 8, left : left + 8]))
        )
        masks.append(_png(inked.astype(np.uint8)))
    pq.write_table(pa.table({"image": images, "mask": masks}), root / "train.parquet")


def write_english(root: Path) -> None:
    """The beginnings of the topics of Python's own help."""
    from pydoc_data.topics import topics

    pq.write_table(pa.table({"text": [topics[name][:200] for name in sorted(topics)]}), root / "train.parquet")


def write_docstrings(root: Path) -> None:
    """What Python says of functions of three kinds: mathematics, texts, and the operating system."""
    import math
    import os

    texts, topics = [], []
    for topic, holder in (("mathematics", math), ("texts", str), ("system", os)):
        functions = [value for _, value in sorted(vars(holder).items()) if callable(value)]
        said = [text for text in map(inspect.getdoc, functions) if text][:50]
        texts += [text[:200] for text in said]
        topics += [topic] * len(said)
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


def _digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of scikit-learn's digits: uint8 [count, 8, 8], 255 for full ink; the digits, int64 [count]."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    return (images[:count] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8), digits[:count]


def _png(pixels: np.ndarray) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


SMALL = (
    "data.clients=3",
    "rounds=2",
    "schedule=full",
    "local.epochs=null",
    "local.steps=20",
    "local.batch_size=8",
    "local.optimizer.lr=0.02",
    "tracking.enabled=false",
    "runtime.device=cpu",
)


@dataclass(frozen=True)
class Kind:
    """A kind of data, and a run on it.

    Attributes:
        overrides: what to type to run on it.
        task: the task that is found in the data.
        write: writes the files; None: the data set comes with a library.
        guess: the task's headline metric of an answer that looks at no input, computed from the labels: the
            most frequent class, the median target, every label, the frequencies of the tokens, or background alone; the
            run has to be better. None: so short a run is not.
    """

    overrides: tuple[str, ...]
    task: TaskName
    write: Callable[[Path], None] | None = None
    guess: float | None = None


KINDS: dict[str, Kind] = {
    "table": Kind(("data.dataset=csv", "data.dataset.owner=news", "data.partition=natural", "model=mlp"),
                  "classification", write_survey, 0.612),
    "table of scikit-learn": Kind(("data.dataset=breast-cancer", "model=mlp", "data.partition=dirichlet",
                                   "data.partition.alpha=1"), "classification", guess=0.629),
    "regression": Kind(("data.dataset=diabetes", "model=mlp", "data.partition=shards"), "regression", guess=65.4),
    "series": Kind(("data.dataset=parquet", "data.dataset.inputs=[level, change]", "model=conv1d", "model.width=4"),
                   "classification", write_seasons, 0.25),
    "series to forecast": Kind(("data.dataset=co2", "data.partition=natural", "model=conv1d", "model.width=4"),
                               "regression", guess=0.729),
    "series by parts": Kind(("data.dataset=macrodata", "data.partition=natural", "model=lstm", "model.hidden=8",
                             "model.layers=1", "rounds=3",
                             "schedule={name: sequential, warmup_rounds: 1, cycles: 1, rounds_per_group: 1}"),
                            "regression"),
    "several labels": Kind(("data.dataset=parquet", "model=mlp"), "multilabel", write_kinds_of_digits, 0.606),
    "text": Kind(("data.dataset=parquet", "data.dataset.max_tokens=12", "model=lstm", "model.hidden=8"),
                 "classification", write_docstrings, 0.334),
    "next character": Kind(("data.dataset=parquet", "data.dataset.tokens=characters", "data.dataset.max_tokens=30",
                            "model=lstm", "model.hidden=16", "local.optimizer.lr=0.05"),
                           "next_token", write_english, 23.4),
    "roles of plays": Kind(("data.dataset=shakespeare", "data.dataset.length=20", "data.partition=natural",
                            "model=lstm", "model.hidden=8"), "next_token", write_plays, 8.76),
    "LEAF's files": Kind(("data.dataset=leaf", "data.dataset.tokens=characters", "data.dataset.max_tokens=10",
                          "data.partition=natural", "model=lstm", "model.hidden=8"),
                         "classification", write_leaf, 0.278),
    "masks": Kind(("data.dataset=parquet", "model=unet", "model.width=2", "model.depth=1"),
                  "segmentation", write_ink, 0.345),
}  # fmt: skip
"""Kinds of data by name."""


def overrides_of(kind: str, root: Path) -> list[str]:
    """Write the data of a kind into `root`, and say what to type to run on them."""
    write, overrides = KINDS[kind].write, KINDS[kind].overrides
    if write is None:
        return [*SMALL, *overrides]
    root.mkdir(exist_ok=True)
    write(root)
    return [*SMALL, f"data.root={root}", *overrides]
