"""Runs with a validation split: rounds are scored on it, the best is chosen by it, and nothing else changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import asynchronous, config

from fedbench.config.experiment import ExperimentConfig
from fedbench.data.augment import prepare
from fedbench.data.base import Split
from fedbench.experiment.federation import load_federation
from fedbench.experiment.result import Result
from fedbench.experiment.run import run
from fedbench.models.groups import build_module
from fedbench.records.metrics import METRICS
from fedbench.records.reader import load_description

pytestmark = pytest.mark.usefixtures("run_folder", "no_figures")

HELD = "data.validation_fraction=0.2"


def in_rounds(*overrides: str) -> ExperimentConfig:
    return config("runtime.executor=inline", "model.width=4", *overrides)


def in_arrivals(*overrides: str) -> ExperimentConfig:
    return asynchronous("runtime.executor=inline", *overrides)


KINDS = {"rounds": in_rounds, "arrivals": in_arrivals}


def scored_by_hand(result: Result, settings: ExperimentConfig, split: Split) -> tuple[float, float]:
    """(mean loss, accuracy) of the saved model on a split, in one pass."""
    federation = load_federation(settings)
    module = build_module(settings.model, federation.task, 0)
    module.load_state_dict(result.state_dict())
    module.eval()
    with torch.no_grad():
        outputs = module(prepare(torch.from_numpy(split.inputs), None, federation.data.mean, federation.data.std, None))
    labels = torch.from_numpy(split.labels)
    loss = torch.nn.functional.cross_entropy(outputs, labels)
    return float(loss), float((outputs.argmax(1) == labels).double().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_every_round_is_scored_on_both_splits(kind: str) -> None:
    settings = KINDS[kind](HELD, "evaluation.batch_size=50")
    result, data = run(settings), load_federation(settings).data
    assert data.validation is not None
    for name, split in (("test", data.test), ("validation", data.validation)):
        course = result.history.column(f"{name}_accuracy")
        assert course.null_count == 0
        loss, accuracy = scored_by_hand(result, settings, split)
        assert course[-1].as_py() == pytest.approx(accuracy)
        assert result.history.column(f"{name}_loss")[-1].as_py() == pytest.approx(loss, rel=1e-4)
    assert load_description(result.directory).validation_samples == len(data.validation)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_round_is_chosen_on_validation_and_its_test_accuracy_reported(kind: str) -> None:
    result = run(KINDS[kind](HELD))
    test, validation = (result.history.column(f"{name}_accuracy").to_pylist() for name in ("test", "validation"))
    best, summary = int(np.argmax(validation)), result.summary
    assert summary["chosen_on"] == "validation"
    assert summary["best_round"] == best + 1
    assert (summary["best_accuracy"], summary["best_validation_accuracy"]) == (test[best], validation[best])
    assert (summary["final_accuracy"], summary["final_validation_accuracy"]) == (test[-1], validation[-1])
    for name in ("best_accuracy", "best_validation_accuracy", "final_validation_accuracy", "best_round"):
        assert METRICS[name].by_round(result.history)[-1] == summary[name]


def test_without_a_validation_split_the_best_is_chosen_on_test_and_the_record_says_so() -> None:
    result = run(in_rounds())
    test, summary = result.history.column("test_accuracy").to_pylist(), result.summary
    assert result.history.column("validation_accuracy").null_count == len(test)
    assert (summary["chosen_on"], summary["best_accuracy"]) == ("test", max(test))
    assert (summary["best_validation_accuracy"], summary["final_validation_accuracy"]) == (None, None)
    assert summary["best_round"] == test.index(max(test)) + 1


def test_no_client_trains_on_validation_rows() -> None:
    """The run is that on the remaining rows alone: scoring more changes no model."""
    every_row = (HELD, "rounds=2", "data.samples_per_client=null")
    settings = in_rounds(*every_row)
    federation = load_federation(settings)
    assert sum(federation.sizes) == len(federation.data.train)
    held = {row.tobytes() for row in federation.data.validation.inputs}  # type: ignore[union-attr]
    assert held.isdisjoint(row.tobytes() for row in federation.data.train.inputs)
    often, seldom = run(settings), run(in_rounds(*every_row, "evaluation.every=2"))
    assert often.summary["model_sha256"] == seldom.summary["model_sha256"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_between_two_evaluations_is_scored_on_both_splits_at_its_end(kind: str, tmp_path: Path) -> None:
    settings = KINDS[kind](HELD, "evaluation.every=3", "rounds=3")
    asked: list[int] = []
    result = run(settings, should_stop=lambda: bool(asked.append(1)) or len(asked) > 2)
    summary: dict[str, Any] = result.summary
    assert summary["status"] == "interrupted"
    data = load_federation(settings).data
    assert data.validation is not None
    assert summary["final_accuracy"] == pytest.approx(scored_by_hand(result, settings, data.test)[1])
    assert summary["final_validation_accuracy"] == pytest.approx(scored_by_hand(result, settings, data.validation)[1])
    assert (summary["chosen_on"], summary["best_round"]) == ("validation", summary["rounds"])
