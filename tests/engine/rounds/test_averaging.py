"""The server's arithmetic in pieces: the same numbers as on whole vectors."""

import numpy as np
import pytest

from fedbench.algorithms.base import RuleContext, ServerRule, Values
from fedbench.engine.rounds.averaging import average_groups, averages, changes, mean_update
from fedbench.protocol import exact_sum
from fedbench.protocol.exact_sum import SCALE
from fedbench.protocol.layout import ParameterLayout

SIZES = (3, 40_000, 8192)
LAYOUT = ParameterLayout.build([(str(index), {f"{index}.weight": (size,)}) for index, size in enumerate(SIZES)])


@pytest.mark.parametrize("way", ["NumPy", "numba"])
@pytest.mark.parametrize("groups", [(0, 1, 2), (0, 2), (1,)])
def test_an_average_in_pieces_has_the_bits_of_the_rule_on_whole_vectors(
    groups: tuple[int, ...], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "numba":
        pytest.importorskip("numba", reason="needs numba, which the extra fast-sums installs")
        monkeypatch.setattr(exact_sum, "_LONG", 0)
    rng = np.random.default_rng(0)
    parameters = rng.normal(size=LAYOUT.size).astype(np.float32)
    total = rng.integers(-(2**38), 2**38, LAYOUT.count(groups))
    pieces, start = {}, 0
    for group in groups:
        pieces[group] = (slice(start, start + LAYOUT.group_size(group)), 1.0 + group / 3)
        start += LAYOUT.group_size(group)
    result, norms = average_groups(parameters, total, pieces, LAYOUT, np.empty(LAYOUT.count(groups), np.float32))

    context = RuleContext(LAYOUT, groups, 0, 1, 1)
    previous = LAYOUT.gather(parameters, groups).astype(np.float64)
    update = np.concatenate([total[place] * (factor / SCALE) for place, factor in pieces.values()])
    np.testing.assert_array_equal(mean_update(total, tuple(pieces.values())), update)
    expected = ServerRule().combine(previous, update, context).astype(np.float32)
    np.testing.assert_array_equal(result, expected)
    assert norms == changes(expected, parameters, groups, LAYOUT)
    for group, (place, _) in pieces.items():
        change = expected[place].astype(np.float64) - previous[place]
        assert norms[group] == pytest.approx(float(np.linalg.norm(change)), rel=1e-12)


def test_values_beyond_float32_show_in_the_norm() -> None:
    parameters = np.full(LAYOUT.size, np.finfo(np.float32).max)
    total = np.full(3, 2**60)
    _, norms = average_groups(parameters, total, {0: (slice(0, 3), 1e30)}, LAYOUT, np.empty(3, np.float32))
    assert norms == {0: np.inf}


def test_a_rule_of_its_own_is_never_taken_for_the_average() -> None:
    class Halved(ServerRule):
        def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
            return previous + update / 2

    replaced = ServerRule()
    replaced.combine = Halved().combine  # type: ignore[method-assign]
    assert averages(ServerRule())
    assert not averages(Halved())
    assert not averages(replaced)
