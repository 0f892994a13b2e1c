"""The step sizes for which the theorems state their rates, and the bound that follows from known constants.

With one local step a round, N clients, full participation and a mask S_t that is fixed before round t, smoothness gives

    E f(w_{t+1}) <= E f(w_t) - gamma E||S_t * grad f(w_t)||^2 + (L gamma^2 / 2) (E||S_t * grad f(w_t)||^2 + s_t^2 / N),

s_t^2 being the variance of a client's gradient within the mask. When each of M groups is masked once in a cycle, the
mean of s_t^2 over the cycle is sigma^2 / M. Summed over T rounds (whole cycles), with gamma <= 1 / L and
Delta = f(w_0) - min f,

    (1/T) sum_t E||S_t * grad f(w_t)||^2  <=  2 Delta / (gamma T) + L gamma sigma^2 / (M N),

which gamma = sqrt(2 Delta M N / (L sigma^2 T)) makes 2 sqrt(2 Delta L sigma^2 / (M N T)): the rate O(1 / sqrt(M N T))
of FedPart's Theorem 1 (arXiv 2410.11559, Appendix B), and for M = 1 FedAvg's O(1 / sqrt(N T)), with every constant.
Several local steps add terms of higher order in gamma, which are not part of this bound.
"""

import math
from dataclasses import dataclass, field

from fedbench.analysis.convergence.problems import KnownProblem

RATE = -0.5
"""The exponent of T, and of M and N, in the theorems' bounds."""


@dataclass(frozen=True)
class Constants:
    """What step sizes depend on.

    Attributes:
        gap: Delta = f(w_0) - min f.
        smoothness: L.
        variance: sigma^2.
        problem: the problem, where the three are known; None where they are estimated.
    """

    gap: float
    smoothness: float
    variance: float
    problem: KnownProblem | None = field(default=None, repr=False)


def round_step(*, gap: float, smoothness: float, variance: float, groups: int, clients: int, rounds: int) -> float:
    """gamma = min(1 / L, sqrt(2 Delta M N / (L sigma^2 T))).

    Args:
        gap: Delta.
        smoothness: L.
        variance: sigma^2.
        groups: M.
        clients: N.
        rounds: T.
    """
    return min(1 / smoothness, math.sqrt(2 * gap * groups * clients / (smoothness * variance * rounds)))


def round_bound(problem: KnownProblem, *, lr: float, groups: int, rounds: int) -> float:
    """2 Delta / (gamma T) + L gamma sigma^2 / (M N), for one local step a round and gamma = `lr` <= 1 / L."""
    noise = problem.smoothness * lr * problem.variance / (groups * problem.clients)
    return 2 * problem.gap / (lr * rounds) + noise


def arrival_step(
    *, gap: float, smoothness: float, variance: float, momentum: float, workers: int, arrivals: int
) -> float:
    """eta = (1 - beta) min(1 / (2 K L), sqrt(2 Delta / (L sigma^2 T))).

    OrMo's theorems (arXiv 2407.19234) hold for step sizes of this family, whose part that counts for large T falls as
    1 / sqrt(T); their constants are not repeated here. A gradient moves the parameters by eta / (1 - beta) in all.

    Args:
        gap: Delta.
        smoothness: L.
        variance: sigma^2.
        momentum: beta.
        workers: K.
        arrivals: T.
    """
    largest = 1 / (2 * workers * smoothness)
    return (1 - momentum) * min(largest, math.sqrt(2 * gap / (smoothness * variance * arrivals)))
