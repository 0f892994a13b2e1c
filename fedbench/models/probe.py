"""Trying out a copy of a network on PyTorch's meta device, where shapes are computed and values are not."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from fedbench.errors import FedbenchError, ModelError
from fedbench.models.base import Task
from fedbench.models.uncompiled import without_compiler

Result = TypeVar("Result")


def example_inputs(task: Task, batch_size: int, device: torch.device) -> Tensor:
    """A batch of the task's shape.

    Zeros, float32 [N, C, H, W] for images and [N, ...] for arrays; valid token ids, int64 [N, L], for text.
    """
    if task.kind == "image":
        height, width, channels = task.input_shape
        return torch.zeros(batch_size, channels, height, width, device=device)
    if task.kind == "array":
        return torch.zeros(batch_size, *task.input_shape, device=device)
    tokens = torch.arange(task.input_shape[0], device=device) % task.vocabulary_size
    return tokens.expand(batch_size, -1).contiguous()


def example_labels(task: Task, batch_size: int, device: torch.device) -> Tensor:
    """Labels of the task, all 0, in the shape and type of `fedbench.tasks.kinds.TASKS`."""
    match task.target:
        case "classification":
            return torch.zeros(batch_size, dtype=torch.int64, device=device)
        case "regression":
            return torch.zeros(batch_size, task.classes, device=device)
        case "multilabel":
            return torch.zeros(batch_size, task.classes, dtype=torch.uint8, device=device)
        case "next_token":
            return torch.zeros(batch_size, *task.input_shape, dtype=torch.int64, device=device)
        case "segmentation":
            return torch.zeros(batch_size, *task.output_shape[1:], dtype=torch.uint8, device=device)


def training_copy(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy of `module` on `device` in training mode; tied parameters are still tied, frozen ones still frozen.

    On the meta device no values are copied, so that the size of the network does not matter.
    """
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(moved(parameter, device), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = moved(buffer, device)
    for layer in module.modules():
        # Weights that a hook computes before each call (pruning, weight normalisation) are plain attributes.
        for value in vars(layer).values():
            if isinstance(value, Tensor):
                memo[id(value)] = moved(value, device)
    return copy.deepcopy(module, memo).train()


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of a tensor on `device` with the same strides, outside the autograd graph."""
    if device.type == "meta":
        return torch.empty_like(tensor, device=device, requires_grad=False)
    return tensor.detach().to(device, copy=True)


def probe(module: nn.Module, measure: Callable[[nn.Module, torch.device], Result]) -> Result:
    """Apply `measure` to a training copy of `module`, on the meta device or, if that fails, on the CPU.

    A network that reads values (`Tensor.item`, branches on data) cannot run on the meta device. The global random state
    is not changed.

    Args:
        module: the network, which is not changed.
        measure: called with the copy and its device.

    Returns:
        What `measure` returned.

    Raises:
        ModelError: the network fails on the CPU, too.
    """
    meta = torch.device("meta")
    try:
        with without_compiler():
            return measure(training_copy(module, meta), meta)
    except FedbenchError:
        raise
    except Exception:
        pass
    cpu = torch.device("cpu")
    try:
        with torch.random.fork_rng(devices=[]):
            return measure(training_copy(module, cpu), cpu)
    except FedbenchError:
        raise
    except Exception as error:
        reason = (str(error).strip() or repr(error)).split("\n")[0]
        raise ModelError(
            f"{type(module).__name__}: a training step on a batch of the data's shape fails: {reason}"
        ) from error


def trains_on(module: nn.Module, task: Task, batch_size: int) -> bool:
    """Whether the network takes a minibatch of `batch_size` samples in training mode."""
    try:
        probe(module, lambda copy, device: copy(example_inputs(task, batch_size, device)))
    except ModelError:
        return False
    return True
