"""Kernels that can be differentiated twice: the fastest ones of attention and of LSTM layers on a CPU cannot."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def differentiable_twice(module: nn.Module) -> Iterator[None]:
    """Context in which a network's forward pass, and the derivative of its gradient, use kernels that have both.

    PyTorch's fused attention has no second derivative, oneDNN's LSTM no forward derivative, and cuDNN's recurrent
    layers have no derivative at all in evaluation mode. Networks without these layers compute as they do outside.

    Args:
        module: the network.
    """
    is_recurrent = any(isinstance(layer, nn.RNNBase) for layer in module.modules())
    on_cpu = torch.backends.mkldnn.flags(enabled=False) if is_recurrent else nullcontext()
    on_gpu = torch.backends.cudnn.flags(enabled=False, allow_tf32=False) if is_recurrent else nullcontext()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")  # PyTorch's, of GPUs that are not there
        with sdpa_kernel(SDPBackend.MATH), on_cpu, on_gpu:
            yield
