"""Importing large libraries without Python's search for garbage."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_contexts = 0
_was_enabled = False


@contextmanager
def no_garbage_search() -> Iterator[None]:
    """Context in which Python does not look for objects that refer to each other and that nobody else needs.

    Importing PyTorch, Ray or MLflow makes some 100,000 objects, all of which stay; looking through them again and again
    takes a sixth of the time that the import takes. Contexts may be nested, and overlap in several threads: the search
    goes on when the last one ends, if it was on when the first one began.
    """
    global _contexts, _was_enabled
    with _lock:
        if _contexts == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _contexts += 1
    try:
        yield
    finally:
        with _lock:
            _contexts -= 1
            if _contexts == 0 and _was_enabled:
                gc.enable()
