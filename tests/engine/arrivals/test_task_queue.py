"""Tasks that wait for an actor: who is given which of them, in what order, and how many at a time."""

import math
from itertools import chain
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.engine.arrivals.task_queue import BATCH_BYTES, BATCHES_PER_ACTOR, TaskQueue, WaitingTask
from fedbench.engine.bookkeeping import stale_for_task
from fedbench.engine.messages import TaskOrder

TASK_SECONDS = 0.01


def task(number: int, due: float = math.inf, client: int | None = None) -> WaitingTask:
    order = TaskOrder(number, number, number if client is None else client, 0, (0,), (), 1.0, True)
    return WaitingTask(due, number, order, ())


def queue(actors: int, *, task_bytes: int = 4, keep_home: bool = False) -> TaskQueue:
    """A queue that knows already how long a task takes."""
    made = TaskQueue(actors, task_bytes, keep_home=keep_home)
    made.add(task(-1, 0.0, 0))
    batch = made.next_batch({})
    assert batch is not None
    made.finished(batch[0], TASK_SECONDS)
    return made


def everything(waiting: TaskQueue) -> list[tuple[int, list[int]]]:
    """(actor, numbers of its tasks) of the batches that are given out until no actor has room."""
    batches = []
    while (batch := waiting.next_batch({})) is not None:
        batches.append((batch[0], [each.number for each in batch[1]]))
    return batches


def test_what_is_due_first_is_given_out_first_and_the_rest_is_held_back() -> None:
    waiting = queue(2)
    for number, due in enumerate([9.0, 3.0, 8.0, 1.0, 7.0, 2.0, 6.0, 4.0, 5.0, 10.0, 11.0, 12.0]):
        waiting.add(task(number, due, client=0))
    assert everything(waiting) == [(0, [3, 5]), (1, [1, 7]), (0, [8, 6]), (1, [4, 2])]
    assert len(waiting) == 4


def test_one_task_at_a_time_where_nobody_knows_when_they_are_due() -> None:
    waiting = queue(2)
    for number in range(20):
        waiting.add(task(number, client=0))
    assert everything(waiting) == [(0, [0]), (1, [1]), (0, [2]), (1, [3])]


def test_one_task_at_a_time_until_it_is_known_how_long_it_takes_or_where_it_takes_long() -> None:
    waiting = TaskQueue(1, 4, keep_home=False)
    for number in range(9):
        waiting.add(task(number, number))
    assert everything(waiting) == [(0, [0]), (0, [1])]
    waiting.finished(0, 2.0)
    assert everything(waiting) == [(0, [2])]
    waiting.finished(0, TASK_SECONDS)
    assert everything(waiting) == [(0, [3, 4])]


def test_a_batch_of_several_tasks_has_no_more_bytes_than_stated() -> None:
    for task_bytes, most in ((BATCH_BYTES, 1), (BATCH_BYTES // 2, 2), (BATCH_BYTES // 2 + 1, 1), (1 << 30, 1)):
        waiting = queue(1, task_bytes=task_bytes)
        for number in range(40):
            waiting.add(task(number, number))
        assert [len(numbers) for _, numbers in everything(waiting)] == [most, most]


def test_batches_grow_while_no_actor_waits_and_shrink_when_one_does() -> None:
    waiting, sizes = queue(1), []
    number = 0
    for _ in range(200):
        while len(waiting) < 40:
            waiting.add(task(number, number))
            number += 1
        sizes += [len(numbers) for _, numbers in everything(waiting)]
        waiting.finished(0, sizes[-1] * TASK_SECONDS)
    assert sizes[0] == 2
    assert sizes == sorted(sizes)
    assert sizes[-1] == 2 + 200 // 30
    while len(waiting):
        waiting.finished(0, TASK_SECONDS)
        everything(waiting)
    for _ in range(BATCHES_PER_ACTOR):
        waiting.finished(0, TASK_SECONDS)
    for _ in range(5):
        assert waiting.next_batch({}) is None
    for more in range(40):
        waiting.add(task(number + more, number + more))
    assert len(everything(waiting)[0][1]) < sizes[-1]


def test_a_client_goes_where_it_was_among_actors_with_as_much_to_do() -> None:
    waiting = queue(2)
    waiting.add(task(0, 1.0, client=5))
    assert waiting.next_batch({5: 0}) == (0, (task(0, 1.0, client=5),))
    waiting.add(task(1, 2.0, client=7))
    assert waiting.next_batch({7: 0}) == (1, (task(1, 2.0, client=7),)), "the other actor has less to do"


def test_what_clients_keep_need_not_move_within_a_batch() -> None:
    waiting = queue(2, keep_home=True)
    for number, client in enumerate([0, 1, 2, 3, 4, 5, 6, 7]):
        waiting.add(task(number, number, client=client))
    home = {client: client % 2 for client in range(8)}
    batch = waiting.next_batch(home)
    assert batch is not None
    assert [each.number for each in batch[1]] == [0, 2]


def test_lost_batches_make_room() -> None:
    waiting = queue(1)
    for number in range(9):
        waiting.add(task(number, number))
    assert len(everything(waiting)) == BATCHES_PER_ACTOR
    waiting.lost(0, BATCHES_PER_ACTOR)
    assert len(everything(waiting)) == BATCHES_PER_ACTOR


@given(
    actors=st.integers(1, 5),
    keep_home=st.booleans(),
    dues=st.lists(st.one_of(st.just(math.inf), st.floats(0, 9)), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_every_task_is_given_out_once_whatever_is_due_and_whoever_is_lost(
    actors: int, keep_home: bool, dues: list[float], seed: int
) -> None:
    rng, waiting = Random(seed), queue(actors, keep_home=keep_home)
    outstanding: list[list[list[int]]] = [[] for _ in range(actors)]
    done: list[int] = []
    to_come = [task(number, due) for number, due in enumerate(dues)]
    while len(done) < len(dues):
        for each in to_come[: rng.randint(1, 8)]:
            waiting.add(each)
            to_come.remove(each)
        while (batch := waiting.next_batch({})) is not None:
            actor, tasks = batch
            assert list(tasks) == sorted(tasks)
            assert len(outstanding[actor]) == min(map(len, outstanding)) < BATCHES_PER_ACTOR
            outstanding[actor].append([each.number for each in tasks])
        at_work = [actor for actor in range(actors) if outstanding[actor]]
        if not at_work:
            continue
        actor = rng.choice(at_work)
        if rng.random() < 0.7:
            numbers = outstanding[actor].pop(0)
            waiting.finished(actor, len(numbers) * TASK_SECONDS)
            done += numbers
        elif rng.random() < 0.5:
            waiting.lost(actor, len(outstanding[actor]))
            for number in chain.from_iterable(outstanding[actor]):
                waiting.add(task(number, dues[number]))
            outstanding[actor].clear()
    assert sorted(done) == list(range(len(dues)))
    assert len(waiting) == 0


@pytest.mark.parametrize("actors", [1, 3])
def test_whatever_is_held_there_is_room_for_two_batches_each(actors: int) -> None:
    waiting = queue(actors)
    for number in range(100):
        waiting.add(task(number, number))
    given_to = [actor for actor, _ in everything(waiting)]
    assert sorted(given_to) == sorted(list(range(actors)) * BATCHES_PER_ACTOR)


def test_a_host_that_holds_newer_parameters_is_sent_those_of_a_task_dispatched_before() -> None:
    held = [-1, -1]
    assert stale_for_task(held, (5, 7), (0, 1), estimates=False) == (0, 1)
    assert stale_for_task(held, (5, 7), (0, 1), estimates=False) == ()
    assert stale_for_task(held, (4, 7), (0, 1), estimates=False) == (0,)
    assert held == [4, 7]
