"""From what a client arrived at to what the server reads: clipping, noise, compression and what is kept for later."""

import numpy as np
import pytest

from fedbench.protocol.client_state import ClientState
from fedbench.protocol.compression import Compression, Half, Int8, TopK, Uncompressed
from fedbench.protocol.layout import ParameterLayout
from fedbench.protocol.message import PARAMETERS, STATISTICS, PartTable
from fedbench.protocol.update_pipeline import UpdatePipeline

LAYOUT = ParameterLayout.build(
    [("conv", {"conv.weight": (40, 5)}), ("middle", {"middle.weight": (70,)}), ("head", {"head.bias": (30,)})],
    statistics=[("norm.running_mean", 0, (6,))],
)
TABLE = PartTable(LAYOUT, statistics=True, channels=("control",))
EVERYTHING = tuple(range(len(TABLE.parts)))


def pipeline(
    compression: Compression | None = None, clip_norm: float | None = None, noise_std: float = 0.0
) -> UpdatePipeline:
    return UpdatePipeline(clip_norm, noise_std, compression or Uncompressed())


def vectors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=len(vector)).astype(np.float32) for name, vector in TABLE.zeros().items()}


def sent(
    how: UpdatePipeline, parts: tuple[int, ...], seed: int = 0, state: ClientState | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The update as it was, and as the server reads it: by channel, zero where nothing is sent."""
    started, arrived = vectors(2 * seed), vectors(2 * seed + 1)
    values, reference = TABLE.gather(arrived, parts), TABLE.gather(started, parts)
    read = how.apply(TABLE, parts, values, reference, state or ClientState(), np.random.default_rng(seed))
    found = []
    for message in (values, read):
        update = TABLE.zeros()
        TABLE.scatter(message - reference, update, parts)
        found.append(update)
    return found[0], found[1]


def test_without_anything_to_do_the_values_are_those_of_the_client() -> None:
    values, reference = TABLE.gather(vectors(1), EVERYTHING), TABLE.gather(vectors(0), EVERYTHING)
    state = ClientState()
    read = pipeline().apply(TABLE, EVERYTHING, values, reference, state, np.random.default_rng(0))
    assert read is values
    assert not state.arrays


@pytest.mark.parametrize("groups", [(0, 1, 2), (1,), (0, 2)])
def test_clipping_bounds_the_parameters_update_over_all_its_groups(groups: tuple[int, ...]) -> None:
    update, read = sent(pipeline(clip_norm=1.5), TABLE.uploaded(groups))
    assert float(np.linalg.norm(read[PARAMETERS])) == pytest.approx(1.5, rel=1e-5)
    np.testing.assert_allclose(
        read[PARAMETERS], update[PARAMETERS] * (1.5 / np.linalg.norm(update[PARAMETERS])), atol=1e-6
    )
    for channel in (STATISTICS, "control"):
        np.testing.assert_allclose(read[channel], update[channel], atol=1e-6)


def test_noise_has_its_deviation_and_falls_on_the_parameters_alone() -> None:
    update, read = sent(pipeline(noise_std=2.0), EVERYTHING)
    assert float(np.std(read[PARAMETERS] - update[PARAMETERS])) == pytest.approx(2.0, rel=0.15)
    np.testing.assert_array_equal(read[STATISTICS], update[STATISTICS])
    np.testing.assert_allclose(read["control"], update["control"], atol=1e-6)


@pytest.mark.parametrize("compression", [Half(), Int8(), TopK(fraction=0.1)])
@pytest.mark.parametrize("groups", [(0, 1, 2), (1,), (0, 2)])
def test_each_group_of_each_channel_is_compressed_by_itself_and_statistics_are_not(
    compression: Compression, groups: tuple[int, ...]
) -> None:
    update, read = sent(pipeline(compression), TABLE.uploaded(groups))
    np.testing.assert_array_equal(read[STATISTICS], update[STATISTICS])
    rng = np.random.default_rng(0)
    for channel in (PARAMETERS, "control"):
        alone = compression.roundtrip(
            LAYOUT.gather(update[channel], groups).copy(), [LAYOUT.group_size(group) for group in groups], rng
        )
        np.testing.assert_allclose(LAYOUT.gather(read[channel], groups), alone, atol=1e-6)
    assert not np.array_equal(read[PARAMETERS], update[PARAMETERS])


def test_what_was_not_sent_is_sent_later() -> None:
    """Over any rounds, of any groups: what was sent and what is still kept add up to the updates."""
    state, updates, read = ClientState(), TABLE.zeros(), TABLE.zeros()
    for index, groups in enumerate([(0, 1, 2), (1,), (0, 2), (2,), (0, 1, 2), (1,)]):
        kept = {name: vector.copy() for name, vector in state.arrays.items()}
        one, other = sent(pipeline(TopK(fraction=0.1)), TABLE.uploaded(groups), index, state)
        for channel in (PARAMETERS, "control"):
            updates[channel] += one[channel]
            read[channel] += other[channel]
            left = state.arrays[f"residual {channel}"]
            np.testing.assert_allclose(read[channel] + left, updates[channel], atol=1e-5)
            assert np.abs(left).max() > 0.1
            for group in set(LAYOUT.all_groups) - set(groups):
                piece = LAYOUT.slices[group]
                np.testing.assert_array_equal(left[piece], kept[f"residual {channel}"][piece])
    assert set(state.arrays) == {"residual parameters", "residual control"}


def test_bytes_are_those_of_the_parts_as_compressed() -> None:
    parts = TABLE.uploaded((0, 2))
    assert pipeline().nbytes(TABLE, parts) == TABLE.nbytes(parts)
    assert pipeline(Half()).nbytes(TABLE, parts) == 2 * 2 * 230 + 4 * 6
    assert pipeline(Int8()).nbytes(TABLE, parts) == 2 * (230 + 2 * 4) + 4 * 6
    assert pipeline(TopK(fraction=0.1)).nbytes(TABLE, parts) == 2 * 8 * (20 + 3) + 4 * 6
