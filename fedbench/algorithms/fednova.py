"""FedNova: J. Wang, Q. Liu, H. Liang, G. Joshi, H. V. Poor, "Tackling the Objective Inconsistency Problem in
Heterogeneous Federated Optimization", NeurIPS 2020 (arXiv 2007.07481), Section 4, normalised averaging.

Participant i with weight p_i = n_i / n takes tau_i local steps from x and arrives at x + delta_i. Its normalised
gradient is d_i = G_i a_i / ||a_i||_1, where G_i holds the gradients of its steps and a_i how often each counts in
delta_i = -lr G_i a_i. The server takes

    x <- x - tau_eff sum_i p_i lr d_i,        tau_eff = sum_i p_i ||a_i||_1.

For plain SGD a_i = [1, ..., 1] and ||a_i||_1 = tau_i, so that with Delta_i = delta_i / tau_i = -lr d_i

    x <- x + tau_eff sum_i p_i delta_i / tau_i,        tau_eff = sum_i p_i tau_i:

This is FedAvg with each update scaled by tau_eff / tau_i. FedAvg itself would weigh client i's gradient by p_i tau_i,
and so minimise another sum of the clients' losses than sum_i p_i F_i. Equal steps give factors of exactly 1, hence
FedAvg bit for bit. A weight decay is part of the gradient and changes nothing.

The p_i sum to 1, and tau_eff is taken, over the clients whose updates are averaged: those of the round that trained a
layer group and were accepted. So a client that is dropped at a deadline does not lengthen the step, and a layer group
that a single client trains takes the step of FedAvg.

Bytes: FedAvg's. With n parameters in the active groups and s running statistics (s = 0 where clients keep theirs), a
participant sends 4 (n + s) and receives 4 bytes for every value that changed since it last downloaded; the server
knows tau_i from the client's size.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from fedbench.algorithms.base import Algorithm
from fedbench.errors import ConfigError

REASON = "algorithm.name=fednova, which divides an update by its number of steps: each gradient must count once"


class FedNova(Algorithm):
    """Updates normalised by the number of local steps (Wang et al., NeurIPS 2020)."""

    paper: ClassVar[str] = "Wang et al., NeurIPS 2020, arXiv 2007.07481"
    refuses: ClassVar[str] = (
        "optimizers other than sgd without momentum; "
        "rules that do not look at the mean alone (fedexp, median, trimmed-mean, fedmr)"
    )
    name: str = "fednova"

    def scales(self, weights: Sequence[float], steps: Sequence[int]) -> tuple[float, ...]:
        """For each participant tau_eff / tau_i; tau_i counts as 1 for a client without a step, whose update is zero."""
        return tuple(_scale(tau_i, weights, steps) for tau_i in steps) if any(steps) else (1.0,) * len(steps)

    def check(self, config: Any) -> None:
        optimizer = config.local.optimizer
        if not optimizer.is_sgd:
            raise ConfigError(f"local.optimizer.name={optimizer.name}: must be sgd with {REASON}")
        if optimizer.momentum:
            raise ConfigError(f"local.optimizer.momentum={optimizer.momentum}: must be 0 with {REASON}")


def _scale(tau_i: int, weights: Sequence[float], steps: Sequence[int]) -> float:
    """The factor tau_eff / max(tau_i, 1).

    For tau_i > 0 it is computed as 1 + sum_j p_j (tau_j - tau_i) / tau_i, which is the same for weights that sum to 1,
    and exactly 1 for equal steps however the weights were rounded.
    """
    if not tau_i:
        return math.fsum(p_j * tau_j for p_j, tau_j in zip(weights, steps, strict=True))
    return 1.0 + math.fsum(p_j * (tau_j - tau_i) for p_j, tau_j in zip(weights, steps, strict=True)) / tau_i
