"""The FedPart paper's cost columns, from layer shapes alone."""

from decimal import Decimal

import pytest
import torch
from torch import Tensor, nn

from fedbench.accounting.paper import forward_macs, round_comm_gb, round_comp_tflop
from fedbench.models.base import Task
from fedbench.models.groups import build_module
from fedbench.models.resnet import ResNet8
from fedbench.models.transformer import TextTransformer

TASKS = {
    "CIFAR-10": Task("image", (32, 32, 3), 10),
    "CIFAR-100": Task("image", (32, 32, 3), 100),
    "Tiny-ImageNet": Task("image", (64, 64, 3), 200),
}

# H. Wang et al., NeurIPS 2024 (arXiv 2410.11559), Table 1 as printed:
# (data, C, Comm FNU, Comm FedPart, Comp FNU, Comp FedPart).
TABLE_1 = [
    ("CIFAR-10", 1, "4.83", "1.35", "4.38", "3.21"),
    ("CIFAR-10", 2, "9.65", "2.70", "8.76", "6.43"),
    ("CIFAR-10", 3, "14.5", "4.05", "13.2", "9.64"),
    ("CIFAR-10", 4, "19.3", "5.40", "17.5", "12.9"),
    ("CIFAR-100", 1, "4.92", "1.38", "4.39", "3.22"),
    ("CIFAR-100", 2, "9.65", "2.75", "8.78", "6.44"),
    ("CIFAR-100", 3, "14.8", "4.13", "13.2", "9.66"),
    ("CIFAR-100", 4, "19.7", "5.51", "17.6", "12.9"),
    ("CIFAR-100", 5, "24.6", "6.88", "21.9", "16.1"),
    ("Tiny-ImageNet", 1, "5.02", "1.40", "17.5", "12.9"),
    ("Tiny-ImageNet", 2, "10.0", "2.81", "35.1", "25.7"),
    ("Tiny-ImageNet", 3, "15.1", "4.21", "52.6", "38.6"),
    ("Tiny-ImageNet", 4, "20.1", "5.62", "70.1", "51.4"),
    ("Tiny-ImageNet", 5, "25.1", "7.02", "87.7", "64.3"),
]
COLUMNS = ("Comm FNU", "Comm FedPart", "Comp FNU", "Comp FedPart")

# (data, C, column): (printed, computed)
MISPRINTS = {
    ("CIFAR-10", 3, "Comp FNU"): ("13.2", "13.1"),
    ("CIFAR-100", 2, "Comm FNU"): ("9.65", "9.83"),
    ("CIFAR-100", 3, "Comm FNU"): ("14.8", "14.7"),
    ("Tiny-ImageNet", 3, "Comm FNU"): ("15.1", "15.0"),
    ("Tiny-ImageNet", 4, "Comp FNU"): ("70.1", "70.2"),
}

# Parameters of ResNet-8's ten groups without the classifier, which the number of classes decides.
GROUPS = (9_536, 36_992, 36_992, 73_984, 147_712, 8_448, 295_424, 590_336, 33_280)
CLIENTS, SAMPLES, EPOCHS = 40, 500, 8
WARMUP, ROUNDS_PER_GROUP = 5, 2


def cycle_costs(task: Task) -> tuple[float, float, float, float]:
    """One cycle's four cells: five full rounds and two for each group, against as many full rounds."""
    macs = forward_macs(build_module(ResNet8(), task, seed=0), task)
    groups = [*GROUPS, 257 * task.classes]
    full = round_comm_gb(sum(groups), CLIENTS)
    partial = sum(ROUNDS_PER_GROUP * round_comm_gb(size, CLIENTS) for size in groups)
    rounds = WARMUP + ROUNDS_PER_GROUP * len(groups)
    full_step = round_comp_tflop(macs, SAMPLES, EPOCHS, partial=False)
    partial_step = round_comp_tflop(macs, SAMPLES, EPOCHS, partial=True)
    return (
        rounds * full,
        WARMUP * full + partial,
        rounds * full_step,
        WARMUP * full_step + ROUNDS_PER_GROUP * len(groups) * partial_step,
    )


@pytest.mark.parametrize("data", TASKS)
def test_every_cost_cell_of_table_1_but_the_five_misprints(data: str) -> None:
    costs = cycle_costs(TASKS[data])
    differing = {}
    for row_data, cycles, *printed_cells in TABLE_1:
        if row_data != data:
            continue
        for column, printed, cost in zip(COLUMNS, printed_cells, costs, strict=True):
            digits = -int(Decimal(printed).as_tuple().exponent)
            computed = f"{cycles * cost:.{digits}f}"
            if computed != printed:
                differing[data, cycles, column] = (printed, computed)
    assert differing == {key: value for key, value in MISPRINTS.items() if key[0] == data}


@pytest.mark.parametrize(
    ("data", "macs"), [("CIFAR-10", 14_606_080), ("CIFAR-100", 14_629_120), ("Tiny-ImageNet", 58_464_512)]
)
def test_macs_of_resnet8(data: str, macs: int) -> None:
    task = TASKS[data]
    assert forward_macs(build_module(ResNet8(), task, seed=0), task) == macs


def test_one_full_round_of_40_clients_is_197_644_mb() -> None:
    assert round_comm_gb(1_235_274, 40) * 1024 == pytest.approx(197.644, abs=5e-4)


def test_a_partial_round_is_two_thirds_of_a_full_one() -> None:
    full = round_comp_tflop(14_606_080, 500, 8, partial=False)
    assert full == pytest.approx(14_606_080 * 3 * 500 * 8 / 1e12)
    assert round_comp_tflop(14_606_080, 500, 8, partial=True) == pytest.approx(full * 2 / 3)


class Layers(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).flatten(1)


@pytest.mark.parametrize(
    ("layers", "macs"),
    [
        ([nn.Conv2d(4, 6, 3, padding=1, groups=2)], 8 * 8 * 6 * 9 * 2),
        ([nn.Conv2d(4, 6, 3, stride=2)], 3 * 3 * 6 * 9 * 4),
        ([nn.ConvTranspose2d(4, 6, 2, stride=2)], 8 * 8 * 4 * 4 * 6),
        ([nn.BatchNorm2d(4)], 4 * 8 * 8 * 4),
        ([nn.GroupNorm(2, 4)], 4 * 8 * 8 * 4),
        ([nn.AdaptiveAvgPool2d(1)], (64 + 1) * 4),
        ([nn.MaxPool2d(2), nn.ReLU()], 0),
        ([nn.Flatten(), nn.Linear(256, 7)], 256 * 7),
    ],
)
def test_layer_by_hand(layers: list[nn.Module], macs: int) -> None:
    assert forward_macs(Layers(*layers), Task("image", (8, 8, 4), 10)) == macs


def test_transformer_by_hand() -> None:
    length, width, hidden, classes = 6, 8, 2, 4
    task = Task("text", (length,), classes, vocabulary_size=20, padding_index=0)
    module = build_module(TextTransformer(embedding=width, layers=1, heads=2), task, seed=0)
    attention = 4 * length * width**2 + 2 * length**2 * width
    feedforward = 2 * length * width * hidden
    norms = 2 * 4 * length * width
    assert forward_macs(module, task) == attention + feedforward + norms + width * classes


def test_torch_attention_counts_as_this_projects_own() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            tokens = images.flatten(2).transpose(1, 2)
            mixed, _ = self.attention(query=tokens, key=tokens, value=tokens)
            return torch.as_tensor(mixed).mean(dim=1)

    macs = forward_macs(Attention(), Task("image", (3, 3, 16), 16))
    assert macs == 4 * 9 * 16**2 + 2 * 9**2 * 16
