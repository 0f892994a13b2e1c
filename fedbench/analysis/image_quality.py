"""How near reconstructed images are to the originals."""

import numpy as np
import torch
from torch import Tensor

HIGHEST = 100.0
"""Decibels of images that are equal, whose PSNR is infinite."""

WINDOW, SMALL_WINDOW, SMALL = 1.5, 0.5, 22
"""Standard deviations of the Gaussian window of SSIM, in pixels: as published, and for images with a side below SMALL,
which that window (11 x 11) would not leave enough of."""


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """-10 log10 of the mean squared error of each image, in dB, at most `HIGHEST`.

    Args:
        images, originals: float32 [n, C, H, W] in [0, 1].

    Returns:
        float32 [n].
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    each: Tensor = peak_signal_noise_ratio(images, originals, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return each.clamp_max(HIGHEST)


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """The structural similarity of each image (Wang et al., 2004), 1 for equal ones; arguments and result as `psnr`."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    window = SMALL_WINDOW if min(images.shape[-2:]) < SMALL else WINDOW
    each = structural_similarity_index_measure(images, originals, sigma=window, data_range=1.0, reduction="none")
    assert isinstance(each, Tensor)
    return each.reshape(len(images))


def matched(images: Tensor, originals: Tensor) -> Tensor:
    """The images in the order in which they are nearest to the originals.

    What a message was computed from has no order: the images are assigned to the originals, each to one, so that the
    sum of the squared errors is smallest.

    Args:
        images, originals: float32 [n, C, H, W].
    """
    if len(images) == 1:
        return images
    from scipy.optimize import linear_sum_assignment

    errors = torch.cdist(originals.flatten(1).double(), images.flatten(1).double()).square()
    _, order = linear_sum_assignment(errors.cpu().numpy())
    return images[torch.from_numpy(np.asarray(order)).to(images.device)]


def mean_psnr(images: Tensor, originals: Tensor) -> float:
    """The mean PSNR of images matched to the originals, in dB."""
    errors = (matched(images, originals) - originals).square().mean((1, 2, 3))
    return float((-10 * errors.clamp_min(1e-10).log10()).mean())
