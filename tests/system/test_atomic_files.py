"""Files that are replaced whole."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedbench.system.atomic_files import replace_text, replacing, write_tensors

WRITE = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from fedbench.system.atomic_files import write_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_tensors(Path(sys.argv[1]), {"a": np.zeros(100_000)})
except OSError as error:
    print("no room:", error)
"""


def test_where_there_is_no_room_it_is_said_as_for_any_file(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path / "a")], capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("no room: "), said


def test_what_tensors_cannot_be_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="dtype") as caught:
        write_tensors(tmp_path / "a", {"a": np.array(["text"])})
    assert not isinstance(caught.value, OSError)


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = replace_text(tmp_path / "a", "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(RuntimeError):
        break_off(path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def break_off(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
