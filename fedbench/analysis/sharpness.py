"""The sharpness of a loss at a model: the largest eigenvalue of its Hessian, by curvlinops and SciPy's eigsh."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedbench.analysis.second_derivatives import differentiable_twice
from fedbench.components.optional_library import optional_library
from fedbench.randomness import generator

Batches = Sequence[tuple[Tensor, Tensor]]
"""(inputs as the network takes them, labels int64 [B]) of each minibatch."""

Values = npt.NDArray[np.float64]

TOLERANCE = 1e-3
"""Relative accuracy of the eigenvalue, which float32 products allow."""

EXTRA = "analysis"


def check_sharpness_library() -> None:
    """Check that curvlinops is installed.

    Raises:
        ConfigError: it is not; one line with the command that brings it.
    """
    with optional_library(EXTRA, "the sharpness (--no-sharpness leaves it out)"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a library that curvlinops imports
        import curvlinops  # noqa: F401


def largest_eigenvalue(
    module: nn.Module,
    batches: Batches,
    seed: int,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> float:
    """The largest eigenvalue of the Hessian of the mean loss over all samples, in the parameters that train.

    Args:
        module: the network, in evaluation mode, so that samples do not depend on each other.
        batches: the samples.
        seed: of the vector that the iteration starts from.
        loss: an `nn.Module` of PyTorch with reduction "mean"; None: the cross-entropy.

    Raises:
        ConfigError: curvlinops is not installed.
    """
    with optional_library(EXTRA, "the sharpness (--no-sharpness leaves it out)"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a library that curvlinops imports
        from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import LinearOperator, eigsh

    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    of_loss = nn.CrossEntropyLoss() if loss is None else loss
    hessian = HessianLinearOperator(module, of_loss, parameters, list(batches), check_deterministic=False)
    size = sum(parameter.numel() for parameter in parameters)
    if size <= 2:  # Lanczos' method needs more dimensions than eigenvalues that are asked for
        with differentiable_twice(module):
            dense = np.stack([_product(hessian, column) for column in np.eye(size)])
        return float(np.linalg.eigvalsh(dense)[-1])
    operator = LinearOperator((size, size), matvec=partial(_product, hessian), dtype=np.float64)
    start = generator(seed, "sharpness").standard_normal(size)
    with warnings.catch_warnings(), differentiable_twice(module):
        warnings.simplefilter("ignore")  # PyTorch's, on operators that are slower than they could be
        (value,) = eigsh(operator, k=1, which="LA", tol=TOLERANCE, v0=start, return_eigenvectors=False)
    return float(value)


def _product(hessian: Any, vector: Values) -> Values:
    """H v in float64."""
    product: Values = (hessian @ torch.from_numpy(np.asarray(vector, np.float32).ravel())).double().numpy()
    return product
