"""NumPy's linear algebra has one thread at the server: the last bit of what it computes is that of any machine."""

from collections.abc import Iterator

import pytest
from noting_rules import blas_threads, noted
from small import asynchronous, config
from threadpoolctl import threadpool_limits

from fedbench import run

INLINE = ("runtime.executor=inline", "rounds=1", "schedule=full")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    noted.clear()
    with threadpool_limits(2, user_api="blas"):
        if blas_threads() != 2:
            pytest.skip("NumPy's linear algebra has one thread in any case")
        yield
        assert blas_threads() == 2


def assert_one_thread() -> None:
    """The rules are tried once before the run, where nothing depends on it, and had one thread from then on."""
    assert noted[-1] == 1
    assert noted == sorted(noted, reverse=True)


@pytest.mark.parametrize("rules", ["OfMeans", "OfPools"])
def test_in_rounds(rules: str) -> None:
    run(config(*INLINE, f"algorithm=noting_rules:{rules}"))
    assert_one_thread()


def test_in_arrivals() -> None:
    run(asynchronous(*INLINE, "algorithm=noting_rules:OfArrivals"))
    assert_one_thread()
