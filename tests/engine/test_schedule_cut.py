"""A run that ends before its schedule does says which layer groups it leaves out."""

from small import config

from fedbench.experiment.run import prepared

BASE = ("runtime.executor=inline", "model.width=4", "schedule.warmup_rounds=0", "schedule.cycles=1")


def remarks(*overrides: str) -> tuple[str, ...]:
    with prepared(config(*BASE, "schedule.rounds_per_group=1", *overrides)) as (problem, _):
        return problem.remarks


def test_layer_groups_that_the_rounds_do_not_reach_are_named() -> None:
    with prepared(config(*BASE, "schedule.rounds_per_group=1", "rounds=auto")) as (problem, _):
        names, whole = problem.layout.group_names, problem.remarks
    assert whole == ()
    (line,) = remarks("rounds=2")
    assert line.startswith(f"rounds=2: is less than the {len(names)} rounds of schedule.name=sequential, so that ")
    assert f"so that {', '.join(names[2:])} " in line
    (again,) = remarks(f"rounds={len(names)}", "schedule.cycles=2")
    assert "never trained alone" not in again  # the first cycle has visited every group
