"""The flat layout: slices, views, order of storage."""

import numpy as np
import pytest

from fedbench.protocol.layout import ParameterLayout, model_digest

LAYOUT = ParameterLayout.build(
    [
        ("conv", {"conv.weight": (4, 3, 2, 2), "conv.bias": (4,)}),
        ("middle", {"middle.weight": (5, 4)}),
        ("head", {"head.weight": (2, 5), "head.bias": (2,)}),
    ],
    statistics=[("norm.running_mean", 0, (4,)), ("norm.running_var", 0, (4,))],
)


def test_groups_are_contiguous_and_cover_the_vector() -> None:
    assert [LAYOUT.group_size(group) for group in LAYOUT.all_groups] == [4 * 3 * 2 * 2 + 4, 20, 12]
    assert LAYOUT.slices[0].start == 0
    assert all(left.stop == right.start for left, right in zip(LAYOUT.slices, LAYOUT.slices[1:], strict=False))
    assert LAYOUT.slices[-1].stop == LAYOUT.size == 84
    assert LAYOUT.statistics_size == 8


def test_four_dimensional_weights_lie_in_channels_last_order() -> None:
    vector = np.arange(LAYOUT.size, dtype=np.float32)
    weight = LAYOUT.unflatten(vector)["conv.weight"]
    assert weight.shape == (4, 3, 2, 2)
    for out, into, row, column in np.ndindex(4, 3, 2, 2):
        assert weight[out, into, row, column] == ((out * 2 + row) * 2 + column) * 3 + into


def test_unflatten_gives_views_and_flatten_inverts_it() -> None:
    vector = np.random.default_rng(0).normal(size=LAYOUT.size).astype(np.float32)
    tensors = LAYOUT.unflatten(vector)
    np.testing.assert_array_equal(LAYOUT.flatten(tensors), vector)
    tensors["middle.weight"][0, 0] = 7
    assert vector[LAYOUT.slices[1].start] == 7


@pytest.mark.parametrize("groups", [(0,), (1,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_scatter_puts_back_what_gather_took_and_nothing_else(groups: tuple[int, ...]) -> None:
    source = np.arange(LAYOUT.size, dtype=np.float32)
    target = np.full(LAYOUT.size, -1, np.float32)
    LAYOUT.scatter(LAYOUT.gather(source, groups), target, groups)
    inside = np.zeros(LAYOUT.size, bool)
    for group in groups:
        inside[LAYOUT.slices[group]] = True
    np.testing.assert_array_equal(target[inside], source[inside])
    assert (target[~inside] == -1).all()


def test_contiguous_groups_are_gathered_without_a_copy() -> None:
    vector = np.zeros(LAYOUT.size, np.float32)
    assert np.shares_memory(LAYOUT.gather(vector, (0, 1)), vector)
    assert len(LAYOUT.ranges((0, 1))) == 1
    assert len(LAYOUT.ranges((0, 2))) == 2


def test_the_digest_sees_every_value() -> None:
    vector, statistics = np.zeros(LAYOUT.size, np.float32), np.zeros(8, np.float32)
    plain = model_digest(vector, statistics)
    vector[-1] = np.float32(1e-30)
    assert model_digest(vector, statistics) != plain
    vector[-1], statistics[0] = 0, 1
    assert model_digest(vector, statistics) != plain
