"""Whether a local Ray that fedbench starts lives as long as what it was started for, or as long as the process.

The command line ends it with the run. Python code often runs one experiment after the other, and starting Ray takes
longer than many of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

_open = 0
"""The number of `ray_kept` contexts that are open."""


@contextmanager
def ray_kept() -> Iterator[None]:
    """Context in which a local Ray that is started is kept until the process ends, for whatever needs one next."""
    global _open
    _open += 1
    try:
        yield
    finally:
        _open -= 1


def is_ray_kept() -> bool:
    """Whether a local Ray that is started now outlives what it is started for."""
    return _open > 0
