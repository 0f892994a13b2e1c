"""The memory of a server's rounds: the same from round to round, and clean."""

import numpy as np

from fedbench.engine.rounds.round_memory import RoundMemory


def test_the_next_round_finds_zeros_in_the_same_memory() -> None:
    memory = RoundMemory()
    whole = memory.total(10)
    whole += 7
    partial = memory.total(4)
    assert np.shares_memory(whole, partial)
    np.testing.assert_array_equal(partial, np.zeros(4, np.int64))
    np.testing.assert_array_equal(memory.total(12), np.zeros(12, np.int64))


def test_reference_and_result_lie_apart() -> None:
    memory = RoundMemory()
    reference, result = memory.reference(5), memory.result(5)
    assert (len(reference), len(result), reference.dtype, result.dtype) == (5, 5, np.float32, np.float32)
    assert not np.shares_memory(reference, result)
    assert np.shares_memory(memory.reference(3), reference)
