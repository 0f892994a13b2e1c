"""Checks of what a server rule returns, before it replaces the global values."""

import math
from collections.abc import Mapping

import numpy as np

from fedbench.algorithms.base import Values
from fedbench.errors import RunError
from fedbench.protocol.layout import Vector


def checked(after: object, before: Values, name: str) -> Vector:
    """The array that a rule returned, checked and rounded to float32.

    Args:
        after: the rule's return value.
        before: float64 [n], the values that the rule was given.
        name: the round and the rule, for an error message.

    Raises:
        RunError: it is not a float array of shape [n], or has values that are not finite.
    """
    shape = after.shape if isinstance(after, np.ndarray) else type(after).__name__
    if not isinstance(after, np.ndarray) or after.shape != before.shape or after.dtype.kind != "f":
        dtype = f" of {after.dtype}" if isinstance(after, np.ndarray) else ""
        raise RunError(f"{name} returned {shape}{dtype}; it must return float64 {before.shape}, as it was given")
    with np.errstate(over="ignore"):
        rounded = after.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise _not_finite(name, "not finite" if not np.isfinite(after).all() else "beyond the range of float32")
    return rounded


def check_norms(norms: Mapping[int, float], name: str) -> None:
    """Check averages by the norms of their changes.

    Args:
        norms: {group: L2 norm of the change}.
        name: the round and the rule, for an error message.

    Raises:
        RunError: a norm is not finite: a finite sum has led to values beyond the range of float32.
    """
    if not all(map(math.isfinite, norms.values())):
        raise _not_finite(name, "beyond the range of float32")


def _not_finite(name: str, why: str) -> RunError:
    return RunError(f"{name} returned values that are {why}; lower its learning rate, or look at the rule")
