"""Memory in slots that processes share: who sees what, and when a slot is used again."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fedbench.engine.arrivals.shared_slots import MOST_BYTES, TOKEN_BYTES, OpenedSlots, SharedSlots

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory without a name is Linux's")


def taken(slots: SharedSlots) -> tuple[int, "np.ndarray"]:  # type: ignore[type-arg]
    slot = slots.take()
    assert slot is not None
    return slot


def test_another_process_reads_and_writes_the_same_memory() -> None:
    slots = SharedSlots(2, 5)
    number, memory = taken(slots)
    memory[:] = range(5)
    program = f"""
from fedbench.engine.arrivals.shared_slots import OpenedSlots, SlotsPlace
slot = OpenedSlots({slots.place!r}).slot({number})
slot += 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert memory.tolist() == [1, 2, 3, 4, 5]


def test_slots_lie_beside_each_other() -> None:
    slots = SharedSlots(3, 4)
    opened = OpenedSlots(slots.place)
    mine = [taken(slots) for _ in range(3)]
    for number, memory in mine:
        memory[:] = number
    assert sorted(number for number, _ in mine) == [0, 1, 2]
    assert [opened.slot(number).tolist() for number in range(3)] == [[0] * 4, [1] * 4, [2] * 4]


def test_a_slot_is_given_out_again_when_nothing_refers_to_a_part_of_it() -> None:
    slots = SharedSlots(1, 6)
    number, memory = taken(slots)
    part = memory[:4][1:]
    assert slots.take() is None
    del memory
    assert slots.take() is None, "a part of it is in use"
    del part
    assert taken(slots)[0] == number


@pytest.mark.parametrize("ends", ["closed", "forgotten"])
def test_nobody_opens_slots_that_are_closed_or_forgotten(ends: str) -> None:
    slots = SharedSlots(1, 6)
    place = slots.place
    if ends == "closed":
        slots.close()
        slots.close()
    del slots
    with pytest.raises(OSError, match=place.path):
        OpenedSlots(place)


def test_other_memory_is_not_taken_for_the_slots() -> None:
    slots = SharedSlots(1, 6)
    with pytest.raises(OSError, match="another process's memory"):
        OpenedSlots(replace(slots.place, token=bytes(TOKEN_BYTES)))


def test_closed_slots_are_opened_by_nobody_more_and_stay_for_those_who_have_them() -> None:
    slots = SharedSlots(1, 6)
    opened = OpenedSlots(slots.place)
    number, memory = taken(slots)
    slots.close()
    memory[:] = 7
    assert opened.slot(number).tolist() == [7] * 6
    with pytest.raises(OSError, match=r"."):
        OpenedSlots(slots.place)


def test_large_models_have_few_slots_or_none() -> None:
    assert SharedSlots(16, MOST_BYTES // 4 // 5).place.count == 5
    with pytest.raises(OSError, match="no memory"):
        SharedSlots(16, MOST_BYTES // 4 + 1)
