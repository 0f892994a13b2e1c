"""The estimate of a training step's memory."""

import torch
from torch import Tensor, nn

from fedbench.accounting.memory import peak_training_bytes
from fedbench.models.base import LayerGroup, Task
from fedbench.models.groups import build_module, derive_layer_groups
from fedbench.models.resnet import ResNet8

TASK = Task("image", (2, 2, 3), 3)
GROUPS = [LayerGroup("first", ("first.weight", "first.bias")), LayerGroup("last", ("last.weight", "last.bias"))]
BATCH = 7
PARAMETERS = 4 * (12 * 5 + 5 + 5 * 3 + 3)
LAST = 4 * (5 * 3 + 3)
DATA = BATCH * (12 * 4 + 8)
# Cross-entropy keeps the log-probabilities, and the sum of the weights of the labels, a scalar.
LOSS = 4 * BATCH * 3 + 4


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(images.flatten(1)))
        return out


def peak(active: list[int], slots: int) -> int:
    return peak_training_bytes(Network(), GROUPS, TASK, active, BATCH, slots)


def test_two_linear_layers_by_hand() -> None:
    hidden = 4 * BATCH * 5
    assert peak([0, 1], 0) == PARAMETERS + PARAMETERS + DATA + hidden + LOSS
    assert peak([1], 0) == PARAMETERS + LAST + DATA + hidden + LOSS


def test_optimizer_slots_are_held_for_active_parameters_only() -> None:
    assert peak([0, 1], 2) - peak([0, 1], 0) == 2 * PARAMETERS
    assert peak([1], 1) - peak([1], 0) == LAST


def test_a_deep_group_keeps_fewer_activations_than_a_shallow_one() -> None:
    task = Task("image", (32, 32, 3), 10)
    module = build_module(ResNet8(width=8), task, seed=0)
    groups = derive_layer_groups(module, task)
    shallow, deep = (peak_training_bytes(module, groups, task, [group], 32, 0) for group in (0, 9))
    assert shallow > 2 * deep


def test_activations_agree_with_what_a_real_step_saves() -> None:
    """Each storage once, by its address, as autograd holds them on the CPU."""
    task = Task("image", (32, 32, 3), 10)
    module = build_module(ResNet8(width=8), task, seed=0)
    groups = derive_layer_groups(module, task)
    held = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    images, labels = torch.randn(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)
    held |= {images.untyped_storage().data_ptr(), labels.untyped_storage().data_ptr()}
    saved: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        nn.functional.cross_entropy(module(images), labels)
    state = sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
    gradients = sum(4 * parameter.numel() for parameter in module.parameters())
    data = images.numel() * 4 + labels.numel() * 8
    estimate = peak_training_bytes(module, groups, task, range(10), 4, 0)
    assert estimate == state + gradients + data + sum(saved.values())
