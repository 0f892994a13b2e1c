"""Similarity of what two models compute of the same samples: linear centered kernel alignment (CKA)."""

from importlib.util import find_spec

from torch import Tensor

from fedbench.errors import ConfigError

FEWEST_SAMPLES = 4
"""Samples that the unbiased estimate needs at least."""


def check_cka_library() -> None:
    """Check that pytorch-cka is installed.

    Raises:
        ConfigError: it is not; the error has the command that brings it.
    """
    if find_spec("cka") is None:
        raise ConfigError(
            "CKA needs the package pytorch-cka, which is not installed: pip install 'fedbench-ray[analysis]' "
            "(from a checkout: pip install -e '.[analysis]')"
        )


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of two sets of features of the same samples.

    1 where they are equal up to rotation, isotropic scaling and shift, near 0 where they are independent (Kornblith,
    Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019). It is pytorch-cka's
    estimate from the unbiased HSIC (Nguyen, Raghu, Kornblith, ICLR 2021), which, unlike the plain one, does
    not approach 1 where there are more features than samples. Estimates below 0 are given as 0.

    Args:
        first: [n, p], n samples of at least 4, in any order of the features.
        second: [n, q].

    Returns:
        0..1; NaN where a set of features does not vary.
    """
    from cka import cka_from_features

    centred = [features.double() - features.double().mean(dim=0) for features in (first, second)]
    if any(not bool(features.any()) for features in centred):
        return float("nan")
    return float(cka_from_features(*centred))
