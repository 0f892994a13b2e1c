"""The lock of a run's or a suite's folder: for one process at a time, and gone with its process."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedbench.errors import ConfigError
from fedbench.records.run_lock import LOCK, RunLock, is_at_work

HOLDER = """
import sys; from pathlib import Path; from fedbench.records.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]), "run"); print("held", flush=True); sys.stdin.read()
"""


def test_a_second_holder_is_refused_until_the_first_releases(tmp_path: Path) -> None:
    with RunLock(tmp_path, "suite"):
        assert is_at_work(tmp_path)
        with pytest.raises(ConfigError, match="another process is at work on this suite; wait for it, or stop it"):
            RunLock(tmp_path, "suite")
        assert is_at_work(tmp_path)  # the refused one took nothing away
    assert not is_at_work(tmp_path)
    assert not (tmp_path / LOCK).exists()
    RunLock(tmp_path, "suite").release()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert is_at_work(tmp_path)
    with pytest.raises(ConfigError, match="another process is at work on this run"):
        RunLock(tmp_path, "run")
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK).exists()
    assert not is_at_work(tmp_path)
    RunLock(tmp_path, "run").release()


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with RunLock(tmp_path, "run"):
        assert not is_at_work(tmp_path)
    RunLock(tmp_path, "run").release()


def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written to: "):
        RunLock(tmp_path / "file", "run")
