"""Cost as the FedPart paper counts it, from layer shapes alone.

H. Wang, X. Liu, J. Niu, W. Guo, S. Tang, "Why Go Full? Elevating Federated Learning Through Partial Network
Updates", NeurIPS 2024, arXiv 2410.11559, Table 1, columns Comm. and Comp. The paper does not spell the counting
out; these rules and constants reproduce 51 of the table's 56 printed cells, and explain the other five as
misprints. What training really costs is another figure: `fedbench.accounting.flops`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from fedbench.models.adapters import is_linear
from fedbench.models.base import Task
from fedbench.models.networks.transformer import SelfAttention
from fedbench.models.probe import example_inputs, probe

# Table 1, Comm.: float32 parameters, in units of 10^6 bytes, of which 1,024 make a "GB".
BYTES_PER_PARAMETER = 4
BYTES_PER_MB = 10**6
MB_PER_GB = 1024

# Table 1, Comp.: a backward pass counts as two forward passes, and a partial round as 2/3 of a full one
# whichever group it trains (one forward pass and half a backward pass).
PASSES_PER_FULL_STEP = 3
PASSES_PER_PARTIAL_STEP = 2
MACS_PER_TERA = 10**12

# Table 1, Comp.: BatchNorm counts four operations for each element of its output, and adaptive average pooling
# its kernel's area and a division; max-pools and activations count nothing.
NORMALISATION_OPERATIONS = 4
POOLING_DIVISION = 1


Rule = Callable[[nn.Module, Tensor, Tensor], int]
"""Cost of a layer: a function from (layer, first input, output) to the multiply-accumulates of the whole batch."""


def forward_macs(module: nn.Module, task: Task) -> int:
    """Multiply-accumulates of one sample's forward pass, by the paper's rules.

    ResNet-8 at 32x32x3 with 10 classes has 14,606,080. The paper's models are convolutional; counting LayerNorm,
    GroupNorm, InstanceNorm and RMSNorm as BatchNorm, attention as its four projections and two matrix products, and
    recurrent layers as all of their weights for each token, is this project's extension in the same spirit. Other
    layers and functions count nothing.

    Args:
        module: the network; copied, never changed.
        task: the learning task, which has the shape of the data.

    Raises:
        ModelError: the module fails on a batch of the task's shape.
    """
    return probe(module, lambda copy, device: count(copy, task, device))


def count(module: nn.Module, task: Task, device: torch.device) -> int:
    """Multiply-accumulates of one sample's forward pass, counted by hooks that are left on `module`.

    Args:
        module: a copy of the network, in training mode.
        task: the learning task, which has the shape of the data.
        device: where the copy lies.
    """
    batch_size = 2  # BatchNorm over 1x1 maps cannot train on one sample.
    total = 0

    def hook(rule: Rule) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor], object], None]:
        def add(child: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor], output: object) -> None:
            nonlocal total
            first_input = inputs[0] if inputs else next(iter(keywords.values()))
            first_output = output[0] if isinstance(output, tuple) else output
            assert isinstance(first_output, Tensor)
            total += rule(child, first_input, first_output)

        return add

    for child in module.modules():
        rule = next((rule for kinds, rule in RULES if isinstance(child, kinds)), None)
        if rule is None and is_linear(child):
            rule = linear
        if rule is not None:
            child.register_forward_hook(hook(rule), with_kwargs=True)
    module(example_inputs(task, batch_size, device))
    return total // batch_size


def convolution(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Per output element, kernel area x input channels of one group; the bias is left out."""
    assert isinstance(module, _ConvNd)
    return output.numel() * math.prod(module.kernel_size) * module.in_channels // module.groups


def transposed_convolution(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Per input element, kernel area x output channels of one group; the bias is left out."""
    assert isinstance(module, _ConvNd)
    return inputs.numel() * math.prod(module.kernel_size) * module.out_channels // module.groups


def linear(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Per output element, the number of input features; the bias is left out."""
    return output.numel() * inputs.shape[-1]


def normalisation(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Per output element, four operations."""
    return NORMALISATION_OPERATIONS * output.numel()


def adaptive_average_pool(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """Per output element, the area of its kernel and one division."""
    spatial_dimensions = output.dim() - 2
    area = math.prod(inputs.shape[-spatial_dimensions:]) // math.prod(output.shape[-spatial_dimensions:])
    return (area + POOLING_DIVISION) * output.numel()


def attention_products(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """The two matrix products of self-attention on [N, L, E]: 2 N L^2 E; its projections count as linear layers."""
    samples, length, width = inputs.shape
    return 2 * samples * length * length * width


def torch_attention(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """PyTorch's self-attention on [N, L, E]: 4 N L E^2 for its projections, 2 N L^2 E for its two products.

    The projections count here because PyTorch does not call them as layers.
    """
    assert isinstance(module, nn.MultiheadAttention)
    width = int(module.embed_dim)  # E
    tokens = inputs.numel() // width  # N L
    length = inputs.shape[-2] if module.batch_first or inputs.dim() == 2 else inputs.shape[0]
    return 4 * tokens * width * width + 2 * tokens * length * width


def recurrent(module: nn.Module, inputs: Tensor, output: Tensor) -> int:
    """PyTorch's recurrent layers on [N, L, E] or [L, E]: all of their weights for each token; biases are left out."""
    assert isinstance(module, nn.RNNBase)
    weights = sum(parameter.numel() for name, parameter in module.named_parameters() if name.startswith("weight"))
    return inputs.numel() // module.input_size * weights


# The first rule whose classes a layer belongs to counts it.
RULES: tuple[tuple[tuple[type[nn.Module], ...], Rule], ...] = (
    ((_ConvTransposeNd,), transposed_convolution),
    ((_ConvNd,), convolution),
    ((nn.Linear,), linear),
    ((_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), normalisation),
    ((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), adaptive_average_pool),
    ((SelfAttention,), attention_products),
    ((nn.MultiheadAttention,), torch_attention),
    ((nn.RNNBase,), recurrent),
)


def round_comm_gb(learnable_parameters: int, clients: int) -> float:
    """Comm. of one round in the paper's "GB": the uplink of all clients, running statistics left out.

    Args:
        learnable_parameters: number of parameters in the groups that train in this round.
        clients: number of clients of the round.
    """
    # Table 1, Comm.
    return clients * learnable_parameters * BYTES_PER_PARAMETER / BYTES_PER_MB / MB_PER_GB


def round_comp_tflop(macs: int, samples: int, epochs: float, partial: bool) -> float:
    """Comp. of one round for one client, in 10^12 multiply-accumulates (the paper's "TFLOP").

    Args:
        macs: `forward_macs` of the model, for one sample.
        samples: training samples of one client.
        epochs: local epochs.
        partial: whether some groups are frozen; such a round counts exactly 2/3 of a full one.
    """
    # Table 1, Comp.
    passes = PASSES_PER_PARTIAL_STEP if partial else PASSES_PER_FULL_STEP
    return macs * passes * samples * epochs / MACS_PER_TERA
