"""Locks the folder of a run or a suite for one process, and tells whether a process holds such a lock.

A lock is an advisory `flock` on a file in the folder. It ends with its process, however that ends; nothing that a
killed process leaves behind has to be cleared away. On a file system without such locks nothing is locked.
"""

import fcntl
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from fedbench.errors import ConfigError
from fedbench.system.regular_files import open_regular

LOCK = ".lock"


class RunLock:
    """The exclusive right to write to a folder, held from construction to `release`, or as a context manager."""

    def __init__(self, directory: Path, kind: str) -> None:
        """Take the lock without waiting.

        Args:
            directory: the folder, which exists.
            kind: what it holds, for the error: "run" or "suite".

        Raises:
            ConfigError: another process has the lock, the folder cannot be written to, or a link stands in its place.
        """
        self._file = directory / LOCK
        if self._file.is_symlink() or (self._file.exists() and not self._file.is_file()):
            raise ConfigError(f"{self._file}: is no regular file, as every lock is; delete it to work on this {kind}")
        self._lock = FileLock(self._file, timeout=0, thread_local=False)
        self._is_held = True
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(
                f"{directory}: another process is at work on this {kind}; wait for it, or stop it"
            ) from None
        except NotImplementedError:  # raised by filelock where the file system has no locks: go on without one
            return
        except OSError as error:
            if not self._file.exists():
                raise ConfigError(f"{directory}: cannot be written to: {error.strerror}") from None

    def release(self) -> None:
        """Let other processes write to the folder; a second call does nothing."""
        if self._is_held:
            self._is_held = False
            self._file.unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def is_at_work(directory: Path) -> bool:
    """Whether a process of this machine holds the folder's lock.

    A shared lock is tried, which needs no right to write: the folder may be another user's.
    """
    try:
        with open_regular(directory / LOCK) as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock, or a file system without locks
        return False
    return False
