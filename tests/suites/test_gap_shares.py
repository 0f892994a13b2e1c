"""Suites and reports with both references tell the share of the gap, of methods with otherwise equal settings alone."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from small import config

from fedbench.experiment.run import run
from fedbench.records.headline import with_task
from fedbench.report.compare import compare, load
from fedbench.report.content import make_report
from fedbench.suites.expand import expand
from fedbench.suites.file import SuiteFile
from fedbench.suites.files import write_outputs
from fedbench.suites.plan import Plan
from fedbench.suites.results import Outcome, Outcomes

Part = dict[str, object]
LOCAL: Part = {"name": "alone", "set": {"algorithm": "local"}}
METHODS: list[Part] = [{"name": name, "set": {"algorithm": name}} for name in ("fedavg", "fedprox", "fedmr")]
ALL: Part = {"name": "all data", "set": {"algorithm": "centralised"}}
SKEWED = {"name": "dirichlet", "alpha": 0.5}
TASKS: list[Part] = [{"name": "iid"}, {"name": "dirichlet", "set": {"data.partition": SKEWED}}]
BASE = {"rounds": 2, "data": {"dataset": "digits"}}


def plan_of(rows: list[Part], columns: list[Part]) -> Plan:
    measured = [{"measure": "best_accuracy", **column} for column in columns]
    suite = {"title": "Small", "base": BASE, "seeds": (0, 1, 2), "rows": rows, "columns": measured}
    return expand("small", SuiteFile.model_validate(suite))


def outcomes_of(plan: Plan, names: list[str], rounds: dict[str, int] | None = None) -> Outcomes:
    """Outcomes in which methods are better the later their names stand in a list, and more so with later seeds."""
    outcomes = Outcomes(plan)
    for place, cell in plan.cells.items():
        (name,) = set(place) & set(names)
        count = (rounds or {}).get(name, 2)
        for seed, digest in cell.runs.items():
            accuracy = [0.5 + (0.1 + 0.001 * seed) * names.index(name)] * count
            missing = pa.array([None] * count, pa.float64())
            columns = {"test_accuracy": accuracy, "validation_accuracy": missing, "round": list(range(count))}
            outcomes.add(digest, Outcome("finished", Path("nowhere")), pa.table(columns))
    return outcomes


@pytest.mark.parametrize("methods_are", ["rows", "columns"])
def test_a_column_of_shares_stands_beside_each_column_of_accuracies(methods_are: str, tmp_path: Path) -> None:
    names, methods = ["alone", "fedavg", "fedprox", "fedmr", "all data"], [LOCAL, *METHODS, ALL]
    plan = plan_of(methods, TASKS) if methods_are == "rows" else plan_of(TASKS, methods)
    outcomes = outcomes_of(plan, names)
    shares = outcomes.gap_shares()
    for task in ("iid", "dirichlet"):
        places = [(name, task) if methods_are == "rows" else (task, name) for name in names]
        assert [shares[place].share for place in places] == [None, *map(pytest.approx, (0.25, 0.5, 0.75)), None]
    table = outcomes.table()
    headings = [heading for heading in table.columns if heading.endswith("share of the gap (%)")]
    assert len(headings) == (2 if methods_are == "rows" else 5)
    assert any("Fieller" in note for note in table.notes)
    write_outputs(outcomes, tmp_path)
    recorded = json.loads((tmp_path / "table" / "suite.json").read_text())["gap_shares"]
    assert {(entry["row"], entry["column"]) for entry in recorded} == set(plan.cells)


@pytest.mark.parametrize("other", [{"local.batch_size": 64}, {"data.partition": SKEWED}, {"rounds": 3}])
def test_a_reference_of_other_settings_is_none(other: dict[str, object]) -> None:
    reference: Part = {"name": "all data", "set": {"algorithm": "centralised", **other}}
    plan = plan_of([LOCAL, *METHODS, reference], [{"name": "best"}])
    rounds = {"all data": 3} if "rounds" in other else {}
    outcomes = outcomes_of(plan, ["alone", "fedavg", "fedprox", "fedmr", "all data"], rounds)
    assert outcomes.gap_shares() == {}
    assert len(outcomes.table().columns) == 1


@pytest.mark.slow
def test_a_report_has_the_shares_and_no_word_on_how_the_rows_of_all_were_divided(tmp_path: Path) -> None:
    for algorithm in ("fedavg", "local", "centralised"):
        for seed in range(3):
            place = f"output.directory={tmp_path / algorithm}-{seed}"
            few = ("rounds=3", "data.clients=3", "data.samples_per_client=60", "runtime.executor=inline")
            run(config("schedule=full", *few, f"algorithm={algorithm}", f"seed={seed}", place))
    comparison = compare(load(sorted(tmp_path.iterdir())))
    report = make_report(comparison)
    assert report.parts[0].results.columns[-2:] == ("best: share of the gap (%)", "final: share of the gap (%)")
    cells = {title.partition(": ")[2]: row[-1].text for title, row in report.parts[0].results.rows}
    assert cells.pop("local, full") == "the floor"
    assert cells.pop("centralised, full") == "the ceiling"
    (share,) = cells.values()
    assert " to " in share
    assert not [caveat.text for caveat in comparison.caveats if "divided" in caveat.text or "partition" in caveat.text]


def test_of_a_task_of_which_less_is_better_the_same_share_is_told() -> None:
    """The errors fall as the accuracies rose: the references are the other way round, and the shares are the same."""
    names, methods = ["alone", "fedavg", "fedprox", "fedmr", "all data"], [LOCAL, *METHODS, ALL]
    plan = plan_of(methods, [{"name": "iid", "measure": "best_mae"}, {"name": "r2", "measure": "best_r2"}])
    outcomes, accuracies = Outcomes(plan), outcomes_of(plan, names)
    for digest in accuracies.by_digest:
        rounds = accuracies._history(digest)
        errors = pa.array([1 - value.as_py() for value in rounds["test_accuracy"]])
        named = pa.table({
            "test_mae": errors, "test_r2": rounds["test_accuracy"], "validation_mae": rounds["validation_accuracy"],
            "round": rounds["round"],
        })  # fmt: skip
        done = Outcome("finished", Path("nowhere"), {"task": "regression"})
        outcomes.add(digest, done, with_task(named, "regression"))
    shares = outcomes.gap_shares()
    assert [shares[name, "iid"].share for name in names] == [None, *map(pytest.approx, (0.25, 0.5, 0.75)), None]
    assert {column for _, column in shares} == {"iid"}, "a share is told of what the task is judged by"
    assert any("None where centralised is not below local" in note for note in outcomes.table().notes)
