"""What a local step costs beside the same step of an expert's plain PyTorch loop, on one thread.

Prints ratios of process times, from an interleaved run of the whole local training of one client (an epoch of 20
minibatches of 32, or of 5 minibatches of 10: preparation and end are in it), over repeats. Judges nothing:

    pytest tests/benchmarks/test_step_cost.py -m benchmark -s
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from expert_loop import FORMATS, ExpertLoop, PooledCnn, StridedCnn, resnet8, text_transformer
from torch import nn

from fedbench.algorithms.base import Objective
from fedbench.data.augment import prepare
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


@pytest.mark.parametrize("batch_size", [32, 10])
@pytest.mark.parametrize("name", CASES)
def test_a_step_against_an_experts(name: str, batch_size: int, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    case = CASES[name]
    inputs, labels = data(case.text)
    task = Task("text", (LENGTH,), 4, VOCABULARY, 0) if case.text else Task("image", (32, 32, 3), 10)
    experts = {
        form: ExpertLoop(case.build(), inputs, labels, form, case.optimizer.lr, isinstance(case.optimizer, Adam))
        for form in (["contiguous"] if case.text else FORMATS)
    }
    module = case.build()
    model = FlatModel(module, parameter_layout(module, derive_layer_groups(module, task)))
    start = model.vector.clone()
    settings = LocalTraining(case.optimizer, Objective(), batch_size, epochs=1, steps=None, bf16=False, seed=0)
    transform = to_module_input(case.text)

    def ours(client: int, rows: np.ndarray) -> None:
        train_client(
            model, inputs, labels, rows, transform, settings,
            anchor=start, groups=model.layout.all_groups, round_index=0, client=client, lr_factor=1.0,
        )  # fmt: skip

    repeats = case.repeats if batch_size == 32 else 5 * case.repeats
    times: dict[str, list[float]] = {"fedbench": [], **{form: [] for form in experts}}
    for repeat in range(repeats + 2):
        rows = np.random.default_rng(repeat).permutation(ROWS)[: STEPS[batch_size] * batch_size]
        times["fedbench"].append(seconds(lambda rows=rows, repeat=repeat: ours(repeat, rows)))
        for form, expert in experts.items():
            times[form].append(seconds(lambda rows=rows, expert=expert: expert.epoch(rows, batch_size)))
    measured = {loop: of_loop[2:] for loop, of_loop in times.items()}
    fastest = min(experts, key=lambda form: statistics.median(measured[form]))
    ratios = [own / other for own, other in zip(measured["fedbench"], measured[fastest], strict=True)]
    count = STEPS[batch_size]
    steps = ", ".join(f"{loop} {1000 * statistics.median(spent) / count:.3f}" for loop, spent in measured.items())
    with capsys.disabled():
        print(
            f"\n{name}, batch {batch_size}: ms a step (median): {steps}; ratio to {fastest}: min {min(ratios):.3f}, "
            f"median {statistics.median(ratios):.3f}, max {max(ratios):.3f} over {repeats} repeats"
        )
