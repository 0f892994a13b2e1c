"""Runs in several threads of one process: the models are those of runs one after the other."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from small import config

import fedbench
from fedbench.experiment.turns import its_turn

pytestmark = pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")

INLINE = ("runtime.executor=inline", "rounds=2", "schedule=full")
ON_ACTORS = ("runtime.actors=1", "rounds=2", "schedule=full")


def digest(seed: int, *overrides: str, **named: Any) -> str:
    return str(fedbench.run(config(f"seed={seed}", *overrides), **named).summary["model_sha256"])


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("overrides", [INLINE, ON_ACTORS, (*ON_ACTORS, "runtime.server=head")])
def test_runs_in_threads_leave_the_models_of_runs_one_after_the_other(overrides: tuple[str, ...]) -> None:
    seeds = (1, 2, 3)
    expected = [digest(seed, *INLINE) for seed in seeds]
    with ThreadPoolExecutor(len(seeds)) as threads:
        assert list(threads.map(lambda seed: digest(seed, *overrides), seeds)) == expected


def test_a_run_within_a_run_of_the_same_thread_does_not_wait_for_it() -> None:
    inner: list[str] = []
    outer = digest(1, *INLINE, progress=lambda row: inner.append(digest(2, *INLINE)))
    assert [outer, *inner] == [digest(1, *INLINE), *[digest(2, *INLINE)] * 2]


def test_who_waits_is_told_and_an_interrupt_ends_the_wait() -> None:
    told: list[str] = []
    holds, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with its_turn(lambda: False):
            holds.set()
            may_end.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(60)
    try:
        with pytest.raises(KeyboardInterrupt, match="nothing was recorded"), its_turn(lambda: bool(told), told.append):
            raise AssertionError("two runs at a time")
    finally:
        may_end.set()
        thread.join()
    assert told == ["waiting for the run of another thread: a process runs one experiment at a time"]
    with its_turn(lambda: False, told.append):
        assert len(told) == 1
