"""Runs that diverge, and rounds that come to nothing: they fail, and the cause that is named is the right one."""

import json
from pathlib import Path
from typing import Any

import pytest
from small import asynchronous, config

from fedbench.config.experiment import ExperimentConfig
from fedbench.engine.divergence import check_accepted, check_model
from fedbench.engine.messages import ClientReport
from fedbench.errors import RunError
from fedbench.experiment.run import run
from fedbench.planning.deadlines import Limit

pytestmark = pytest.mark.usefixtures("flops_counted_once", "no_figures")

INLINE = ("runtime.executor=inline", "rounds=3")
SGD = ("local.optimizer=sgd", "schedule=full", "model=small:TwoLayers")


def failure(chosen: ExperimentConfig, folder: Path) -> tuple[str, dict[str, Any]]:
    """The message of a run that fails, and its summary."""
    with pytest.raises(RunError) as caught:
        run(chosen)
    summary: dict[str, Any] = json.loads(next(folder.glob("runs/*/summary.json")).read_text())
    assert summary["status"] == "failed"
    assert "\n" not in str(caught.value)
    assert not list(folder.glob("runs/*/model.safetensors"))
    return str(caught.value), summary


@pytest.mark.parametrize("method", ["asgd", "ormo", "fedasync", "fedbuff", "ssgdm"])
@pytest.mark.parametrize("lr", ["1e3", "1e12", "1e30"])
def test_an_asynchronous_run_at_an_absurd_learning_rate_fails_or_is_finite(
    method: str, lr: str, run_folder: Path
) -> None:
    chosen = asynchronous(*INLINE, f"algorithm={method}", "model=small:TwoLayers", f"local.optimizer.lr={lr}")
    if lr == "1e30":
        message, _ = failure(chosen, run_folder)
        assert message.startswith("round ")  # and not only at the end of the run
        assert "lower local.optimizer.lr" in message
        return
    try:
        summary = run(chosen).summary
    except RunError:
        return
    assert summary["status"] == "finished"
    losses = [row["test_loss"] for row in run_rows(run_folder)]
    assert all(loss < float("inf") for loss in losses)


def run_rows(folder: Path) -> list[dict[str, Any]]:
    """The recorded rounds of the run in a folder."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(next(folder.glob("runs/*/rounds.parquet"))).to_pylist()
    return rows


@pytest.mark.parametrize("factor", [1e25, 1e50])
def test_a_server_rule_that_leaps_is_named(factor: float, run_folder: Path) -> None:
    chosen = config(*INLINE, *SGD, "algorithm=small:Leaps", f"algorithm.factor={factor}")
    message, _ = failure(chosen, run_folder)
    if factor > 1e38:
        assert "Leap of algorithm small:Leaps returned values that are beyond the range of float32" in message
    else:
        assert "the server rule of small:Leaps" in message


def test_the_clients_learning_rate_is_named_where_the_server_averages(run_folder: Path) -> None:
    message, _ = failure(config(*INLINE, *SGD, "local.optimizer.lr=1e30"), run_folder)
    assert message.endswith(
        "updates can be used: 6 were not finite, too large or of the wrong shape; lower local.optimizer.lr"
    )


def test_a_deadline_that_everyone_misses_is_named(run_folder: Path) -> None:
    message, _ = failure(config(*INLINE, *SGD, "participation.round_deadline=1e-9"), run_folder)
    assert message == (
        "round 1: none of the 6 participants ended its training within participation.round_deadline=1e-09 seconds; "
        "raise it"
    )


def test_every_cause_of_an_empty_round_is_counted() -> None:
    nan = float("nan")
    reports = [
        ClientReport(0, "rejected", 5, 1, nan, 0.0),
        ClientReport(1, "dropped", 5, 1, nan, 0.0),
        ClientReport(2, "failed", 5, 1, nan, 0.0, error="ValueError: broken"),
    ]
    with pytest.raises(RunError) as caught:
        check_accepted(0, reports, "lower local.optimizer.lr", Limit(1.0))
    for part in ("1 were not finite", "1 were dropped", "1 failed, first client 2 with ValueError: broken"):
        assert part in str(caught.value)
    check_accepted(0, [*reports, ClientReport(3, "ok", 5, 1, 0.1, 0.0)], "")


def test_a_final_model_that_is_not_finite_is_refused() -> None:
    import numpy as np

    fine, bad = np.zeros(3, np.float32), np.array([0, np.inf, np.nan], np.float32)
    check_model(fine, fine, "")
    with pytest.raises(RunError, match="2 of the 3 parameters"):
        check_model(bad, fine, "")
    with pytest.raises(RunError, match="2 of the 3 running statistics"):
        check_model(fine, bad, "")
