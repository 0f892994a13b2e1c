"""Reading files that may not be what their names promise: only regular files are opened, so that no read waits.

In place of a file there may be a named pipe (opening it waits for a writer), a device that never ends, or links that
lead in a circle or out of the folder.
"""

import os
import stat
from io import BufferedReader
from pathlib import Path


class NotRegular(OSError):
    """What stands in the place of a file is no regular file."""


def open_regular(path: Path, *, follow: bool = False) -> BufferedReader:
    """Open a regular file for reading.

    Args:
        path: the file.
        follow: whether `path` itself may be a link to a regular file.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        NotRegular: there is a folder, link, named pipe, device or socket.
        OSError: it cannot be opened otherwise.
    """
    check_regular(path, follow=follow)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    stream = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):  # it was replaced since it was checked
        stream.close()
        raise NotRegular(f"is {kind_of(mode)}, not a file")
    return stream


def read_regular(path: Path, *, follow: bool = False, limit: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        follow: whether `path` itself may be a link to a regular file.
        limit: the largest size in bytes that is read; None: any.

    Raises:
        NotRegular: as `open_regular`, or the file is larger than `limit`.
        OSError: as `open_regular`.
    """
    with open_regular(path, follow=follow) as stream:
        size = os.fstat(stream.fileno()).st_size
        if limit is not None and size > limit:
            raise NotRegular(f"has {size:,} bytes; at most {limit:,} are read")
        return stream.read()


def check_regular(path: Path, *, follow: bool = False) -> None:
    """Check that a regular file stands at `path`; `follow` says whether `path` itself may be a link to one.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        NotRegular: something else stands there.
        OSError: nobody may look, or links lead in a circle.
    """
    mode = os.stat(path, follow_symlinks=follow).st_mode
    if not stat.S_ISREG(mode):
        raise NotRegular(f"is {kind_of(mode)}, not a file")


def kind_of(mode: int) -> str:
    """What a file of this `st_mode` is, in words."""
    kinds = {
        "a folder": stat.S_ISDIR,
        "a link": stat.S_ISLNK,
        "a named pipe": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
        "a device": stat.S_ISCHR,
        "a disk": stat.S_ISBLK,
    }
    return next((name for name, holds in kinds.items() if holds(mode)), "a file")
