"""An estimate of the memory that one client's training step needs, made without computing the step."""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fedbench.models.base import LayerGroup, Task
from fedbench.models.probe import example_inputs, example_labels, probe
from fedbench.tasks.losses import Criterion, criterion_of


def peak_training_bytes(
    module: nn.Module,
    groups: Sequence[LayerGroup],
    task: Task,
    active: Collection[int],
    batch_size: int,
    optimizer_slots: int,
) -> int:
    """Estimated peak bytes of one client's training step, in float32.

    It adds up parameters and buffers, the active groups' gradients, the optimizer's state for them, the batch with its
    labels, and the activations that autograd keeps for the backward pass, each storage once. It leaves out short-lived
    gradients of activations, workspaces of kernels, rounding by the allocator, and the runtime's own memory (about
    half a GiB for a CUDA context).

    Args:
        module: the network; copied, never changed.
        groups: the layer groups of the network.
        task: the learning task, which has the shape of the data.
        active: indices of the groups that train.
        batch_size: samples of a minibatch.
        optimizer_slots: values that the optimizer keeps for each active parameter: 0 for SGD, 1 with momentum,
            2 for Adam.

    Raises:
        ModelError: the module fails on a batch of the task's shape.
    """
    trained = {name for group in active for name in groups[group].parameters}

    def measure(copy: nn.Module, device: torch.device) -> int:
        for name, parameter in copy.named_parameters():
            parameter.requires_grad_(name in trained)
        inputs, labels = example_inputs(task, batch_size, device), example_labels(task, batch_size, device)
        state = [*copy.parameters(), *copy.buffers()]
        gradients = nbytes(parameter for parameter in copy.parameters() if parameter.requires_grad)
        held = nbytes([*state, inputs, labels])
        return (
            held
            + (1 + optimizer_slots) * gradients
            + saved_bytes(copy, inputs, labels, [*state, inputs, labels], criterion_of(task.target))
        )

    return probe(module, measure)


def saved_bytes(module: nn.Module, inputs: Tensor, labels: Tensor, held: Sequence[Tensor], criterion: Criterion) -> int:
    """Bytes of the distinct storages that a forward pass and its loss save for the backward pass.

    Args:
        module: the network.
        inputs: a minibatch.
        labels: its labels.
        held: tensors whose storages are counted elsewhere, and left out here.
        criterion: the loss.
    """
    counted_elsewhere = {storage_key(tensor) for tensor in held}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []  # The address of a freed storage could be reused by another.

    def pack(tensor: Tensor) -> Tensor:
        key = storage_key(tensor)
        if key not in counted_elsewhere and key not in sizes:
            sizes[key] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        criterion(module(inputs), labels)
    return sum(sizes.values())


def storage_key(tensor: Tensor) -> int:
    """A number that identifies a tensor's storage, on the meta device too, where every address is 0."""
    return int(tensor.untyped_storage()._cdata)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Total bytes of the tensors' elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
