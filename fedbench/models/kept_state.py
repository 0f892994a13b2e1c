"""What a network holds beside its trainable parameters: what of it travels, and what stays as it was built.

- Persistent float32 buffers travel beside the parameters: the running statistics of normalisation layers, and any
  other buffer that the module saves (class centres, a codebook, the vectors of spectral normalisation).
  `local.batchnorm` says whether they are averaged over clients or kept by each of them.
- Frozen parameters (`requires_grad=False`), persistent buffers of whole numbers or truth values (counters, masks), and
  persistent buffers with values that are not finite (attention masks) have the values that the network was built with.
  Each client starts from these, nothing of them is sent, and they are saved with the model; but for a frozen base
  (`fedbench.models.frozen_base`), whose SHA-256 stands for it.
- Buffers that the module does not save start from their first values with each client, too.

What a network changes while it is scored is put back after each minibatch. Tensors that have several names, or share
memory, are told of in `fedbench.models.shared_tensors`.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm, _NormBase
from torch.nn.parameter import is_lazy

from fedbench.errors import ModelError
from fedbench.models.frozen_base import base_parameters

RUNNING_STATISTICS = ("running_mean", "running_var")
"""Buffers of a normalisation layer whose mean over clients has a meaning."""


class UnsynchronisedBatchNorm(_BatchNorm):
    """`nn.SyncBatchNorm` in a single process, where there is nobody to synchronise with: batch normalisation."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")


def check_module(name: str, module: nn.Module) -> None:
    """Make a freshly built module fit for one process, and refuse what could not be trained or saved rightly.

    Layers of `nn.SyncBatchNorm` become batch normalisation over the client's minibatch, in place.

    Args:
        name: the model's name, for the message.
        module: the network.

    Raises:
        ModelError: parameters without a shape, parameters or persistent buffers of another type than float32, or state
            that is neither a parameter nor a buffer.
    """
    owner = f"model.name={name}"
    for path, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise ModelError(f"{owner}: parameter {path!r} has no shape before the first batch; use layers with sizes")
        if parameter.dtype != torch.float32:
            raise ModelError(f"{owner}: parameter {path!r} is {parameter.dtype}, float32 is needed")
    for path, buffer in persistent_buffers(module):
        if (buffer.is_floating_point() or buffer.is_complex()) and buffer.dtype != torch.float32:
            raise ModelError(
                f"{owner}: buffer {path!r} is {buffer.dtype}, float32 is needed, or persistent=False for a constant"
            )
    for path, layer in module.named_modules():
        if type(layer).get_extra_state is not nn.Module.get_extra_state:
            raise ModelError(
                f"{owner}: {path or type(layer).__name__!r} keeps state of its own form (get_extra_state), which "
                "clients cannot send; register it as buffers"
            )
        if type(layer) is SyncBatchNorm:
            layer.__class__ = UnsynchronisedBatchNorm  # type: ignore[assignment]


def persistent_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, buffer) of every buffer that the module saves; one that several layers share comes once."""
    seen: set[int] = set()
    for path, layer in module.named_modules():
        prefix = f"{path}." if path else ""
        for leaf, buffer in layer._buffers.items():
            if buffer is None or leaf in layer._non_persistent_buffers_set or id(buffer) in seen:
                continue
            seen.add(id(buffer))
            yield prefix + leaf, buffer


def travels(buffer: Tensor) -> bool:
    """Whether a persistent buffer is sent: float values, all finite, so that clients' updates can be added up."""
    if not buffer.is_floating_point() or buffer.numel() == 0:
        return False
    return buffer.is_meta or bool(torch.isfinite(buffer).all())


def unknown_under_averaging(module: nn.Module) -> list[str]:
    """The names of the buffers that travel and are no running statistics of a normalisation layer."""
    return [
        name
        for name, buffer in persistent_buffers(module)
        if travels(buffer)
        and not (
            name.endswith(RUNNING_STATISTICS) and isinstance(module.get_submodule(name.rpartition(".")[0]), _NormBase)
        )
    ]


def constant_tensors(module: nn.Module) -> dict[str, npt.NDArray[np.generic]]:
    """{name: values} of what a saved model holds beside what travels: see the module's docstring."""
    base = base_parameters(module)
    tensors: dict[str, Tensor] = {
        name: parameter
        for name, parameter in module.named_parameters()
        if not parameter.requires_grad and name not in base
    }
    for name, buffer in persistent_buffers(module):
        if not travels(buffer):
            tensors[name] = buffer
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}
