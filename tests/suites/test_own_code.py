"""A suite with a method of one's own: what was recorded with other content of it is no result of the present one."""

import json
from pathlib import Path

import pytest
from own_method import OwnMethod
from small_suites import BASE, directories, plan_of, run, values, write_suite

from fedbench.cli.suite import dry_run
from fedbench.errors import ConfigError
from fedbench.records.recorded_run import read_run
from fedbench.report.compare import compare, load
from fedbench.suites.run import run_suite

SUITE = {
    "title": "My method",
    "seeds": [0],
    "base": {**BASE, "rounds": 2, "schedule": "full", "algorithm": "own_method:Step"},
    "rows": [{"name": "mine"}],
    "columns": [{"name": "loss", "measure": "train_loss"}],
}


@pytest.fixture
def method(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> OwnMethod:
    return OwnMethod(run_folder, monkeypatch)


@pytest.fixture
def suite(run_folder: Path, method: OwnMethod) -> str:
    return write_suite(run_folder, SUITE)


def test_a_method_that_was_changed_in_a_file_that_it_imports_is_run_again(suite: str, method: OwnMethod) -> None:
    first, _ = run(plan_of(suite))
    _, again = run(plan_of(suite))
    assert again[0].endswith("recorded before")
    method.set_factor(0.01)
    assert dry_run(plan_of(suite))[0]["to_run"] == 1
    second, lines = run(plan_of(suite))
    assert not lines[0].endswith("recorded before")
    assert values(first, "mine", "loss") != values(second, "mine", "loss")
    assert len(directories()) == 2
    method.set_factor(1.0)  # what the first run was recorded with
    third, lines = run(plan_of(suite))
    assert lines[0].endswith("recorded before")
    assert values(third, "mine", "loss") == values(first, "mine", "loss")


def test_a_report_keeps_runs_of_different_code_apart_and_names_what_differs(suite: str, method: OwnMethod) -> None:
    for factor in (1.0, 0.01):
        method.set_factor(factor)
        run(plan_of(suite))
    found = [Path("runs/suites/tiny") / name for name in sorted(directories())]
    compared = compare(load(found))
    assert len(compared.methods) == 2
    assert all("own_method:Step=" in one.label for one in compared.methods)
    assert len({read_run(directory).digest for directory in found}) == 2


def test_what_a_run_began_with_is_recorded_and_an_edited_record_is_noticed(suite: str) -> None:
    run(plan_of(suite))
    directory = Path("runs/suites/tiny") / next(iter(directories()))
    described, summary = (json.loads((directory / f"{name}.json").read_text()) for name in ("description", "summary"))
    assert list(described["own_code"]) == ["own_method:Step"]
    assert summary["own_code"] == described["own_code"]
    assert f"Own code: own_method:Step {described['own_code']['own_method:Step']}." in described["note"]
    (directory / "description.json").write_text(json.dumps(described | {"own_code": {}}))
    (unusable,) = load([directory])
    assert "description.json: is not as the run wrote it" in unusable.reason  # type: ignore[union-attr]


def test_code_that_is_changed_while_a_suite_runs_fails_the_runs_after_it(suite: str, run_folder: Path) -> None:
    class Editing:
        """Changes the method's file after the first run."""

        def __getattr__(self, name: str) -> object:
            return lambda *arguments: (run_folder / "own_method.py").write_text("x = 1\n") if name == "end" else None

    outcomes = run_suite(plan_of(suite, seeds="0,1"), Editing())  # type: ignore[arg-type]
    first, second = outcomes.by_digest.values()
    assert (first.status, second.status) == ("finished", "failed")
    assert "own_method.py: has changed since this process imported it" in second.reason


def test_force_runs_again_what_is_recorded_and_keeps_the_earlier_runs_aside(run_folder: Path) -> None:
    suite = write_suite(run_folder, SUITE | {"base": {**BASE, "rounds": 1, "schedule": "full"}}, seeds=[0, 1])
    run(plan_of(suite))
    run(plan_of(write_suite(run_folder, SUITE, name="other", base={**BASE, "rounds": 1, "schedule": "full"})))
    before = directories()
    assert dry_run(plan_of(suite), force=True)[0]["to_run"] == 2
    outcomes = run_suite(plan_of(suite, seeds="0"), _Silent(), force=True)  # type: ignore[arg-type]
    assert not outcomes.by_digest[next(iter(outcomes.plan.runs))].reused
    after = directories()
    assert after.keys() == before.keys()
    assert sorted(name for name in after if after[name] != before[name]) == [name for name in after if "seed0" in name]
    aside = list(Path("runs/suites/tiny/.replaced").iterdir())
    assert [path.name for path in aside] == [name for name in before if "seed0" in name]
    _, lines = run(plan_of(suite))
    assert all(line.endswith("recorded before") for line in lines)


class _Silent:
    """A listener that says nothing."""

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: None


def test_a_part_that_is_not_there_is_refused_before_anything_runs(suite: str, run_folder: Path) -> None:
    for name in ("own_method.py", "own_factor.py"):
        (run_folder / name).unlink()
    with pytest.raises(ConfigError, match="own_method"):
        plan_of(suite)
