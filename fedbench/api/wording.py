"""Messages that name options of the command line, in words of Python."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fedbench.errors import ConfigError


@contextmanager
def arguments_named() -> Iterator[None]:
    """Context in which a `ConfigError` names arguments of functions where it would name options: scale for --scale."""
    try:
        yield
    except ConfigError as error:
        text = re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda option: option[1].replace("-", "_"), str(error))
        if text == str(error):
            raise
        raise type(error)(text) from None
