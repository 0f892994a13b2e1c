"""Clients that train at the same time in slots leave the model of clients that train one after the other.

A "graph" is here the recorded step itself, called again: what it reads and writes is what a CUDA graph would.
"""

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from small import asynchronous, config

from fedbench import run
from fedbench.engine import slot_host
from fedbench.errors import ClientFailure, ConfigError, RunError
from fedbench.experiment.result import Result
from fedbench.records.measured import STEPS
from fedbench.records.reader import load_measured
from fedbench.training import captured
from fedbench.training.captured import CalledStep

pytestmark = pytest.mark.slow

INLINE = ("runtime.executor=inline", "rounds=2")

# fmt: off
VARIANTS: dict[str, tuple[str, ...]] = {
    "fedavg": (),
    "momentum": ("local.optimizer=sgd", "local.optimizer.momentum=0.9", "local.lr_schedule=cosine"),
    "adam": ("local.optimizer=adam", "local.epochs=2"),
    "ragged": ("data.partition=quantity", "data.partition.alpha=1.0", "local.epochs=2"),
    "fedprox": ("algorithm=fedprox", "algorithm.mu=0.1"),
    "scaffold": ("algorithm=scaffold", "local.optimizer=sgd"),
    "feddyn": ("algorithm=feddyn", "participation.clients_per_round=4"),
    "moon": ("algorithm=moon", "model=cnn-bn", "model.width=4"),
    "local-statistics": ("local.batchnorm=local", "model=cnn-bn", "model.width=4"),
    "fedmr": ("algorithm=fedmr",),
    "fedmr-local-statistics": ("algorithm=fedmr", "local.batchnorm=local", "model=cnn-bn", "model.width=4"),
    "fedmr-compressed": (
        "algorithm=fedprox", "server=fedmr", "update.compression=topk", "data.partition=quantity",
        "data.partition.alpha=1.0",
    ),
    "fedmr-scored": (
        "algorithm=fedmr", "data.client_test_fraction=0.3", "model=cnn-bn", "model.width=4", "rounds=3",
        "data.partition=quantity", "data.partition.alpha=1.0",
    ),
    "groups-of-clients": ("schedule=per-client", "algorithm=fedprox"),
    "augmented": ("data.augment.flip=true", "data.augment.crop=1"),
    "selective": ("schedule=selective", "rounds=4"),
    "median": ("server=median",),
}
# fmt: on


def trained(*overrides: str) -> Result:
    return run(config(*INLINE, *overrides))


@cache
def one_after_the_other(*overrides: str) -> Result:
    """The run without slots; several tests compare with it."""
    return trained(*overrides)


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_steps_in_slots_leave_the_same_model(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = one_after_the_other(*VARIANTS[variant])
    monkeypatch.setattr(slot_host, "recorder", lambda device: CalledStep)
    result = trained(*VARIANTS[variant], "runtime.slots=4")
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    for name in expected.history.column_names:
        if "seconds" not in name:
            assert result.history.column(name).equals(expected.history.column(name)), name


@pytest.mark.parametrize("variant", ["ragged", "adam", "groups-of-clients"])
def test_a_slot_that_has_recorded_many_steps_starts_anew(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, recorded = one_after_the_other(*VARIANTS[variant]), []

    def record(step: Callable[[], torch.Tensor]) -> CalledStep:
        recorded.append(step)
        return CalledStep(step)

    monkeypatch.setattr(slot_host, "recorder", lambda device: record)
    assert trained(*VARIANTS[variant], "runtime.slots=2").summary["model_sha256"] == expected.summary["model_sha256"]
    often = len(recorded)
    monkeypatch.setattr(captured, "MOST_GRAPHS", 1)
    assert trained(*VARIANTS[variant], "runtime.slots=2").summary["model_sha256"] == expected.summary["model_sha256"]
    assert len(recorded) - often > often > 0


def test_only_a_minibatch_of_a_size_that_comes_again_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def record(step: Callable[[], torch.Tensor]) -> CalledStep:
        sizes.append(len(inspect.getclosurevars(step).nonlocals["self"]._labels))
        return CalledStep(step)

    monkeypatch.setattr(slot_host, "recorder", lambda device: record)
    rests = ("data.clients=2", "data.samples_per_client=40", "local.batch_size=16", "local.epochs=1", "schedule=full")
    trained(*rests, "rounds=1", "runtime.slots=2")
    assert sizes == [16, 16]  # in each slot: of 16, 16 and 8 rows
    trained(*rests, "rounds=2", "runtime.slots=2")
    assert sorted(sizes[2:]) == [8, 8, 16, 16]


def test_graphs_of_a_slot_share_the_memory_of_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch refuses a memory whose last graph is gone."""

    class Graph:
        def __init__(self, step: Callable[[], torch.Tensor], pool: object) -> None:
            self.pool = pool or object()

    monkeypatch.setattr(captured, "CudaStepGraph", Graph)
    record = captured.GraphRecorder()
    first, second = record(torch.rand), record(torch.rand)
    assert first.pool is second.pool
    shared = first.pool
    del first
    assert record(torch.rand).pool is shared
    del second
    assert record(torch.rand).pool is not shared


@pytest.mark.parametrize("variant", ["adam", "scaffold", "groups-of-clients"])
def test_the_norms_of_recorded_steps_are_those_of_steps_one_after_the_other(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = (*VARIANTS[variant], "analysis.step_norms=true")
    expected = load_measured(trained(*on).directory, STEPS)
    monkeypatch.setattr(slot_host, "recorder", lambda device: CalledStep)
    assert load_measured(trained(*on, "runtime.slots=4").directory, STEPS).equals(expected)


def test_steps_that_are_not_recorded_leave_the_same_model_in_slots() -> None:
    assert trained("runtime.slots=3").summary["model_sha256"] == one_after_the_other().summary["model_sha256"]


def test_a_network_that_draws_random_numbers_draws_them_by_client() -> None:
    drops = ("model=pfl_network:SmallDropout",)
    assert (
        trained(*drops, "runtime.slots=3").summary["model_sha256"]
        == one_after_the_other(*drops).summary["model_sha256"]
    )


def test_out_of_memory_in_a_slot_is_tried_once_more_there(tmp_path: Path) -> None:
    short = ("algorithm=broken_device:Short", f"algorithm.mark={tmp_path / 'once'}", "runtime.slots=3")
    assert trained(*short).summary["model_sha256"] == one_after_the_other().summary["model_sha256"]
    assert (tmp_path / "once").exists()


def test_slots_are_refused_where_they_have_no_effect() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.slots=2: has no effect in an asynchronous run"):
        asynchronous("runtime.slots=2")


def test_what_cannot_be_recorded_is_done_as_it_is_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = ("algorithm=small:Faulty", "algorithm.bad_label=99")
    expected = trained(*odd)
    monkeypatch.setattr(slot_host, "recorder", lambda device: CalledStep)
    result = trained(*odd, "runtime.slots=2")
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert [line for line in result.warnings if "not captured" in line] == [
        "training steps are not captured as CUDA graphs, and take longer: what its objective or its optimizer needs of "
        "a client is not where a graph would find it"
    ]


@pytest.mark.parametrize(
    ("part", "captured"),
    [
        ("centres", True), ("frozen", True), ("weight_norm", True), ("recurrent", True), ("shared", True),
        ("assigned", False), ("counter", False), ("attribute", False), ("private", False), ("listed", False),
        ("unsaved", False), ("cumulative", False), ("spectral_norm", True), ("global_random", False),
        ("dropout", False),
    ],
)  # fmt: skip
def test_a_network_with_a_state_that_no_graph_would_change_is_trained_step_by_step(
    part: str, captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ("model=odd_modules:Odd", f"model.parts={part}", "schedule=full", "local.epochs=3")
    expected = trained(*network)
    monkeypatch.setattr(slot_host, "recorder", lambda device: CalledStep)
    result = trained(*network, "runtime.slots=3")
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert any("not captured as CUDA graphs" in line for line in result.warnings) == (not captured)


SINGLE_CLASS = (
    "data.partition=shards",
    "data.partition.shards_per_client=1",
    "data.clients=10",
    "algorithm=small:Faulty",
)


def test_a_client_that_fails_in_its_slot_leaves_the_others_alone() -> None:
    tolerant = (*SINGLE_CLASS, "runtime.max_failed_clients=2")
    expected, result = trained(*tolerant), trained(*tolerant, "runtime.slots=3")
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    with pytest.raises(ClientFailure, match="failed in round 1: ValueError: this client is broken") as caught:
        trained(*SINGLE_CLASS, "runtime.slots=3")
    assert "in loss" in caught.value.traceback


def test_a_deadline_drops_clients_in_slots() -> None:
    with pytest.raises(RunError) as alone:
        trained("participation.round_deadline=1e-6")
    with pytest.raises(RunError) as in_slots:
        trained("participation.round_deadline=1e-6", "runtime.slots=3")
    assert str(in_slots.value) == str(alone.value)
