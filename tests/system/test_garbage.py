"""Python's search for garbage stops while a library is imported, and goes on as it was before."""

import gc
import threading
from collections.abc import Iterator

import pytest

from fedbench.system.garbage import no_garbage_search


@pytest.fixture(autouse=True)
def searching() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_the_search_stops_and_goes_on() -> None:
    with no_garbage_search():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_search_goes_on_after_an_error() -> None:
    with pytest.raises(ImportError), no_garbage_search():
        raise ImportError("no such library")
    assert gc.isenabled()


def test_a_search_that_was_off_stays_off() -> None:
    gc.disable()
    with no_garbage_search():
        pass
    assert not gc.isenabled()


def test_the_search_goes_on_when_the_last_of_overlapping_threads_ends() -> None:
    begun, ending = threading.Event(), threading.Event()

    def other() -> None:
        with no_garbage_search():
            begun.set()
            ending.wait(60)

    thread = threading.Thread(target=other)
    with no_garbage_search():
        thread.start()
        assert begun.wait(60)
    assert not gc.isenabled()
    ending.set()
    thread.join(60)
    assert gc.isenabled()
