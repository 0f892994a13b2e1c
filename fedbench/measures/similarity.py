"""Similarity of what two models compute of the same samples: linear centered kernel alignment (CKA)."""

import math

import torch
from torch import Tensor

FEWEST_SAMPLES = 4
"""Samples that the unbiased estimate needs at least."""


FEATURES_AT_A_TIME = 1 << 13
"""Features whose products are summed at a time, so that their float64 copies take little memory."""


def centred_gram(features: Tensor) -> Tensor:
    """X X^T of the features less their means, float64 [n, n].

    Args:
        features: [n, p], n samples, with the features in any order.
    """
    gram = torch.zeros(len(features), len(features), dtype=torch.float64, device=features.device)
    for piece in torch.split(features, FEATURES_AT_A_TIME, dim=1):
        exact = piece.double()
        exact -= exact.mean(dim=0)
        gram += exact @ exact.T
    return gram


def cka_of_grams(first: Tensor, second: Tensor) -> float:
    """Linear CKA from the centred Gram matrices of two sets of features of the same samples; see `linear_cka`.

    Args:
        first, second: float64 [n, n], n at least 4.
    """
    from cka import hsic

    between, within_first, within_second = (float(value) for value in hsic(first[None], second[None]))
    if within_first <= 0 or within_second <= 0:
        return float("nan")
    return min(1.0, max(0.0, between / math.sqrt(within_first * within_second)))


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of two sets of features of the same samples.

    1 where they are equal up to rotation, isotropic scaling and shift, near 0 where they are independent (Kornblith,
    Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019). It is the estimate from
    the unbiased HSIC (Nguyen, Raghu, Kornblith, ICLR 2021), as pytorch-cka computes it, which, unlike the plain one,
    does not approach 1 where there are more features than samples. Estimates below 0 are given as 0.

    Args:
        first: [n, p], n samples of at least 4.
        second: [n, q].

    Returns:
        0..1; NaN where a set of features does not vary.
    """
    return cka_of_grams(centred_gram(first), centred_gram(second))
