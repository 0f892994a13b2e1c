"""The `fedbench` command as a process of its own or in this one, and small broken data sets to give to it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from fedbench.cli.app import app
from fedbench.cli.entry import run_command
from fedbench.data.images import Cifar10
from fedbench.data.parquet_writer import write_parquet

COMMAND = Path(sys.executable).parent / "fedbench"
SUPPORT = Path(__file__).parent
WITHOUT_FIGURES = (sys.executable, str(SUPPORT / "without_figures.py"))
"""The same command; drawing takes longer than a small run."""
EMPTY_DATABASES = tempfile.TemporaryDirectory(prefix="fedbench-empty-databases-")
"""Where the caches of all tests of this process keep MLflow's empty database, which takes long to make."""
TRAIN, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"


@dataclass(frozen=True)
class Finished:
    """What a command left: its exit status and what it wrote."""

    status: int
    stdout: str
    stderr: str


def cache_in(folder: Path) -> str:
    """A cache of fedbench's, empty but for MLflow's empty database; its path."""
    folder.mkdir(exist_ok=True)
    if not (folder / "mlflow").exists():
        (folder / "mlflow").symlink_to(EMPTY_DATABASES.name)
    return str(folder)


def start(
    folder: Path,
    *arguments: str,
    stderr: int = subprocess.PIPE,
    new_session: bool = False,
    figures: bool = False,
    **settings: str,
) -> subprocess.Popen[str]:
    """Start `fedbench ARGUMENTS` in `folder`, by itself: no Ray, tracking store or cache from outside.

    Args:
        stderr: where its stderr goes; stdout is always a pipe.
        new_session: whether it leads a process group of its own.
        figures: whether runs draw theirs at their end.
        settings: environment variables.
    """
    own = {
        "FEDBENCH_CACHE": cache_in(folder.parent / f"{folder.name}-cache"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    foreign = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "COLUMNS", "FORCE_COLOR", "NO_COLOR")
    return subprocess.Popen(
        [*([str(COMMAND)] if figures else WITHOUT_FIGURES), *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in foreign} | own | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=new_session,
    )


def fedbench(folder: Path, *arguments: str, timeout: float = 240, figures: bool = False) -> Finished:
    """Run `fedbench ARGUMENTS` in `folder` to its end."""
    with start(folder, *arguments, figures=figures) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return Finished(process.returncode, stdout, stderr)


def write_cifar10(root: Path, rows: int = 40, labels: np.ndarray | None = None) -> Path:
    """A small CIFAR-10 of random pixels in Parquet under `root`: `rows` to train on, 20 to test on."""
    rng = np.random.default_rng(0)
    names = Cifar10.known_classes or ()
    for split, count in ((TRAIN, rows), (TEST, 20)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        own = np.arange(count, dtype=np.int64) % 10 if labels is None else np.resize(labels, count)
        write_parquet(root / "cifar10" / split, images, own, names)
    return root


def write_broken_data(root: Path) -> dict[str, Path]:
    """Data roots that each have one thing wrong with their CIFAR-10, by what it is."""
    roots = {name: root / name for name in ("empty", "corrupt", "foreign", "cut_image", "labels", "sound")}
    for place in roots.values():
        place.mkdir()
        if place.name != "empty":
            write_cifar10(place, labels=np.array([3, 10, 5]) if place.name == "labels" else None)
    corrupt = roots["corrupt"] / "cifar10" / TRAIN
    corrupt.write_bytes(corrupt.read_bytes()[:-200] + b"\0" * 200)
    pq.write_table(pa.table({"age": [41, 17], "income": [3.0, 4.0]}), roots["foreign"] / "cifar10" / TRAIN)
    cut = roots["cut_image"] / "cifar10" / TRAIN
    table = pq.read_table(cut)
    images = table.column("image").to_pylist()
    images[7]["bytes"] = images[7]["bytes"][:300]
    column = pa.array(images, table.schema.field("image").type)
    pq.write_table(table.set_column(0, table.schema.field("image"), column), cut)
    return roots


@cache
def made_once() -> Any:
    """The commands as Typer makes them of `app`, which it otherwise does for each call."""
    return typer.main.get_command(app)


def in_this_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """A `fedbench` that is called like a function, without the seconds that a process of its own takes."""

    def fedbench(*arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["fedbench", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
        capfd.readouterr()
        status = run_command(made_once())
        stdout, stderr = capfd.readouterr()
        return Finished(status, stdout, stderr)

    return fedbench
