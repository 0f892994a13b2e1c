"""Files of the folder in which a command is run: own parts are found there, and nothing else of it is executed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Finished, start

pytestmark = pytest.mark.slow

LIBRARIES = ("yaml", "queue", "pyarrow", "typer", "numpy", "ray", "torch", "psutil", "IPython", "orjson", "email")
"""Libraries that fedbench or its dependencies import, some of which may not be installed."""

OWN = """
from pathlib import Path

import own_neighbour
import {library}

from fedbench import Algorithm

Path({marker!r}).touch()


class Half(Algorithm):
    "An algorithm of the user's own."

    name: str = "own_half:Half"
"""


@pytest.fixture
def folder_of_traps(run_folder: Path) -> Path:
    """A folder whose files bear the names of libraries, and end the process that executes them."""
    for name in LIBRARIES:
        (run_folder / f"{name}.py").write_text(f"import os\nos.write(2, b'executed {name}.py\\n')\nos._exit(99)\n")
    return run_folder


def write_own_part(folder: Path) -> Path:
    """Write the module `own_half`, which uses a library; returns the file that is there once it was imported."""
    marker = folder / "imported"
    (folder / "own_neighbour.py").write_text("")
    (folder / "own_half.py").write_text(OWN.format(library="yaml", marker=str(marker)))
    return marker


@pytest.mark.parametrize("command", [["list", "presets"], ["report", "."]], ids=lambda command: command[0])
def test_no_file_of_the_working_directory_stands_in_for_a_library(folder_of_traps: Path, command: list[str]) -> None:
    with start(folder_of_traps, *command, figures=True) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert "executed" not in stderr
    assert "quickstart" in stdout or "holds no run directory" in stderr


def test_nor_with_python_m(folder_of_traps: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fedbench", "help", "data"], cwd=folder_of_traps, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "dataset" in ended.stdout


def test_actors_find_own_parts_and_no_file_that_has_the_name_of_a_library(
    folder_of_traps: Path, joined_ray: dict[str, str]
) -> None:
    marker = write_own_part(folder_of_traps)
    overrides = (
        "rounds=1", "data.clients=2", "data.samples_per_client=40", "runtime.actors=1", "algorithm=own_half:Half",
        "tracking.enabled=false",
    )  # fmt: skip
    with start(folder_of_traps, "run", *overrides, figures=True, **joined_ray) as process:
        _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert marker.exists()
    assert "executed" not in stderr


def test_a_file_that_has_the_name_of_a_library_is_named(call: Callable[..., Finished], run_folder: Path) -> None:
    (run_folder / "queue.py").write_text("class Half: pass\n")
    ended = call("cost", "algorithm=queue:Half")
    assert ended.status == 2
    assert ended.stderr.endswith("because a library is called queue: rename the file\n")


def test_what_only_looks_at_a_file_executes_no_code_that_the_file_names(
    call: Callable[..., Finished], run_folder: Path
) -> None:
    marker = write_own_part(run_folder)
    (run_folder / "mine.yaml").write_text("algorithm: own_half:Half\nrounds: 1\n")
    suite = "title: T\nbase: {rounds: 1}\nrows: [{name: Half, set: {algorithm: own_half:Half}}]\ncolumns: [{name: C}]\n"
    (run_folder / "table.yaml").write_text(suite)
    for command in (("cost", "mine.yaml"), ("suite", "table.yaml", "--dry-run")):
        ended = call(*command)
        assert (ended.status, ended.stdout) == (2, "")
        assert "own_half:Half" in ended.stderr
        assert ended.stderr.endswith("add --trust if you trust that code\n")
        assert not marker.exists()
    assert call("cost", "mine.yaml", "--trust").status == 0
    assert marker.exists()


def test_code_that_is_typed_is_executed(call: Callable[..., Finished], run_folder: Path) -> None:
    marker = write_own_part(run_folder)
    sys.modules.pop("own_half", None)
    assert call("cost", "algorithm=own_half:Half", "rounds=1").status == 0
    assert marker.exists()


def test_trust_without_a_look_is_refused(call: Callable[..., Finished]) -> None:
    ended = call("suite", "quickstart", "--trust")
    assert ended.status == 2
    assert ended.stderr.startswith("error: --trust: has no effect without --dry-run")
