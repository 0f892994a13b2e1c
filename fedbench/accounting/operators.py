"""FLOPs of PyTorch's operators where its own counter has no formula, or a wrong one, and the operators left out."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

Shape = Sequence[int]

FLOPS_PER_MAC = 2
"""A multiply-accumulate is a multiplication and an addition."""


def convolution_backward(
    grad_output: Shape,
    inputs: Shape,
    weight: Shape,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    output_mask: Sequence[bool],
    **_: object,
) -> int:
    """Gradients of a convolution with respect to its input and its weight, each as many FLOPs as the forward pass.

    Every product of a weight and an input that the forward pass adds to an output is there once in each gradient, with
    the output's gradient in the place of one factor. `weight` is [C_out, C_in / groups, ...], transposed
    [C_in, C_out / groups, ...]. PyTorch's own formula takes the weight gradient for that of one group.
    """
    forward: int = conv_flop_count(inputs, weight, grad_output, transposed=transposed)  # type: ignore[arg-type]
    return forward * (bool(output_mask[0]) + bool(output_mask[1]))


def trilinear(
    first: Shape,
    second: Shape,
    third: Shape,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    *_: object,
    **__: object,
) -> int:
    """The sum over the dimensions `sumdim` of the product of three tensors, which `nn.Bilinear` and its gradients are.

    It counts as two products of tensors: the first two are multiplied and summed over the dimensions that the third
    does not have, and the result is multiplied by the third. A bilinear layer on [N, I] and [N, J] with O outputs thus
    has 2 N O J (I + 1) FLOPs.

    Args:
        first, second, third: shapes of the tensors.
        expand1, expand2, expand3: for each tensor, the dimensions of the product that it does not have.
        sumdim: the dimensions of the product that are summed over.
    """
    full = [
        _with_dimensions(shape, missing) for shape, missing in ((first, expand1), (second, expand2), (third, expand3))
    ]
    pair = [max(sizes) for sizes in zip(full[0], full[1], strict=True)]
    left = [1 if d in sumdim and d in expand3 else size for d, size in enumerate(pair)]
    whole = [max(sizes) for sizes in zip(left, full[2], strict=True)]
    return FLOPS_PER_MAC * (math.prod(pair) + math.prod(whole))


def _with_dimensions(shape: Shape, missing: Sequence[int]) -> list[int]:
    """The shape with a dimension of size 1 put in at each place that is missing."""
    sizes = list(shape)
    for place in sorted(missing):
        sizes.insert(place, 1)
    return sizes


def matrix_vector(matrix: Shape, vector: Shape, **_: object) -> int:
    """[m, n] times [n]."""
    return FLOPS_PER_MAC * math.prod(matrix)


def added_matrix_vector(added: Shape, matrix: Shape, vector: Shape, **_: object) -> int:
    """[m, n] times [n], added to a vector."""
    return matrix_vector(matrix, vector)


def inner_product(first: Shape, second: Shape, **_: object) -> int:
    """[n] times [n]."""
    return FLOPS_PER_MAC * math.prod(first)


def summed_matrix_products(added: Shape, first: Shape, second: Shape, **_: object) -> int:
    """[b, m, k] times [b, k, n], summed over b and added to a matrix."""
    return FLOPS_PER_MAC * math.prod(first) * second[-1]


def distances(first: Shape, second: Shape, *_: object, **__: object) -> int:
    """Distances of P points to R points in D dimensions, [..., P, D] and [..., R, D], as the products of all pairs.

    PyTorch computes them by a matrix product or pair by pair, as the number of points has it; both count the same.
    """
    batch = max(math.prod(first[:-2]), math.prod(second[:-2]))
    return FLOPS_PER_MAC * batch * first[-2] * second[-2] * first[-1]


def distances_backward(gradient: Shape, first: Shape, second: Shape, *_: object, **__: object) -> int:
    """The gradient of distances with respect to the first points."""
    return distances(first, second)


aten = torch.ops.aten
FORMULAS: dict[Any, Callable[..., int]] = {
    aten.convolution_backward: convolution_backward,
    aten._trilinear: trilinear,
    aten.mv: matrix_vector,
    aten.addmv: added_matrix_vector,
    aten.dot: inner_product,
    aten.vdot: inner_product,
    aten.addbmm: summed_matrix_products,
    aten._euclidean_dist: distances,
    aten._cdist_forward: distances,
    aten._cdist_backward: distances_backward,
}
"""What `FlopCounterMode` takes as `custom_mapping`: functions from the shapes of an operator's arguments to FLOPs."""

_WITHOUT_FORMULA = """
    linalg_cholesky_ex cholesky_solve cholesky_inverse linalg_eig linalg_eigvals _linalg_eigh _linalg_eigvals
    _linalg_det _linalg_slogdet _linalg_solve_ex _linalg_svd linalg_householder_product linalg_inv_ex linalg_lstsq
    linalg_ldl_factor_ex linalg_ldl_solve linalg_lu linalg_lu_factor_ex linalg_lu_solve linalg_matrix_exp linalg_pinv
    linalg_qr linalg_solve_triangular geqrf ormqr triangular_solve
    _fft_c2c _fft_c2r _fft_r2c
    mkldnn_rnn_layer mkldnn_rnn_layer_backward _cudnn_rnn _cudnn_rnn_backward _thnn_fused_lstm_cell _thnn_fused_gru_cell
    _native_multi_head_attention _transformer_encoder_layer_fwd
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
    _scaled_dot_product_fused_attention_overrideable _scaled_dot_product_fused_attention_overrideable_backward
    conv_tbc conv_tbc_backward mkldnn_linear _addmm_activation _grouped_mm _scaled_grouped_mm _int_mm
    _weight_int4pack_mm _weight_int8pack_mm _sparse_mm_reduce_impl _sparse_sparse_matmul _sparse_addmm hspmm sspaddmm
    sparse_sampled_addmm _pdist_forward _pdist_backward
"""
WITHOUT_FORMULA = frozenset(_WITHOUT_FORMULA.split())
"""PyTorch's operators that do matrix work, factorisations or transforms, and for which nobody states the FLOPs."""

OWN_NAMESPACES = frozenset({"aten", "prim", "prims", "profiler"})
"""Namespaces of PyTorch's own operators; those of other namespaces come from libraries, and may compute anything."""


class UncountedOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators that run within it and count nothing though they do matrix work, or may.

    It is entered before `counter`, so that it meets the operators that the counter has met, each in its final form.

    Attributes:
        names: of the operators, as "aten._fft_r2c".
    """

    supports_higher_order_operators = True

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()
        self._counted = counter.flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = getattr(func, "_overloadpacket", None)
        if packet is not None and packet not in self._counted:
            library, name = func.namespace, packet.__name__
            if name in WITHOUT_FORMULA or (library not in OWN_NAMESPACES and _takes_tensors(args, kwargs)):
                self.names.add(f"{library}.{name}")
        return func(*args, **(kwargs or {}))


def _takes_tensors(*arguments: object) -> bool:
    """Whether an operator computes on tensors; importing a library may ask it for its version, for instance."""
    return any(isinstance(value, torch.Tensor) for value in tree_leaves(arguments))


@contextmanager
def countable_kernels() -> Iterator[None]:
    """Has PyTorch compute recurrent layers and attention by plain matrix products, for as long as it is entered.

    The fused kernels of the CPU show the counter a single operator instead, which counts nothing.
    """
    fast_attention, one_dnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        torch.backends.mkldnn.enabled = one_dnn
