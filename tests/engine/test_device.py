"""The device of a host: which it is, what is refused, how much of it is used, and what its errors are taken for.

There need be no GPU: errors of one are raised by hand, and rows are gathered in host memory.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from small import asynchronous, config
from warm_pools import WarmPools

from fedbench import run
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.runtime import RuntimeSection
from fedbench.data.base import Split
from fedbench.engine import scoring_host
from fedbench.engine.arrivals import client_host as arrivals_host
from fedbench.engine.client_host import ClientHost
from fedbench.engine.device import (
    TorchSettings,
    choose_device,
    explained,
    memory_fraction,
    set_determinism,
    set_precision,
)
from fedbench.engine.device_rows import GatheredRows
from fedbench.engine.messages import DeviceRecord
from fedbench.engine.on_ray.placement import fitting_on_gpus, gpu_share
from fedbench.errors import ConfigError
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import build_problem
from fedbench.experiment.summary import mixed_devices

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@NO_CUDA
def test_a_gpu_that_is_asked_for_and_not_there_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^runtime\.device=cuda: PyTorch .*set runtime\.device=cpu[^\n]*$"):
        run(config("runtime.executor=inline", "runtime.device=cuda"))


@NO_CUDA
def test_a_host_with_a_share_of_a_gpu_never_trains_without_one() -> None:
    problem = build_problem(config(), load_federation(config()))
    spec = replace(problem.spec, device="cuda", gpu_fraction=0.25)
    with pytest.raises(ConfigError, match=r"runtime\.device=cuda"):
        ClientHost().prepare(spec, problem.federation.data, problem.federation.rows)


@NO_CUDA
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_tf32_is_refused_where_nothing_computes_in_it(device: str) -> None:
    with pytest.raises(ConfigError, match=r"local\.precision=tf32.*float32"):
        run(config("runtime.executor=inline", f"runtime.device={device}", "local.precision=tf32"))


def test_a_gpu_is_chosen_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some calls of PyTorch, such as that which limits a process's memory, refuse a device without one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    device = choose_device(replace(build_problem(config(), load_federation(config())).spec, device="cuda"))
    assert device == torch.device("cuda", 1)
    assert torch.cuda._utils._get_device_index(device) == 1


@pytest.mark.parametrize(("device", "share"), [("cpu", "0.5"), ("cuda", "0")])
def test_a_device_that_contradicts_the_share_is_refused(device: str, share: str) -> None:
    with pytest.raises(ConfigError, match=f"device={device}"):
        config(f"runtime.device={device}", f"runtime.gpus_per_client={share}")


def test_the_run_says_what_it_was_computed_on() -> None:
    result = run(config("runtime.executor=inline", "rounds=1", "schedule=full"))
    assert result.summary["devices"] == [{"name": "CPU", "cuda": None, "cudnn": None, "tf32": False}]
    assert not any("devices" in warning for warning in result.warnings)


def test_devices_that_differ_are_warned_of() -> None:
    mixed = [DeviceRecord("A100", "13.0", 91200), DeviceRecord("H100", "13.0", 91200)]
    (warning,) = mixed_devices(mixed)
    assert "A100 (CUDA 13.0, cuDNN 91200), H100" in warning
    assert not list(mixed_devices(mixed[:1]))


@pytest.mark.parametrize("actors", [1, 2, 3, 5, 7, 16, 40])
@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_actors_share_gpus_evenly(actors: int, gpus: int) -> None:
    share = gpu_share(RuntimeSection(actors=actors), gpus, cohort=100)
    assert fitting_on_gpus(gpus, share) >= actors
    assert int(1 / share + 1e-9) == -(-actors // gpus)


def test_without_a_number_of_actors_four_share_a_gpu() -> None:
    assert gpu_share(RuntimeSection(), gpus=1, cohort=40) == 0.25
    assert gpu_share(RuntimeSection(), gpus=1, cohort=2) == 0.5
    assert gpu_share(RuntimeSection(slots=8), gpus=1, cohort=40) == 1
    assert gpu_share(RuntimeSection(), gpus=0, cohort=40) == 0
    assert gpu_share(RuntimeSection(device="cpu"), gpus=8, cohort=40) == 0
    with pytest.raises(ConfigError, match=r"runtime\.device=cuda: Ray knows of no GPU"):
        gpu_share(RuntimeSection(device="cuda"), gpus=0, cohort=40)


@pytest.mark.parametrize("processes", [1, 4, 16])
def test_all_processes_of_a_gpu_fit_beside_their_contexts(processes: int) -> None:
    total = 80 << 30
    assert processes * (memory_fraction(1 / processes, total) * total + (700 << 20)) <= total * 1.0001
    with pytest.raises(ConfigError, match=r"runtime\.gpus_per_client=0\.025: 40 processes"):
        memory_fraction(1 / 40, 16 << 30)


def test_settings_of_pytorch_are_put_back() -> None:
    def seen() -> tuple[object, ...]:
        return (
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        )

    before, settings = seen(), TorchSettings()
    try:
        set_precision("float32")
        set_determinism(True)
        assert seen() == (False, "highest", True, False)
        set_precision("tf32")
        assert seen()[:2] == (True, "high")
        set_precision("bf16")
        assert seen()[:2] == (False, "highest")
    finally:
        settings.restore()
    assert seen() == before


def test_an_operator_without_a_deterministic_form_names_the_option() -> None:
    text = "f_backward_cuda does not have a deterministic implementation, but you set use_deterministic_algorithms"
    assert "runtime.deterministic=false" in str(explained(RuntimeError(text)))
    assert "runtime.gpus_per_client" in str(explained(torch.OutOfMemoryError("CUDA out of memory")))
    assert str(explained(RuntimeError("another"))) == "another"


def split_of(rows: int) -> Split:
    inputs = np.arange(rows * 12, dtype=np.uint8).reshape(rows, 2, 2, 3)
    return Split(inputs, np.arange(rows))


def test_a_clients_rows_are_gathered_when_it_arrives_and_the_oldest_make_room() -> None:
    split, rows = split_of(20), [np.array([3, 1, 3]), np.array([7]), np.arange(10, 16)]
    each = 12 + 8
    kept = GatheredRows(split, rows, torch.device("cpu"), budget=7 * each)
    for client in (0, 1, 0, 2, 1):
        inputs, labels, own = kept.of(client)
        assert np.array_equal(inputs.numpy()[own], split.inputs[rows[client]])
        assert np.array_equal(labels.numpy()[own], split.labels[rows[client]])
        assert kept.kept_bytes <= 7 * each
    assert kept.kept_bytes == 7 * each  # clients 2 and 1; client 0 made room
    assert kept.of(1)[0] is kept.of(1)[0]
    kept.release()
    assert kept.kept_bytes == 0
    tight = GatheredRows(split, rows, torch.device("cpu"), budget=0)
    assert len(tight.of(2)[2]) == 6


def test_out_of_memory_is_tried_once_more_with_the_same_result(tmp_path: Path) -> None:
    short = ("runtime.executor=inline", "rounds=2", "schedule=full")
    expected = run(config(*short))
    disturbed = run(config(*short, "algorithm=broken_device:Short", f"algorithm.mark={tmp_path / 'once'}"))
    assert disturbed.summary["model_sha256"] == expected.summary["model_sha256"]
    assert (tmp_path / "once").exists()


@pytest.mark.parametrize(
    ("module", "name", "experiment"),
    [(scoring_host, "score_batches", config), (arrivals_host, "minibatch_gradient", asynchronous)],
    ids=["evaluation", "gradient"],
)
def test_out_of_memory_beside_local_training_is_tried_once_more_with_the_same_result(
    module: ModuleType, name: str, experiment: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(experiment("runtime.executor=inline"))
    act, calls = getattr(module, name), 0

    def short_of_memory(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = act(*arguments, **named)
        if calls == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    monkeypatch.setattr(module, name, short_of_memory)
    result = run(experiment("runtime.executor=inline"))
    assert calls > 2
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert result.history.column("test_loss").equals(expected.history.column("test_loss"))


@pytest.mark.slow
def test_a_dead_gpu_is_a_lost_actor_and_its_work_is_done_again(tmp_path: Path, warm_pools: WarmPools) -> None:
    short = ("rounds=2", "schedule=full")
    expected = run(config("runtime.executor=inline", *short))
    dead = ("algorithm=broken_device:Dead", f"algorithm.mark={tmp_path / 'once'}")
    result = warm_pools.run(config("runtime.actors=2", *short, *dead))
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert any("has lost its GPU: CUDA error: device-side assert" in warning for warning in result.warnings)


def test_many_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^runtime.torch_threads=1024: the machine has \d+ cores; at most \d+$"):
        run(config("runtime.executor=inline", "runtime.torch_threads=1024", "rounds=1"))
