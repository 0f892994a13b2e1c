"""The parts of a transfer: how they are numbered, who sends which, and where they lie in a message."""

import numpy as np
import pytest

from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.message import PARAMETERS, STATISTICS, Part, PartTable

LAYOUT = ParameterLayout.build(
    [
        ("conv", {"conv.weight": (2, 3), "conv.bias": (2,)}),
        ("middle", {"middle.weight": (5,)}),
        ("head", {"head": (3,)}),
    ],
    statistics=[("norm.running_mean", 0, (2,)), ("norm.running_var", 1, (2,))],
)
WITHOUT_STATISTICS = ParameterLayout.build([("one", {"one": (4,)}), ("two", {"two": (3,)})])
TABLE = PartTable(LAYOUT, statistics=True, channels=("control", "second"))
EVERYTHING = tuple(range(10))


def vectors(table: PartTable = TABLE, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=len(vector)).astype(np.float32) for name, vector in table.zeros().items()}


def test_parts_are_the_groups_then_the_statistics_then_each_channel_by_group() -> None:
    slices = LAYOUT.slices
    assert TABLE.parts == (
        *(Part(PARAMETERS, group, slices[group]) for group in range(3)),
        Part(STATISTICS, -1, slice(0, 4)),
        *(Part("control", group, slices[group]) for group in range(3)),
        *(Part("second", group, slices[group]) for group in range(3)),
    )
    assert TABLE.sizes == (8, 5, 3, 4, 8, 5, 3, 8, 5, 3)


@pytest.mark.parametrize(
    "table",
    [PartTable(LAYOUT, statistics=False), PartTable(WITHOUT_STATISTICS, statistics=True)],
    ids=["kept by the clients", "none in the model"],
)
def test_statistics_that_do_not_travel_are_no_part(table: PartTable) -> None:
    groups = table.layout.groups
    assert len(table.parts) == groups
    assert all(part.channel == PARAMETERS for part in table.parts)
    assert table.uploaded((1,)) == (1,)


def test_a_client_sends_the_active_groups_of_every_channel_and_all_statistics() -> None:
    assert TABLE.uploaded((0, 1, 2)) == EVERYTHING
    assert TABLE.uploaded((1,)) == (1, 3, 5, 8)
    assert TABLE.uploaded((2, 0)) == (0, 2, 3, 4, 6, 7, 9)
    assert TABLE.uploaded(()) == (3,)
    assert PartTable(LAYOUT, statistics=False, channels=("control",)).uploaded((1,)) == (1, 4)


def test_bytes_are_four_a_value() -> None:
    assert TABLE.values((1, 3, 5, 8)) == 5 + 4 + 5 + 5
    assert TABLE.nbytes((1, 3, 5, 8)) == 4 * 19
    assert TABLE.nbytes(EVERYTHING) == 4 * (3 * LAYOUT.size + LAYOUT.statistics_size)
    assert TABLE.nbytes(()) == 0


def test_segments_say_where_parts_lie_in_a_message() -> None:
    within = (1, 3, 5, 8)
    assert TABLE.segments(within, within) == [
        (TABLE.parts[1], slice(0, 5)),
        (TABLE.parts[3], slice(5, 9)),
        (TABLE.parts[5], slice(9, 14)),
        (TABLE.parts[8], slice(14, 19)),
    ]
    assert TABLE.segments((8, 3), within) == [(TABLE.parts[8], slice(14, 19)), (TABLE.parts[3], slice(5, 9))]
    with pytest.raises(KeyError):
        TABLE.segments((0,), within)


@pytest.mark.parametrize("parts", [EVERYTHING, (1, 3, 5, 8), (0, 2), (3,), (2, 4), (7, 8, 9), (9, 0), (0, 5)])
def test_a_message_holds_the_values_of_its_parts_and_can_be_written_back(parts: tuple[int, ...]) -> None:
    source, target = vectors(seed=1), vectors(seed=2)
    untouched = vectors(seed=2)
    message = TABLE.gather(source, parts)
    assert message.dtype == np.float32
    np.testing.assert_array_equal(
        message, np.concatenate([source[TABLE.parts[part].channel][TABLE.parts[part].piece] for part in parts])
    )
    TABLE.scatter(message, target, parts)
    for index, part in enumerate(TABLE.parts):
        expected = source if index in parts else untouched
        np.testing.assert_array_equal(target[part.channel][part.piece], expected[part.channel][part.piece])


@pytest.mark.parametrize(
    ("parts", "view"),
    [
        ((0,), True),
        ((1, 2), True),
        ((0, 1, 2), True),
        ((3,), True),
        ((5, 6), True),
        ((0, 2), False),
        ((2, 3), False),
        ((2, 4), False),
        ((6, 7), False),
        ((0, 5), False),
        (EVERYTHING, False),
    ],
)
def test_one_piece_is_a_view_and_several_are_a_copy(parts: tuple[int, ...], view: bool) -> None:
    source = vectors()
    message = TABLE.gather(source, parts)
    assert any(np.shares_memory(message, vector) for vector in source.values()) == view


def test_an_empty_message_changes_nothing() -> None:
    source = vectors()
    before = {name: vector.copy() for name, vector in source.items()}
    assert len(TABLE.gather(source, ())) == 0
    TABLE.scatter(np.empty(0, np.float32), source, ())
    for name, vector in source.items():
        np.testing.assert_array_equal(vector, before[name])


def test_there_is_a_vector_for_every_channel() -> None:
    sizes = {name: len(vector) for name, vector in TABLE.zeros().items()}
    assert sizes == {PARAMETERS: 16, STATISTICS: 4, "control": 16, "second": 16}
    assert all(not vector.any() and vector.dtype == np.float32 for vector in TABLE.zeros().values())
