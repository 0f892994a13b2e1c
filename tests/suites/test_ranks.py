"""Which cells of a suite are methods on which tasks, and what the suite's files say of ranks; nothing is run."""

import json
from functools import cache
from pathlib import Path

import pytest
from suites_as_run import METHODS, TASKS, outcomes_of, plan_of

from fedbench.suites.expand import expand
from fedbench.suites.file import read_suite, suite_path
from fedbench.suites.files import write_outputs
from fedbench.suites.plan import Plan
from fedbench.suites.tasks import grids


@cache
def shipped(name: str) -> Plan:
    return expand(name, read_suite(suite_path(name)), seeds=[0])


@pytest.mark.parametrize(
    ("name", "tasks", "methods"),
    [
        ("fedpart-table1", ["cifar10", "cifar100", "tiny-imagenet"], 6),
        ("fedpart-table6", ["cifar10", "cifar100", "tiny-imagenet"], 3),
        ("fedpart-table7", ["cifar100", "tiny-imagenet"], 3),
        ("fedmr-cifar10", ["alpha=0.1", "alpha=0.5", "alpha=1.0", "IID"], 5),
        ("ormo-heterogeneity", ["K=16 equal", "K=16 slow", "K=64 equal", "K=64 slow"], 8),
    ],
)
def test_tasks_are_told_from_methods_in_the_papers_tables(name: str, tasks: list[str], methods: int) -> None:
    (grid,) = grids(shipped(name))
    assert list(grid.cells) == tasks
    assert len(grid.methods) == methods


@pytest.mark.parametrize("name", ["quickstart", "fedpart-figure1", "fedpart-figure6"])
def test_one_task_or_rows_on_data_of_their_own_are_no_grid(name: str) -> None:
    assert grids(shipped(name)) == []


def test_of_several_readings_of_a_run_the_last_counts() -> None:
    (grid,) = grids(shipped("fedpart-table1"))
    assert {task: cells["MOON FNU"].row for task, cells in grid.cells.items()} == {
        "cifar10": "cifar10 C=4",
        "cifar100": "cifar100 C=5",
        "tiny-imagenet": "tiny-imagenet C=5",
    }


def test_tasks_may_be_rows_and_methods_columns() -> None:
    along, across = grids(plan_of(METHODS, TASKS)), grids(plan_of(TASKS, METHODS))
    assert [(list(grid.cells), grid.methods) for grid in along] == [(list(grid.cells), grid.methods) for grid in across]


def test_references_are_not_ranked_among_their_rivals() -> None:
    rows = [*METHODS, {"name": "all data", "set": {"algorithm": "centralised"}}]
    (grid,) = grids(plan_of(rows, TASKS))
    assert grid.methods == ("FedAvg", "FedProx", "FedMR")


def test_methods_are_ranked_in_every_file_of_the_suite(tmp_path: Path) -> None:
    outcomes = outcomes_of(plan_of(METHODS, TASKS))
    (ranking,) = outcomes.ranks().rankings
    assert ranking.average == {"FedMR": 1.0, "FedProx": 2.0, "FedAvg": 3.0}
    write_outputs(outcomes, tmp_path)
    table = tmp_path / "table"
    for name in ("table.md", "table.html", "table.tex"):
        assert "Ranks by best accuracy over 3 tasks" in (table / name).read_text()
    assert "ranks-best-accuracy" in (table / "table.csv").read_text()
    (recorded,) = json.loads((table / "suite.json").read_text())["ranks"]
    assert recorded["average_ranks"] == ranking.average
    assert recorded["told_apart"] == [["FedMR", "FedAvg"]]  # 2 ranks apart, and the critical difference is 1.91


def test_the_diagram_is_drawn_when_all_is_run_and_goes_when_it_is_not_so_any_more(tmp_path: Path) -> None:
    pytest.importorskip("scikit_posthocs")
    plan = plan_of(METHODS, TASKS)
    write_outputs(outcomes_of(plan), tmp_path)
    drawn = {path.name for path in (tmp_path / "table").glob("ranks-*")}
    assert drawn == {"ranks-best-accuracy.svg", "ranks-best-accuracy.pdf"}
    assert "(ranks-best-accuracy.svg)" in (tmp_path / "table" / "table.md").read_text()
    write_outputs(outcomes_of(plan, skipped=(("FedMR", "alpha=0.5"),)), tmp_path)
    assert not list((tmp_path / "table").glob("ranks-*"))


def test_tasks_without_every_figure_do_not_count_and_too_few_are_refused_in_a_word() -> None:
    plan = plan_of(METHODS, TASKS)
    ranks = outcomes_of(plan, skipped=(("FedMR", "alpha=0.5"),)).ranks()
    assert ranks.rankings == ()
    (refusal,) = ranks.refusals
    assert refusal == (
        "Not ranked by best accuracy over tasks: 2 tasks that every method was run on; "
        "ranks need 3 tasks and 3 methods at least."
    )
    assert refusal in outcomes_of(plan, skipped=(("FedMR", "alpha=0.5"),)).table().notes
    (of_two,) = outcomes_of(plan_of(METHODS[:2], TASKS)).ranks().refusals
    assert "2 methods" in of_two


def test_two_seeds_are_ranked_without_a_verdict() -> None:
    (ranking,) = outcomes_of(plan_of(METHODS, TASKS, seeds=(0, 1))).ranks().rankings
    assert ranking.methods_differ is None
