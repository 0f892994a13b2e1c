"""Ranks over tasks: Demšar's example, SciPy's and scikit-posthocs' own results, refusals, and the diagram."""

import builtins
import math
import re
from collections.abc import Mapping
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from fedbench.tables.html import table_page
from fedbench.tables.rank_diagram import diagram, diagram_file, picture
from fedbench.tables.ranks import Ranking, Scores
from fedbench.tables.render import markdown

NAMES = (
    "FedAvg", "FedPart x FedProx mu=0.01", "Streaming DiLoCo tau=1", "FedLAMA", "FedBCGD+", "MOON", "SCAFFOLD", "FedMR",
    "FedCross", "FedMut", "selective layers with a budget of half of all bytes", "FedAdam server lr=0.1",
)  # fmt: skip

DEMSAR_RANKS = """
    4 3 2 1, 1 2 3 4, 4 1 2 3, 4 1 3 2, 4 2 3 1, 1 2.5 4 2.5, 3 2 4 1, 2.5 2.5 4 1, 4 3 2 1, 2.5 2.5 2.5 2.5,
    4 2.5 1 2.5, 3 2 4 1, 4 1 2 3, 3 1 4 2"""
"""The ranks in Table 6 of Demšar, JMLR 7 (2006): C4.5 with default settings, m, cf, and both, on 14 data sets."""


def demsar(seeds: int = 3) -> Ranking:
    rows = [tuple(-float(rank) for rank in row.split()) for row in DEMSAR_RANKS.split(",")]
    return Ranking(Scores("AUC", ("C4.5", "m", "cf", "m+cf"), {f"set {i}": row for i, row in enumerate(rows)}, seeds))


def drawn(methods: int, tasks: int, spacing: float, seeds: int = 3) -> Ranking:
    scores = np.random.default_rng(0).normal(0, 1, (tasks, methods)) + np.linspace(0, spacing, methods)
    by_task: Mapping[str, tuple[float, ...]] = {f"task {place}": tuple(row) for place, row in enumerate(scores)}
    return Ranking(Scores("best accuracy", NAMES[:methods], by_task, seeds))


def test_demsars_example_has_his_average_ranks_and_critical_difference() -> None:
    ranking = demsar()
    assert ranking.average == {
        "m+cf": pytest.approx(1.964, abs=5e-4),
        "m": pytest.approx(2.0),
        "cf": pytest.approx(2.893, abs=5e-4),
        "C4.5": pytest.approx(3.143, abs=5e-4),
    }
    assert list(ranking.average) == ["m+cf", "m", "cf", "C4.5"]
    assert ranking.critical_difference == pytest.approx(1.25, abs=5e-3)
    without_ties = 12 * 14 / (4 * 5) * (sum(rank**2 for rank in ranking.average.values()) - 4 * 5**2 / 4)
    assert without_ties == pytest.approx(9.28, abs=5e-3)  # as printed; SciPy corrects for ties, which raises it
    assert ranking.friedman[0] == pytest.approx(friedmanchisquare(*zip(*ranking.by_task.values(), strict=True))[0])
    assert ranking.friedman[0] > without_ties


def test_friedman_can_find_that_methods_differ_where_no_two_are_told_apart() -> None:
    ranking = demsar()
    assert ranking.methods_differ is True
    assert not any(ranking.are_told_apart(first, second) for first in ranking.average for second in ranking.average)
    assert {row[-1].text for _, row in ranking.table().rows} == {"none"}


@pytest.mark.parametrize(("methods", "tasks"), [(3, 3), (5, 8), (12, 10)])
def test_nemenyis_p_values_are_those_of_scikit_posthocs(methods: int, tasks: int) -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    ranking = drawn(methods, tasks, 2.0)
    expected = posthocs.posthoc_nemenyi_friedman(np.array(list(ranking.scores.by_task.values()))).to_numpy()
    for row, first in enumerate(ranking.scores.methods):
        for column, second in enumerate(ranking.scores.methods):
            if row != column:
                assert ranking.nemenyi(first, second) == pytest.approx(expected[row, column], abs=1e-9)
                gap = abs(ranking.average[first] - ranking.average[second])
                assert (ranking.nemenyi(first, second) <= 0.05) == (gap >= ranking.critical_difference)


def test_methods_far_apart_are_told_apart_and_neighbours_are_not() -> None:
    ranking = drawn(6, 10, 6.0)
    worst, *_, best = ranking.scores.methods
    assert ranking.are_told_apart(worst, best) is True
    assert ranking.are_told_apart(*list(ranking.average)[:2]) is False
    text = markdown(ranking.table())
    assert "they do, more than chance alone would bring" in text
    assert "allows for all 15 pairs" in text


def test_equal_scores_share_their_ranks_and_differ_in_nothing() -> None:
    scores = {f"task {place}": (0.5, 0.5, 0.5) for place in range(4)}
    ranking = Ranking(Scores("best accuracy", NAMES[:3], scores, 3))
    assert set(ranking.average.values()) == {2.0}
    assert ranking.friedman == (0.0, 1.0)
    assert ranking.methods_differ is False


def test_with_fewer_than_three_seeds_ranks_are_shown_without_a_verdict() -> None:
    ranking = drawn(4, 6, 9.0, seeds=2)
    first, *_, last = ranking.average
    assert ranking.methods_differ is ranking.are_told_apart(first, last) is None
    assert {row[-1].text for _, row in ranking.table().rows} == {"too few seeds"}
    assert (ranking.to_mapping()["methods_differ"], ranking.to_mapping()["told_apart"]) == (None, None)
    assert "With so few seeds nothing is concluded" in picture(ranking).note


@pytest.mark.parametrize(
    ("methods", "tasks", "words"),
    [
        (3, 2, "2 tasks that every method was run on;"),
        (2, 3, "2 methods;"),
        (2, 1, "1 task .* and 2 methods;"),
        (3, 3, ""),
    ],
)
def test_two_tasks_or_two_methods_are_not_ranked(methods: int, tasks: int, words: str) -> None:
    scores = {f"task {place}": tuple(map(float, range(methods))) for place in range(tasks)}
    refusal = Scores("best accuracy", NAMES[:methods], scores, 3).refusal
    assert (refusal != "") == (words != "")
    if words:
        assert re.search(words, refusal)
        assert "ranks need 3 tasks and 3 methods at least" in refusal


@pytest.mark.slow
@pytest.mark.parametrize("methods", range(3, 13))
def test_no_text_of_the_diagram_covers_another_or_is_cut_off(methods: int) -> None:
    pytest.importorskip("scikit_posthocs")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for tasks, spacing in ((3, 0.0), (8, 4.0)):
        figure = diagram(drawn(methods, tasks, spacing))
        renderer = FigureCanvasAgg(figure).get_renderer()
        (axes,) = figure.axes
        texts = [text for text in (*axes.texts, *axes.get_xticklabels()) if text.get_text()]
        boxes = [text.get_window_extent(renderer) for text in texts]
        assert len(axes.texts) == methods + 1
        assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[place + 1 :])
        whole = figure.get_tightbbox(renderer)
        assert all(box.x0 / figure.dpi >= whole.x0 - 0.01 and box.x1 / figure.dpi <= whole.x1 + 0.01 for box in boxes)


def test_bars_are_over_those_that_are_not_told_apart() -> None:
    pytest.importorskip("scikit_posthocs")
    for ranking in (drawn(6, 10, 4.0), drawn(6, 3, 0.0), drawn(6, 10, 4.0, seeds=2)):
        (axes,) = diagram(ranking).axes
        bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 3]
        spans = [(min(bar), max(bar)) for bar in bars]
        for first, a in ranking.average.items():
            for second, b in ranking.average.items():
                under_one = any(low - 1e-9 <= min(a, b) and max(a, b) <= high + 1e-9 for low, high in spans)
                assert under_one == (first == second or not ranking.are_told_apart(first, second)) or first == second


def test_the_diagram_is_the_same_file_each_time_and_stands_in_the_page() -> None:
    pytest.importorskip("scikit_posthocs")
    ranking = drawn(4, 5, 2.0)
    svg = diagram_file(ranking, "svg")
    assert svg == diagram_file(ranking, "svg")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert diagram_file(ranking, "pdf").startswith(b"%PDF")
    shown = picture(ranking)
    assert (shown.name, set(shown.files)) == ("ranks-best-accuracy", {"svg", "pdf"})
    assert shown.data_address in table_page([ranking.table()], [shown])


def test_without_scikit_posthocs_the_command_that_brings_it_stands_in_place_of_the_diagram(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> ModuleType:
        if name == "scikit_posthocs":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    ranking = drawn(4, 5, 2.0)
    shown = picture(ranking)
    assert shown.files == {}
    assert "pip install 'fedbench-ray[statistics]'" in shown.note
    assert "fedbench-ray[statistics]" in table_page([ranking.table()], [shown])
    assert math.isfinite(ranking.critical_difference)  # the tests need nothing beside SciPy


def test_the_smallest_score_ranks_first_where_less_is_better() -> None:
    largest = drawn(4, 5, 2.0)
    mirrored = {task: tuple(-score for score in scores) for task, scores in largest.scores.by_task.items()}
    smallest = Ranking(Scores("best perplexity", NAMES[:4], mirrored, 3, higher_is_better=False))
    assert smallest.average == largest.average
    assert smallest.friedman == largest.friedman
    assert "Rank 1 is the smallest best perplexity on a task" in markdown(smallest.table())
    assert "Rank 1 is the largest best accuracy on a task" in markdown(largest.table())
