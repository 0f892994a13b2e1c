"""What holds on a GPU. Without one these tests are skipped; none of them has been run on a GPU yet.

pytest tests/gpu -m gpu -s
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from kinds_of_data import write_docstrings
from model_folders import bert
from pfl_network import PflCnn
from small import asynchronous, config

from fedbench import run
from fedbench.algorithms.base import Objective
from fedbench.components.catalogue import make_component
from fedbench.data.augment import MinibatchDraws, augment
from fedbench.data.augmentation import Augmentation
from fedbench.engine.device import TorchSettings, memory_fraction, set_determinism, set_precision
from fedbench.engine.device_sum import DeviceSum
from fedbench.engine.host_upload import HostUpload
from fedbench.engine.messages import HostOrder
from fedbench.experiment.result import Result
from fedbench.models.base import Model, Task
from fedbench.models.flat import FlatModel
from fedbench.models.frozen_base import FrozenBase
from fedbench.models.groups import build_module, derive_layer_groups, parameter_layout
from fedbench.models.resnet import ResNet8
from fedbench.protocol.layout import BYTES_PER_VALUE, ParameterLayout
from fedbench.protocol.message import PARAMETERS, PartTable
from fedbench.randomness import generator
from fedbench.training import captured
from fedbench.training.local import ClientTraining, LocalTraining
from fedbench.training.optimizers import SGD, Adam, Optimizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"),
]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TASK = Task("image", (32, 32, 3), 10)
INLINE = ("runtime.executor=inline", "runtime.device=cuda")


@pytest.fixture(autouse=True)
def settings_put_back() -> Iterator[None]:
    settings = TorchSettings()
    set_precision("float32")
    set_determinism(True)
    yield
    settings.restore()


def flat(model: Model, device: torch.device) -> FlatModel:
    module = build_module(model, TASK, 0)
    return FlatModel(module, parameter_layout(module, derive_layer_groups(module, TASK)), device)


def training(model: FlatModel, optimizer: Optimizer) -> ClientTraining:
    settings = LocalTraining(optimizer, Objective(), batch_size=32, epochs=1, steps=None, bf16=False, seed=0)
    return ClientTraining(model, settings, anchor=model.vector.clone(), groups=model.layout.all_groups, lr_factor=1.0)


def batch(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return images.to(device, memory_format=torch.channels_last), (torch.arange(32) % 10).to(device)


@pytest.mark.parametrize("model", [ResNet8(), PflCnn(dropout=False)], ids=lambda model: model.name)
def test_a_step_on_a_gpu_is_that_on_a_cpu_within_a_hundredth(model: Model) -> None:
    """Of the length of the step: ReLU's kinks and BatchNorm's division enlarge differences of the last bit."""
    steps, losses = [], []
    for device in (CPU, CUDA):
        trained = flat(model, device)
        before = trained.vector.clone()
        of_client = training(trained, SGD(lr=0.05))
        of_client.step(*batch(device))
        losses.append(of_client.finish().loss)
        steps.append((trained.vector - before).cpu().double())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert float((steps[0] - steps[1]).norm() / steps[0].norm()) < 1e-2


@pytest.mark.parametrize("augmentation", [Augmentation(flip=True, crop=4), Augmentation(rotate=15.0, crop=2)])
def test_augmented_pixels_are_the_same_on_every_device(augmentation: Augmentation) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8))
    made = [
        augment(images.to(device), augmentation, MinibatchDraws(generator(0, "augmentation"), [64])).cpu()
        for device in (CPU, CUDA)
    ]
    assert torch.equal(*made)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), SGD(lr=0.05, momentum=0.9), Adam()], ids=str)
def test_the_steps_wait_for_nothing(optimizer: Optimizer) -> None:
    of_client, minibatch = training(flat(ResNet8(), CUDA), optimizer), batch(CUDA)
    of_client.step(*minibatch)  # libraries may wait while they are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            of_client.step(*minibatch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(of_client.finish().loss)


CASES = {
    "adam": ("local.optimizer=adam", "local.epochs=2"),
    "momentum": ("local.optimizer=sgd", "local.optimizer.momentum=0.9", "local.lr_schedule=cosine"),
    "ragged": ("data.partition=quantity", "data.partition.alpha=1.0"),
    "fedprox": ("algorithm=fedprox", "algorithm.mu=0.1"),
    "scaffold": ("algorithm=scaffold", "local.optimizer=sgd"),
    "feddyn": ("algorithm=feddyn",),
    "moon": ("algorithm=moon", "model=cnn-bn", "model.width=4"),
    "dropout": ("model=pfl_network:SmallDropout", "schedule=full"),
    "own-dropout": ("model=mlp", "model.dropout=0.5"),
    "bf16": ("local.precision=bf16",),
    "groups-of-clients": ("schedule=per-client", "algorithm=fedprox"),
    "recurrent": ("model=odd_modules:Odd", "model.parts=recurrent", "schedule=full"),
    "bf16-parameters": ("local.precision=bf16-parameters",),
    "checkpointed": ("local.checkpoint_activations=true", "model=resnet8"),
    "fedmr": ("algorithm=fedmr",),
    "step-norms": ("analysis.step_norms=true",),
    "selective": ("schedule=selective",),
    "metrics": ("evaluation.metrics=[macro_f1, expected_calibration_error]",),
}
MAYBE_EAGER = {"recurrent", "checkpointed"}
"""Cases of which it is not known whether PyTorch can capture them."""


@pytest.mark.parametrize("case", CASES)
def test_the_same_run_twice_leaves_the_same_model(case: str) -> None:
    first, second = (run(config(*INLINE, *CASES[case])).summary for _ in range(2))
    assert first["model_sha256"] == second["model_sha256"]
    assert first["devices"][0]["name"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("slots", [2, 4, 16])
@pytest.mark.parametrize("case", CASES)
def test_captured_steps_in_slots_are_the_eager_ones_bit_for_bit(case: str, slots: int) -> None:
    of_many = ("data.clients=20",)
    expected = run(config(*INLINE, *of_many, *CASES[case]))
    result = run(config(*INLINE, *of_many, *CASES[case], f"runtime.slots={slots}"))
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert case in MAYBE_EAGER or captures_all(result)


def captures_all(result: Result) -> bool:
    return not any("not captured" in line for line in result.warnings)


@pytest.mark.parametrize("case", ["adam", "ragged", "groups-of-clients"])
def test_graphs_that_are_given_up_leave_the_others_right(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(config(*INLINE, *CASES[case]))
    monkeypatch.setattr(captured, "MOST_GRAPHS", 2)
    result = run(config(*INLINE, *CASES[case], "runtime.slots=4"))
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert captures_all(result)


@pytest.mark.parametrize("after", [0, 4])
def test_out_of_memory_in_a_slot_is_tried_once_more_there(after: int, tmp_path: Path) -> None:
    """Before anything is captured, and in the first step with the second layer group."""
    mark = tmp_path / "once"
    short = ("algorithm=broken_device:Short", f"algorithm.mark={mark}", f"algorithm.after={after}", "runtime.slots=3")
    result = run(config(*INLINE, *short))
    assert result.summary["model_sha256"] == run(config(*INLINE)).summary["model_sha256"]
    assert mark.exists()
    assert captures_all(result)


@pytest.mark.parametrize("algorithm", ["ormo", "fedasync"])
def test_an_asynchronous_run_on_actors_leaves_the_model_of_one_process(algorithm: str) -> None:
    expected = run(asynchronous(*INLINE, f"algorithm={algorithm}"))
    share = ("runtime.gpus_per_client=0.5", "runtime.cpus_per_client=0.5")
    result = run(asynchronous("runtime.device=cuda", "runtime.actors=2", *share, f"algorithm={algorithm}"))
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]


def test_a_model_of_transformers_leaves_the_same_model_in_slots(tmp_path: Path) -> None:
    """It attends otherwise in minibatches without padding, which a graph would not."""
    write_docstrings(tmp_path)
    data = ("data.dataset=parquet", "data.dataset.max_tokens=12", f"data.root={tmp_path}")
    model = ("model=" + bert(tmp_path / "bert", vocabulary=1000), "local.batch_size=4")
    texts = (*data, "data.samples_per_client=null", *model, "schedule=full", "rounds=2")
    expected, result = (run(config(*INLINE, *texts, *slots)) for slots in ((), ("runtime.slots=3",)))
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert not captures_all(result)


def test_the_memory_of_an_earlier_run_is_not_counted() -> None:
    small, large = ("model=cnn-bn", "model.width=4"), ("model=resnet18", "local.batch_size=64")
    runs = [run(config(*INLINE, "rounds=1", "schedule=full", *model)) for model in (small, large, small)]
    peaks = [result.summary["peak_actor_bytes"] for result in runs]
    assert peaks[2] == pytest.approx(peaks[0], rel=0.1)
    assert peaks[1] > peaks[0]


@pytest.mark.parametrize(("actors", "slots"), [(4, 1), (2, 4)])
@pytest.mark.parametrize("case", ["adam", "scaffold"])
def test_actors_on_one_gpu_leave_the_model_of_one_process(actors: int, slots: int, case: str) -> None:
    expected = run(config(*INLINE, "data.clients=20", *CASES[case]))
    share = f"runtime.gpus_per_client={1 / actors}"
    on_actors = (f"runtime.actors={actors}", share, "runtime.cpus_per_client=0.25", "runtime.device=cuda")
    result = run(config(*on_actors, "data.clients=20", f"runtime.slots={slots}", *CASES[case]))
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert len(result.summary["devices"]) == 1


def test_networks_of_one_process_share_one_copy_of_a_frozen_base(tmp_path: Path) -> None:
    task = Task("text", (12,), 4, vocabulary_size=100, padding_index=0)
    adapted = make_component("model", Model, {"name": bert(tmp_path / "bert"), "peft": {"lora": {"r": 4}}})
    assert isinstance(adapted, Model)
    base = FrozenBase.of(build_module(adapted, task, 0))
    assert base is not None
    sizes, networks = [], []
    for _ in range(3):
        before = torch.cuda.memory_allocated()
        networks.append(base.module(CUDA))
        sizes.append(torch.cuda.memory_allocated() - before)
    assert sizes[0] >= BYTES_PER_VALUE * base.parameters
    assert sizes[1:] == [0, 0]


@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_a_sum_on_the_gpu_has_the_bits_of_that_on_the_cpu(scale: float) -> None:
    rng, size = np.random.default_rng(0), 100_000
    table = PartTable(ParameterLayout.build([("all", {"weight": (size,)})]), statistics=False)
    order = HostOrder(
        round=0, union=(0,), lr_factor=1.0, stale=(), clients=(0, 1), groups=((0,), (0,)), sent=((0,), (0,)),
        weights=(0.3, 0.7), scales=(scale, scale), own_starts=False, combine=True, on_failure="stop",
    )  # fmt: skip
    start = rng.standard_normal(size).astype(np.float32)
    on_gpu, in_memory = DeviceSum(table, order, {PARAMETERS: torch.from_numpy(start).cuda()}), HostUpload(table, order)
    for index, magnitude in enumerate((1e-4, 1e4)):
        values = start + (magnitude * rng.standard_normal(size)).astype(np.float32)
        assert in_memory.add(index, (0,), values, start)
        assert on_gpu.add(index, (0,), torch.from_numpy(values).cuda())
    np.testing.assert_array_equal(on_gpu.content(), in_memory.content())


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_each_precision_is_set_and_recorded(precision: str) -> None:
    (device,) = run(config(*INLINE, f"local.precision={precision}", "rounds=1", "schedule=full")).summary["devices"]
    assert device["tf32"] == (precision == "tf32")
    assert device["cuda"]
    assert device["cudnn"]


def test_a_process_cannot_allocate_beyond_its_share() -> None:
    total = torch.cuda.get_device_properties(CUDA).total_memory
    fraction = memory_fraction(0.25, total)
    torch.cuda.set_per_process_memory_fraction(fraction)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(fraction * total * 1.05), dtype=torch.uint8, device=CUDA)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
