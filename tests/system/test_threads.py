"""Arithmetic in one thread: the libraries of linear algebra are looked for again after further imports."""

import sys
from types import ModuleType

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from fedbench.system import threads
from fedbench.system.threads import OneThread


def test_linear_algebra_has_one_thread_within_and_what_it_had_afterwards() -> None:
    np.dot(np.ones(2), np.ones(2))
    before = [library["num_threads"] for library in threadpool_info()]
    with OneThread()():
        assert {library["num_threads"] for library in threadpool_info()} == {1}
    assert [library["num_threads"] for library in threadpool_info()] == before


def test_libraries_are_looked_for_again_once_something_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    real = threads.ThreadpoolController

    def counted() -> object:
        searches.append(len(sys.modules))
        return real()

    monkeypatch.setattr(threads, "ThreadpoolController", counted)
    threads._controller.cache_clear()
    OneThread(), OneThread()
    assert len(searches) == 1
    monkeypatch.setitem(sys.modules, "a_library_imported_later", ModuleType("a_library_imported_later"))
    OneThread()
    assert len(searches) == 2
    threads._controller.cache_clear()
