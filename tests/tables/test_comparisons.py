"""Holm's correction, against its definition and in simulation, and the words of verdicts."""

import numpy as np
import pytest
from scipy.stats import binom

from fedbench.tables.comparisons import explained, holm, judged_together
from fedbench.tables.numbers import PERCENT
from fedbench.tables.seed_statistics import Spread
from fedbench.tables.table import Cell, Table


def rejected_step_by_step(p_values: list[float], level: float) -> set[int]:
    """Holm's procedure as published: reject the smallest p-values in turn, until one is above level / (those left)."""
    left = dict(enumerate(p_values))
    while left and (smallest := min(left, key=left.__getitem__)) is not None:
        if left[smallest] > level / len(left):
            break
        del left[smallest]
    return set(range(len(p_values))) - left.keys()


def test_what_is_rejected_at_any_level_is_what_holms_procedure_rejects() -> None:
    draws = np.random.default_rng(0)
    for size in (1, 2, 7, 20):
        p_values = list(draws.beta(0.3, 2.0, size))
        adjusted = holm(p_values)
        for level in (0.001, 0.01, 0.05, 0.2, 0.8):
            assert {place for place, p in enumerate(adjusted) if p <= level} == rejected_step_by_step(p_values, level)


def test_a_comparison_by_itself_is_not_adjusted_and_equal_ones_stay_equal() -> None:
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
    assert holm([0.02, 0.02, 0.9]) == pytest.approx([0.06, 0.06, 0.9])
    assert holm([0.7, 0.6]) == [1.0, 1.0]


@pytest.mark.parametrize("shared_baseline", [False, True])
def test_null_differences_with_three_seeds_are_told_apart_in_at_most_one_family_of_twenty(
    shared_baseline: bool,
) -> None:
    families, comparisons, seeds = 1500, 12, 3
    draws = np.random.default_rng(1)
    methods = draws.normal(0.0, 1.0, (families, comparisons, seeds))
    baseline = draws.normal(0.0, 1.0, (families, 1, seeds)) * shared_baseline
    false_families = unadjusted_families = 0
    for differences in methods - baseline:
        p_values = {place: Spread.of(values).p_value(0.0) for place, values in enumerate(differences)}
        judgements = judged_together(p_values).values()
        false_families += any(judgement.is_told_apart for judgement in judgements)
        unadjusted_families += any((judgement.p_value or 0) <= 0.05 for judgement in judgements)
    most = binom.ppf(0.999, families, 0.05)
    assert false_families <= most
    assert unadjusted_families > 3 * most  # what the correction is for


def test_comparisons_with_too_few_seeds_have_no_verdict_and_do_not_count_in_the_family() -> None:
    judgements = judged_together({"a": 0.02, "b": None, "c": 0.5})
    assert judgements["b"].words == "too few seeds"
    assert judgements["b"].is_told_apart is None
    assert judgements["a"].words == "told apart (p 0.020, adjusted 0.040)"
    assert judgements["c"].words == "not told apart (p 0.500, adjusted 0.500)"
    assert judged_together({"a": 0.0002})["a"].words == "told apart (p <0.001)"


def table_of(cells: int, values: list[float]) -> Table:
    cell = Cell(spread=Spread.of(values), published=0.95, number=PERCENT)
    return Table("t", "", ("c",), tuple((str(row), (cell,)) for row in range(cells)))


def test_a_table_is_judged_by_p_values_adjusted_for_all_its_published_figures() -> None:
    values = [0.90, 0.91, 0.92]
    (alone,) = table_of(1, values).judgements.values()
    (of_many,) = table_of(8, values).judgements.values()
    assert alone.words == "told apart (p 0.020)"
    assert of_many.words == "not told apart (p 0.020, adjusted 0.162)"
    assert "for all 8 comparisons of this table (each figure with the published one)" in " ".join(
        table_of(8, values).explanations
    )
    assert "adjusted" not in " ".join(table_of(1, values).explanations)


def test_a_table_of_two_seeds_concludes_nothing() -> None:
    table = table_of(2, [0.90, 0.91])
    assert [judgement.words for judgement in table.judgements.values()] == ["too few seeds"]
    assert "Too few seeds: fewer than 3, or all with one value, from which nothing is concluded." in table.explanations
    assert (
        explained("t test", "", 0)
        == "Too few seeds: fewer than 3, or all with one value, from which nothing is concluded."
    )
