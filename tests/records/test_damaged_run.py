"""Each file of a run directory, damaged in each way, and each command that reads it: nothing hangs, nothing is lost."""

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from broken_runs import BreakAfter, Broken, load, tables
from command_line import Finished

from fedbench.experiment.run import run

pytestmark = pytest.mark.slow

LIMIT = 60
"""Seconds after which a command is taken to hang."""

RECORDS = (
    "config.yaml", "description.json", "partition.parquet", "rounds.parquet", "clients.parquet", "summary.json",
    "model.safetensors",
)  # fmt: skip
STATE = (
    "checkpoints/recording.json",
    "checkpoints/round-00000004/manifest.json",
    "checkpoints/round-00000004/state.json",
    "checkpoints/round-00000004/arrays.safetensors",
    "checkpoints/round-00000004/rounds.parquet",
    "checkpoints/round-00000004/clients.parquet",
    "checkpoints/round-00000002/manifest.json",
    "checkpoints/round-00000002",
    "checkpoints/round-00000004",
    "checkpoints",
)


def cut(file: Path, other: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)


def empty(file: Path, other: Path) -> None:
    os.truncate(file, 0)


def nonsense(file: Path, other: Path) -> None:
    file.write_bytes(random.Random(0).randbytes(file.stat().st_size))


def of_another_run(file: Path, other: Path) -> None:
    shutil.copy(other, file)


def folder(file: Path, other: Path) -> None:
    remove(file)
    file.mkdir()


def pipe(file: Path, other: Path) -> None:
    remove(file)
    os.mkfifo(file)


def loop(file: Path, other: Path) -> None:
    remove(file)
    file.symlink_to(file.name)


def missing(file: Path, other: Path) -> None:
    remove(file)


def remove(file: Path) -> None:
    shutil.rmtree(file) if file.is_dir() else file.unlink()


DAMAGES = (cut, flip, empty, nonsense, of_another_run, folder, pipe, loop, missing)
OF_FOLDERS = (folder, pipe, loop, missing)


def cases() -> Iterator[object]:
    """Every file with every damage; by default each file is damaged in two ways, in turn."""
    for state in ("whole", "broken"):
        names = RECORDS if state == "whole" else (*RECORDS[:-1], *STATE)
        for place, name in enumerate(names):
            damages = DAMAGES if "." in Path(name).name else OF_FOLDERS
            chosen = {(2 * place + turn) % len(damages) for turn in (0, 1)}
            for number, damage in enumerate(damages):
                marks = [] if number in chosen else [pytest.mark.exhaustive]
                yield pytest.param(state, name, damage, marks=marks, id=f"{state}-{name}-{damage.__name__}")


@pytest.fixture(scope="module")
def recorded(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole run, the same run broken off after round 5 of 6, and another one broken off so."""
    place = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
        run(load("rounds=6", f"output.directory={place / 'whole'}"))
        for name, seed in (("broken", 0), ("other", 1)):
            with pytest.raises(Broken):
                run(load("rounds=6", f"seed={seed}", f"output.directory={place / name}"), [BreakAfter(4)])
    shutil.copy(place / "whole" / "model.safetensors", place / "other")
    return place


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@contextmanager
def time_limit() -> Iterator[None]:
    def too_long(number: int, frame: object) -> None:
        raise AssertionError(f"still at work after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("flops_counted_once", "no_figures")
@pytest.mark.parametrize(("state", "name", "damage"), list(cases()))
def test_a_damaged_file_is_refused_or_made_good(
    state: str,
    name: str,
    damage: Callable[[Path, Path], None],
    recorded: Path,
    run_folder: Path,
    call: Callable[..., Finished],
) -> None:
    directory = shutil.copytree(recorded / state, run_folder / "run")
    damage(directory / name, recorded / "other" / name)
    before = content(directory)

    def called(*arguments: str) -> Finished:
        with time_limit():
            finished = call(*arguments)
        assert finished.status in (0, 1, 2)
        assert "Traceback" not in finished.stderr
        if finished.status:
            (line,) = (line for line in finished.stderr.splitlines() if line.startswith("error: "))
            assert "run" in line or arguments[0] == "cost", "names the directory"
        return finished

    if name in RECORDS:
        called("report", "run")
        assert content(directory) == before
    if name == "config.yaml":
        called("cost", "run/config.yaml")
        assert content(directory) == before
    if called("resume", "run").status:
        assert content(directory) == before, "what is refused is left as it is"
        return
    assert tables(directory) == tables(recorded / "whole")
    model = (directory / "model.safetensors").read_bytes()
    assert model == (recorded / "whole" / "model.safetensors").read_bytes()
    first, places = rounds_in(recorded / state), (directory, *directory.glob("set-aside-*"))
    assert any(rounds_in(place).equals(first) for place in places), "with their wall-clock times"


def rounds_in(place: Path) -> pa.Table:
    """The first two rounds of a table, which were recorded before every checkpoint."""
    return pq.read_table(place / "rounds.parquet").slice(0, 2)
