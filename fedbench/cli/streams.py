"""Standard output and error that cannot end a run: a full disk, a reader that has gone, a plain terminal."""

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

IN_ASCII = {"±": "+-", "×": "x", "→": "->", "–": "-", "—": "-", "…": "...", "≤": "<=", "≥": ">=", "ε": "epsilon"}  # noqa: RUF001
"""What stands for a character that a terminal cannot show; any other becomes a question mark."""

CODEC_ERRORS = "fedbench.ascii"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(IN_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error(CODEC_ERRORS, _replace)


class Unbreakable:
    """A text stream that is written to as far as that is possible.

    Attributes:
        lost: what became of text that could not be written, in words; None while all was written, or the reader of a
            pipe has closed it, as `head` does.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: str | None = None

    def write(self, text: str) -> int:
        """Write a text; what cannot be written is left out."""
        try:
            self._stream.write(text)
        except (OSError, ValueError) as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Write what is kept back."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if getattr(error, "errno", None) == errno.EPIPE:
            # Python writes the rest when it ends, and would complain.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        else:
            self.lost = str(getattr(error, "strerror", None) or error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def unbreakable_streams() -> Iterator[Unbreakable]:
    """Context in which `sys.stdout` and `sys.stderr` cannot fail; yields the former."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=CODEC_ERRORS)
    stdout, stderr = Unbreakable(sys.stdout), Unbreakable(sys.stderr)
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield stdout
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = before
