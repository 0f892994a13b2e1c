"""Who trains when in the slots of a process: pure logic, with jobs that only count."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbench.training.slots import interleaved


class Place:
    """A slot that notes whose steps were done in it.

    Attributes:
        log: for each step, the job.
    """

    def __init__(self) -> None:
        self.log: list[int] = []
        self.turns = 0
        self.inside = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        assert not self.inside
        self.inside, self.turns = True, self.turns + 1
        yield
        self.inside = False


def job(index: int, length: int, place: Place, fails_at: int = -1) -> Generator[None, None, int]:
    for step in range(length):
        assert place.inside
        if step == fails_at:
            raise ValueError(f"job {index}")
        place.log.append(index)
        yield
    return 10 * index


def test_steps_are_done_in_turn_and_a_free_slot_takes_the_next_job() -> None:
    places = [Place(), Place()]
    ended = list(interleaved([partial(job, index, length) for index, length in enumerate((3, 1, 2))], places))
    assert places[0].log == [0, 0, 0]
    assert places[1].log == [1, 2, 2]
    assert sorted((finished.index, finished.outcome) for finished in ended) == [(0, 0), (1, 10), (2, 20)]


@given(lengths=st.lists(st.integers(0, 6), max_size=12), slots=st.integers(1, 5))
def test_every_job_ends_once_in_one_slot_and_none_idles_while_jobs_wait(lengths: list[int], slots: int) -> None:
    places = [Place() for _ in range(slots)]
    ended = list(interleaved([partial(job, index, length) for index, length in enumerate(lengths)], places))
    assert sorted(finished.index for finished in ended) == list(range(len(lengths)))
    steps = [index for place in places for index in place.log]
    assert sorted(steps) == sorted(index for index, length in enumerate(lengths) for _ in range(length))
    for index in range(len(lengths)):
        assert sum(index in place.log for place in places) <= 1
    # A turn is a step, or the end of a job. A slot is idle only once nothing waits.
    turns = sorted(place.turns for place in places)
    assert sum(turns) == sum(lengths) + len(lengths)
    assert turns[-1] - turns[0] <= max(lengths, default=0) + 1


def test_a_job_that_raises_leaves_the_others_alone() -> None:
    places = [Place(), Place()]
    ended = {f.index: f for f in interleaved([partial(job, 0, 4), partial(job, 1, 4, fails_at=2)], places)}
    assert ended[0].outcome == 0
    assert str(ended[1].error) == "job 1"
    assert places[0].log == [0] * 4


def test_nothing_to_do_ends_at_once() -> None:
    assert list(interleaved([], [Place()])) == []
    with pytest.raises(StopIteration):
        next(interleaved([], []))
