import threading
import time
from collections.abc import Callable

import pytest

from fedbench.tracking.retry_queue import Delivery


def delivery() -> Delivery:
    return Delivery("test", lambda error: isinstance(error, ValueError))


def failing(times: int, error: Exception, then: Callable[[], None]) -> Callable[[], None]:
    left = [times]

    def operation() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise error
        then()

    return operation


def test_order_is_kept_over_failures() -> None:
    done: list[int] = []
    queue = delivery()
    queue.submit(failing(2, OSError("away"), lambda: done.append(0)))
    for index in range(1, 5):
        queue.submit(lambda index=index: done.append(index))  # type: ignore[misc]
    queue.start()
    assert queue.finish(timeout=10, away_timeout=10)
    assert done == [0, 1, 2, 3, 4]
    assert queue.last_error == "OSError: away"
    assert queue.refused == []


def test_what_is_refused_is_skipped_and_noted() -> None:
    done: list[int] = []
    queue = delivery()
    queue.submit(failing(99, ValueError("bad\nname"), lambda: None))
    queue.submit(lambda: done.append(1))
    queue.start()
    assert queue.finish(timeout=10, away_timeout=10)
    assert done == [1]
    assert queue.refused == ["ValueError: bad name"]


def test_without_an_essential_operation_the_rest_is_dropped() -> None:
    done: list[int] = []
    queue = delivery()
    queue.submit(failing(99, ValueError("no such store"), lambda: None), essential=True)
    queue.submit(lambda: done.append(1))
    queue.start()
    assert queue.finish(timeout=10, away_timeout=10)
    assert done == []


def test_a_store_that_is_away_is_not_waited_for_long() -> None:
    queue = delivery()
    queue.submit(failing(10**6, OSError("away"), lambda: None))
    queue.start()
    begun = time.monotonic()
    assert not queue.finish(timeout=120, away_timeout=0.7)
    assert 0.6 < time.monotonic() - begun < 60


def test_a_store_that_hangs_is_waited_for_a_bounded_time() -> None:
    hang = threading.Event()
    queue = delivery()
    queue.submit(lambda: hang.wait(120) and None)
    queue.start()
    begun = time.monotonic()
    assert not queue.finish(timeout=0.5, away_timeout=0.1)
    assert time.monotonic() - begun < 60
    hang.set()


@pytest.mark.slow
def test_finishing_interrupts_a_long_pause() -> None:
    done: list[int] = []
    queue = delivery()
    queue.submit(failing(6, OSError("away"), lambda: done.append(1)))  # pauses of 0.5, 1, 2, ... 16 s
    queue.start()
    time.sleep(2)
    begun = time.monotonic()
    assert queue.finish(timeout=60, away_timeout=60)
    assert done == [1]
    assert time.monotonic() - begun < 15
