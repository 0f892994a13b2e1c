"""Linear CKA: 1 for equal and for rotated features, near 0 for independent ones, and as the formula has it."""

import math

import pytest
import torch

from fedbench.measures.similarity import FEATURES_AT_A_TIME, centred_gram, linear_cka

cka = pytest.importorskip("cka", reason="needs pytorch-cka")
FEATURES = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))


def test_equal_features_have_cka_1() -> None:
    assert linear_cka(FEATURES, FEATURES) == pytest.approx(1)


def test_rotated_scaled_and_shifted_features_have_cka_1() -> None:
    rotation, _ = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))
    assert linear_cka(FEATURES, 3 * FEATURES @ rotation + 100) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("width", [12, 1000])
def test_independent_features_are_near_0_even_where_there_are_more_of_them_than_samples(width: int) -> None:
    others = torch.randn(200, width, generator=torch.Generator().manual_seed(2))
    assert linear_cka(FEATURES, others) < 0.03


def test_features_that_do_not_vary_have_no_cka() -> None:
    assert math.isnan(linear_cka(FEATURES, torch.ones(200, 3)))


def test_features_are_summed_piece_by_piece() -> None:
    wide = torch.randn(9, 2 * FEATURES_AT_A_TIME + 5, generator=torch.Generator().manual_seed(3)) + 7
    exact = wide.double() - wide.double().mean(dim=0)
    assert torch.allclose(centred_gram(wide), exact @ exact.T)


def test_it_is_what_pytorch_cka_makes_of_centred_features() -> None:
    others = FEATURES[:, :5] ** 2
    centred = [features.double() - features.double().mean(dim=0) for features in (FEATURES, others)]
    assert linear_cka(FEATURES, others) == pytest.approx(float(cka.cka_from_features(*centred)))


def test_it_is_the_unbiased_estimate() -> None:
    """HSIC_1 of Song et al. (2012), term by term, for two Gram matrices without their diagonals."""
    others = FEATURES[:, :5] ** 2 + 0.1 * FEATURES[:, 5:10]

    def hsic(left: torch.Tensor, right: torch.Tensor) -> float:
        k, l = (x.double() @ x.double().T for x in (left, right))  # noqa: E741 - the letters of the paper
        k.fill_diagonal_(0)
        l.fill_diagonal_(0)
        n, ones = len(k), torch.ones(len(k), dtype=torch.float64)
        middle = (ones @ k @ ones) * (ones @ l @ ones) / (n - 1) / (n - 2)
        return float((torch.trace(k @ l) + middle - 2 / (n - 2) * (ones @ k @ l @ ones)) / n / (n - 3))

    expected = hsic(FEATURES, others) / math.sqrt(hsic(FEATURES, FEATURES) * hsic(others, others))
    assert linear_cka(FEATURES, others) == pytest.approx(expected, abs=1e-9)
