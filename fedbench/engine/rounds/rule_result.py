"""Checks of what a server rule returns, before it replaces the global values."""

import math
from collections.abc import Mapping

import numpy as np

from fedbench.algorithms.base import Values
from fedbench.errors import FedbenchError, RunError
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


def checked_weights(weights: object, clients: int, name: str, error: type[FedbenchError] = RunError) -> Values:
    """The clients' weights that a rule returned, scaled to sum 1.

    Args:
        weights: what `ServerRule.client_weights` returned.
        clients: k, the number of clients.
        name: the rule, for an error message.
        error: the kind of error: a `ConfigError` before a run, a `RunError` within it.

    Raises:
        FedbenchError: they are not k finite numbers, or one is below 0, or all are 0.
    """
    numbers = isinstance(weights, np.ndarray) and weights.shape == (clients,) and weights.dtype.kind == "f"
    values: Values = np.asarray(weights if numbers else np.nan, np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
        needed = f"{clients} numbers are needed, none below 0, not all 0"
        raise error(f"{name}.client_weights returned {weights!r}; {needed}")
    scaled: Values = values / values.sum()
    return scaled


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
