"""Client-level differential privacy: clipping, Gaussian noise, and the resulting guarantee.

H. B. McMahan, D. Ramage, K. Talwar, L. Zhang, "Learning Differentially Private Recurrent Language Models", ICLR 2018
(arXiv 1710.06963), DP-FedAvg, which takes the moments accountant of M. Abadi et al., "Deep Learning with Differential
Privacy", CCS 2016 (arXiv 1607.00133) from examples to clients. A round with a cohort of m clients, clipping norm S and
noise multiplier z is the Gaussian mechanism

    Delta <- (1/m) (sum_k clip(Delta_k, S) + N(0, (z S)^2 I)),

that is, noise of standard deviation z S / m on a uniform mean. It may be drawn in shares, z S / sqrt(m) by each client,
where nobody sees single updates. What is private is a *client*: two populations are neighbours when one has one client,
with all its samples, more than the other. For the guarantee

- an update must be clipped whole: all that a client sends, so also running statistics and further channels;
- m must be the planned size of the cohort, not the number of updates that arrived, and with shares all must arrive;
- with weights w_k (summing to 1) in place of 1/m, the noise must be z S max_k w_k, and the weights must not depend on
  the data;
- between clipping and the sum nothing may happen to single updates but adding noise: a factor of a method's own
  multiplies what a client can change, error feedback adds to an update what was clipped in other rounds, and after
  lossy compression shares of noise no longer add up to a Gaussian;
- every value must be summed over the whole cohort: where clients train different layer groups, the sum of a group has
  fewer shares of noise, and the largest part that one client can have in it is the same.

`noise_over_sensitivity` states, for any weights, factors and layer groups, the multiplier that really counts, and
`fedbench.experiment.privacy` refuses every run in which it is not z in each round. Private is the model; the training
losses and scores that a run records beside it are computed without noise.

Honest limits. The accountant assumes Poisson sampling: each client takes part in a round with probability q,
independently of the others. Here a round draws exactly m of N clients, and q = m/N is put in its place, as is usual in
simulations; so for m < N the epsilon is an estimate and not a proven bound (Y.-X. Wang, B. Balle,
S. Kasiviswanathan, AISTATS 2019, arXiv 1808.00087 prove bounds for cohorts of fixed size, with neighbours that differ
in the replacement of one client). With m = N nothing is sampled and this assumption does not enter. Noise from a seeded
generator, in floating point, is for experiments: whoever knows the seed can draw it again.
"""

import importlib
import math
import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fedbench.errors import ConfigError
from fedbench.protocol.layout import Vector

_ROUNDING_MARGIN = 1 - 2.0**-23
"""Factor on a clipped update, so that rounding to float32 does not carry its norm beyond S."""


def clip(update: Vector, norm: float) -> Vector:
    """Scale an update down to an L2 norm of at most `norm`: clip(u, S) = u min(1, S / |u|).

    An update within the norm is returned as it is. A longer one ends at S (1 - 2**-23), so that rounding to float32
    does not carry it beyond S. An update that is not finite stays so.

    Args:
        update: float32 [n], u, the whole update; not changed.
        norm: S, the clipping norm.
    """
    # |u|, without np.linalg.norm: a BLAS may add in another order on another machine.
    length = float(np.sqrt(np.square(update, dtype=np.float64).sum()))
    if length <= norm:
        return update
    # u S / |u|
    return (update * np.float64(norm / length * _ROUNDING_MARGIN)).astype(np.float32)


def gaussian_noise(size: int, std: float, rng: np.random.Generator) -> Vector:
    """float32 [size], independent draws of N(0, std^2); `std` is z S / sqrt(m) where each of m clients adds a share."""
    noise = rng.standard_normal(size, dtype=np.float32)
    noise *= np.float32(std)
    return noise


def noise_over_sensitivity(
    noise_std: float, clip_norm: float, factors: Sequence[float], groups: Sequence[Sequence[int]]
) -> float:
    """The noise of a round's sums over the largest part that one client can have in them: the z of the mechanism.

    Client k adds f_k (clip(Delta_k, S) + n_k), n_k ~ N(0, sigma^2 I), to the sum of each layer group in G_k. With K_g
    the clients that train group g, the sum of the group has noise of standard deviation

        sigma_g = sigma sqrt(sum_{k in K_g} f_k^2),

    and in units of this noise the L2 norm of what client k adds to all sums is at most S f_k / min_{g in G_k} sigma_g.
    The result is the least min_{g in G_k} sigma_g / (S f_k) over the clients. A factor that the server applies to the
    sum of a group afterwards changes noise and sensitivity alike.

    Args:
        noise_std: sigma, standard deviation of the noise that a client adds to each value of its clipped update.
        clip_norm: S, the largest L2 norm of a clipped update, over all groups that the client trains.
        factors: for each participant, f_k: its weight, times the method's further factor on its update.
        groups: for each participant, G_k: the layer groups that it trains.

    >>> noise_over_sensitivity(0.5, 1.0, [0.25] * 4, [(0, 1)] * 4)  # sigma = z S / sqrt(m) with z = 1, m = 4
    1.0
    >>> noise_over_sensitivity(0.5, 1.0, [0.25] * 4, [(0,), (1,), (0,), (1,)])
    0.7071067811865476
    """
    squares: dict[int, float] = defaultdict(float)
    for factor, trained in zip(factors, groups, strict=True):
        for group in trained:
            squares[group] += factor**2  # sum_{k in K_g} f_k^2
    return min(
        noise_std * math.sqrt(min(squares[group] for group in trained)) / (clip_norm * factor)
        for factor, trained in zip(factors, groups, strict=True)
    )


def epsilon(noise_multiplier: float, sample_rate: float, rounds: int, delta: float) -> float:
    """The epsilon of (epsilon, delta)-differential privacy after some rounds, by Opacus' `RDPAccountant`.

    It adds up, over the rounds, the Renyi differential privacy of the Poisson-sampled Gaussian mechanism (I. Mironov,
    K. Talwar, L. Zhang, 2019, arXiv 1908.10530). The module's docstring says what that assumes, and where it differs
    from the cohorts here.

    Args:
        noise_multiplier: z, the noise on the sum of clipped updates over their norm; 0 gives infinity.
        sample_rate: q in (0, 1], the fraction of clients that take part in a round.
        rounds: number of rounds; 0 gives an epsilon of 0.
        delta: delta, in (0, 1), usually less than 1/N.

    Raises:
        ConfigError: Opacus is not installed.
    """
    try:
        accountants = importlib.import_module("opacus.accountants")
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"epsilon needs Opacus, which cannot be imported ({reason}): pip install opacus") from None
    accountant = accountants.RDPAccountant()
    for _ in range(rounds):
        accountant.step(noise_multiplier=noise_multiplier, sample_rate=sample_rate)
    with warnings.catch_warnings():
        # At the end of its range of orders the bound holds and may be loose, which no setting here could change.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        return float(accountant.get_epsilon(delta=delta))
