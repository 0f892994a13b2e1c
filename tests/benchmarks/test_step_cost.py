"""What a local step costs beside the same step of an expert's plain PyTorch loop, on one thread.

Prints ratios of process times, from an interleaved run of the whole local training of one client (an epoch of 20
minibatches of 32, or of 5 minibatches of 10: preparation and end are in it), over repeats. The allocator keeps freed
memory for both, as in fedbench's actors. Judges nothing:

    pytest tests/benchmarks/test_step_cost.py -m benchmark -s

Dropout counts no FLOPs, and the forward pass draws its masks whatever trains. A step of the text transformer took
131 ms with `torch.nn.Dropout`, and partial steps 1.09 to 1.41 times their share of the FLOPs. With the project's own
dropout it took 106 and 116 ms in two runs, and partial steps 1.01 to 1.17 and 0.93 to 1.36 times, most for the
embedding, whose gradient of 24 MB counts no FLOPs either (2 cores of a Xeon, medians, in one sitting).
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from expert_loop import ExpertLoop, resnet8, text_transformer
from plain_networks import FORMATS, PooledCnn, StridedCnn
from torch import nn

from fedbench.accounting.flops import StepFlops
from fedbench.algorithms.base import Objective
from fedbench.data.augment import prepare
from fedbench.engine.on_ray.allocator import keep_freed_memory
from fedbench.models.base import Task
from fedbench.models.flat import FlatModel
from fedbench.models.groups import derive_layer_groups, parameter_layout
from fedbench.training.local import LocalTraining, Transform, train_client
from fedbench.training.optimizers import SGD, Adam, Optimizer

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

STEPS = {32: 20, 10: 5}
"""{batch size: minibatches of a client}."""

ROWS = 2000
VOCABULARY, LENGTH = 30_333, 64


@dataclass(frozen=True)
class Case:
    """A network with its optimizer and data.

    Attributes:
        build: makes the network.
        optimizer: fedbench's optimizer.
        text: whether the data are texts.
        repeats: how often each loop is measured.
    """

    build: Callable[[], nn.Module]
    optimizer: Optimizer
    text: bool
    repeats: int


CASES = {
    "strided CNN (156,810)": Case(StridedCnn, SGD(lr=0.05), False, 41),
    "pooled CNN (155,690)": Case(PooledCnn, SGD(lr=0.05), False, 21),
    "ResNet-8, Adam": Case(resnet8, Adam(lr=1e-3), False, 11),
    "text transformer": Case(partial(text_transformer, VOCABULARY, LENGTH, 4), SGD(lr=0.05), True, 11),
}


def data(text: bool) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    if text:
        tokens = rng.integers(1, VOCABULARY, (ROWS, LENGTH), dtype=np.int32)
        tokens[np.arange(LENGTH) >= rng.integers(LENGTH // 2, LENGTH + 1, (ROWS, 1))] = 0
        return torch.from_numpy(tokens), torch.from_numpy(rng.integers(0, 4, ROWS))
    images = rng.integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
    return torch.from_numpy(images), torch.from_numpy(rng.integers(0, 10, ROWS))


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def to_module_input(text: bool) -> Transform:
    if text:
        return lambda batch, draws: batch.long()
    return lambda batch, draws: prepare(batch, None, None, None, draws)


class Client:
    """fedbench's local training of a client of one case."""

    def __init__(self, case: Case, inputs: torch.Tensor, labels: torch.Tensor, batch_size: int) -> None:
        task = Task("text", (LENGTH,), 4, VOCABULARY, 0) if case.text else Task("image", (32, 32, 3), 10)
        module = case.build()
        layer_groups = derive_layer_groups(module, task)
        self.flops = StepFlops(module, layer_groups, task)
        self.model = FlatModel(module, parameter_layout(module, layer_groups))
        self._data = inputs, labels
        self._start = self.model.vector.clone()
        self._settings = LocalTraining(
            case.optimizer, Objective(), batch_size, epochs=1, steps=None, bf16=False, seed=0
        )
        self._transform = to_module_input(case.text)

    def train(self, number: int, rows: np.ndarray, groups: tuple[int, ...] | None = None) -> None:
        train_client(
            self.model, *self._data, rows, self._transform, self._settings, anchor=self._start,
            groups=self.model.layout.all_groups if groups is None else groups, round_index=0, client=number,
            lr_factor=1.0,
        )  # fmt: skip


def expert_loops(case: Case, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, ExpertLoop]:
    adam = isinstance(case.optimizer, Adam)
    forms = ["contiguous"] if case.text else FORMATS
    return {form: ExpertLoop(case.build(), inputs, labels, form, case.optimizer.lr, adam) for form in forms}


def in_words(ratios: list[float]) -> str:
    return f"min {min(ratios):.3f}, median {statistics.median(ratios):.3f}, max {max(ratios):.3f}"


@pytest.mark.parametrize("batch_size", [32, 10])
@pytest.mark.parametrize("name", CASES)
def test_a_step_against_an_experts(name: str, batch_size: int, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    case = CASES[name]
    inputs, labels = data(case.text)
    experts, client = expert_loops(case, inputs, labels), Client(case, inputs, labels, batch_size)
    count = STEPS[batch_size]
    repeats = case.repeats if batch_size == 32 else 5 * case.repeats
    times: dict[str, list[float]] = {"fedbench": [], **{form: [] for form in experts}}
    for repeat in range(repeats + 2):
        rows = np.random.default_rng(repeat).permutation(ROWS)[: count * batch_size]
        times["fedbench"].append(seconds(lambda rows=rows, repeat=repeat: client.train(repeat, rows)))
        for form, expert in experts.items():
            times[form].append(seconds(lambda rows=rows, expert=expert: expert.epoch(rows, batch_size)))
    measured = {loop: of_loop[2:] for loop, of_loop in times.items()}
    fastest = min(experts, key=lambda form: statistics.median(measured[form]))
    ratios = [own / other for own, other in zip(measured["fedbench"], measured[fastest], strict=True)]
    steps = ", ".join(f"{loop} {1000 * statistics.median(spent) / count:.3f}" for loop, spent in measured.items())
    with capsys.disabled():
        print(
            f"\n{name}, batch {batch_size}: ms a step (median): {steps}; ratio to {fastest}: {in_words(ratios)} "
            f"of {repeats}"
        )


@pytest.mark.parametrize("name", CASES)
def test_a_partial_step_against_its_share_of_the_flops(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The expert's partial step, with the other parameters frozen, says what that share costs in plain PyTorch."""
    torch.set_num_threads(1)
    keep_freed_memory()
    case, batch_size = CASES[name], 32
    inputs, labels = data(case.text)
    expert = ExpertLoop(
        case.build(), inputs, labels, "contiguous" if case.text else "channels_last", case.optimizer.lr,
        isinstance(case.optimizer, Adam),
    )  # fmt: skip
    client = Client(case, inputs, labels, batch_size)
    layout = client.model.layout
    kinds = [layout.all_groups, *((group,) for group in range(layout.groups))]
    names = {groups: {slot.name for slot in layout.slots if slot.group in groups} for groups in kinds}
    ours: dict[tuple[int, ...], list[float]] = {groups: [] for groups in kinds}
    theirs: dict[tuple[int, ...], list[float]] = {groups: [] for groups in kinds}
    for repeat in range(case.repeats // 2 + 2):
        rows = np.random.default_rng(repeat).permutation(ROWS)[: 10 * batch_size]
        for groups in kinds:
            work = partial(client.train, repeat, rows, groups)
            ours[groups].append(seconds(work))
            for key, parameter in expert.module.named_parameters():
                parameter.requires_grad_(key in names[groups])
            theirs[groups].append(seconds(lambda rows=rows: expert.epoch(rows, batch_size)))
    whole, *parts = kinds
    lines = []
    for groups in parts:
        share, of_expert = (
            statistics.median(part / full for part, full in zip(spent[groups][2:], spent[whole][2:], strict=True))
            for spent in (ours, theirs)
        )
        flops = client.flops.flops(groups, batch_size) / client.flops.flops(whole, batch_size)
        lines.append(
            f"  {layout.group_names[groups[0]]:<20} time {share:.3f} / FLOPs {flops:.3f} = {share / flops:.2f}; the "
            f"expert's time {of_expert:.3f}"
        )
    with capsys.disabled():
        print(f"\n{name}, batch {batch_size}: share of a full step (median of {case.repeats // 2})", *lines, sep="\n")
