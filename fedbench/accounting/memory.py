"""An estimate of the memory that one client's training step needs, made without computing the step."""

from collections.abc import Collection, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from fedbench.models.base import LayerGroup, Task
from fedbench.models.checkpointed import blocks
from fedbench.models.lowered import lower, rounded_tensors
from fedbench.models.probe import example_inputs, example_labels, probe
from fedbench.tasks.losses import Criterion, criterion_of


def peak_training_bytes(
    module: nn.Module,
    groups: Sequence[LayerGroup],
    task: Task,
    active: Collection[int],
    batch_size: int,
    optimizer_slots: int,
    *,
    checkpointed: bool = False,
    lowered: bool = False,
) -> int:
    """Estimated peak bytes of one client's training step, in float32 but for what `lowered` says.

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
        checkpointed: whether the network's blocks keep their inputs alone, and are computed again one by one
            (`fedbench.models.checkpointed`); the peak is then the largest block's, with all that is kept.
        lowered: whether it computes with a bfloat16 copy of its parameters (`fedbench.models.lowered`). The copy and
            its gradients are then there beside the float32 parameters and a float32 gradient of all that may train.

    Raises:
        ModelError: the module fails on a batch of the task's shape.
    """
    trained = {name for group in active for name in groups[group].parameters}

    def measure(copy: nn.Module, device: torch.device) -> int:
        for name, parameter in copy.named_parameters():
            parameter.requires_grad_(name in trained)
        active_parameters = [parameter for parameter in copy.parameters() if parameter.requires_grad]
        beside = optimizer_slots * nbytes(active_parameters)
        if lowered:
            members = {name for group in groups for name in group.parameters}
            beside += nbytes(parameter for name, parameter in copy.named_parameters() if name in members)
            beside += nbytes(rounded_tensors(copy))
            lower(copy)
        inputs, labels = example_inputs(task, batch_size, device), example_labels(task, batch_size, device)
        held = [*copy.parameters(), *copy.buffers(), inputs, labels]
        recomputed = [block for _, block in blocks(copy)] if checkpointed else []
        saved = saved_bytes(copy, inputs, labels, held, criterion_of(task.target), recomputed)
        return nbytes([*held, *active_parameters]) + beside + saved

    return probe(module, measure)


def saved_bytes(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    held: Sequence[Tensor],
    criterion: Criterion,
    recomputed: Sequence[nn.Module] = (),
) -> int:
    """Bytes of the distinct storages that a forward pass and its loss save for the backward pass, at their peak.

    Args:
        module: the network.
        inputs: a minibatch.
        labels: its labels.
        held: tensors whose storages are counted elsewhere, and left out here.
        criterion: the loss.
        recomputed: modules within it that keep their inputs alone. What they save is there for one of them at a time.
    """
    counted_elsewhere = {storage_key(tensor) for tensor in held}
    kept: dict[int, int] = {}
    within: list[dict[int, int]] = [{} for _ in recomputed]
    saving = [kept]  # The place of what is saved now: of the network, or of one of the modules.
    inputs_of: list[list[Tensor]] = []  # Of the modules that are being computed.
    alive: list[Tensor] = []  # The address of a freed storage could be reused by another.

    def pack(tensor: Tensor) -> Tensor:
        key = storage_key(tensor)
        if key not in counted_elsewhere and key not in saving[-1]:
            saving[-1][key] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    def enter(place: dict[int, int], module: nn.Module, arguments: object, keywords: object) -> None:
        inputs_of.append([tensor for tensor in tree_leaves((arguments, keywords)) if isinstance(tensor, Tensor)])
        saving.append(place)

    def leave(module: nn.Module, arguments: object, output: object) -> None:
        entered, computed = inputs_of.pop(), saving.pop()
        for tensor in entered if computed else ():  # of what is never computed again nothing is kept
            pack(tensor)

    for part, place in zip(recomputed, within, strict=True):
        part.register_forward_pre_hook(partial(enter, place), with_kwargs=True)
        part.register_forward_hook(leave)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        criterion(module(inputs), labels)
    largest = max((sum(size for key, size in place.items() if key not in kept) for place in within), default=0)
    return sum(kept.values()) + largest


def storage_key(tensor: Tensor) -> int:
    """A number that identifies a tensor's storage, on the meta device too, where every address is 0."""
    return int(tensor.untyped_storage()._cdata)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Total bytes of the tensors' elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
