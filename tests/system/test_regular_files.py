"""What stands in place of a file: nothing but a regular file is opened, and none larger than expected is read."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedbench.system import regular_files
from fedbench.system.regular_files import NotRegular, open_regular, read_regular


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


KINDS: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a named pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "a socket": a_socket,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_named_for_what_it_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is a short one
    KINDS[kind](Path("file"))
    with pytest.raises(NotRegular, match=f"is {kind}, not a file"):
        read_regular(Path("file"))


def test_what_is_no_regular_file_is_not_even_opened(tmp_path: Path) -> None:
    """Opening a named pipe lets the process go on that waits to write to it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: os.close(os.open(pipe, os.O_WRONLY)))
    writer.start()
    with pytest.raises(NotRegular):
        open_regular(pipe)
    writer.join(0.2)
    assert writer.is_alive()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer.join()
    os.close(reader)


@pytest.mark.parametrize("replace", [os.mkfifo, lambda path: path.symlink_to("other")], ids=["a pipe", "a link"])
def test_a_file_that_is_replaced_while_it_is_looked_at_is_refused(
    replace: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("whole")
    (tmp_path / "other").write_text("another")
    check = regular_files.check_regular

    def check_then_replace(path: Path, *, follow: bool = False) -> None:
        check(path, follow=follow)
        path.unlink()
        replace(path)

    monkeypatch.setattr(regular_files, "check_regular", check_then_replace)
    with pytest.raises(OSError, match=r"is a named pipe, not a file|symbolic links"):
        open_regular(file)


def test_links_are_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("whole")
    link = tmp_path / "link"
    link.symlink_to("file")
    assert read_regular(link, follow=True) == b"whole"
    with pytest.raises(NotRegular, match="is a link"):
        read_regular(link)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, 2**40)
    with pytest.raises(NotRegular, match=r"has 1,099,511,627,776 bytes; at most 100 are read"):
        read_regular(file, limit=100)
