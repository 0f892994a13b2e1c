"""Preparing a batch of stored pixels for a network: augmentation, scaling and normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from fedbench.data.augmentation import Augmentation


@dataclass(frozen=True)
class MinibatchDraws:
    """The source of the random parameters of several minibatches that are prepared as one batch.

    Attributes:
        rng: the generator.
        sizes: samples of the minibatches, which draw from it one after the other, as if each were prepared by itself.
    """

    rng: np.random.Generator
    sizes: Sequence[int]


def prepare(
    batch: torch.Tensor,
    augmentation: Augmentation | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    draws: np.random.Generator | MinibatchDraws | None,
) -> torch.Tensor:
    """Augment, scale to [0, 1] and normalise a batch of images.

    The random parameters are drawn with NumPy, and pixels are picked by index, so that the same generator
    gives the same pixels on every device.

    Args:
        batch: uint8 [B, H, W, C], contiguous; not changed.
        augmentation: the random changes; None: none.
        mean, std: mean and standard deviation per channel, in units of [0, 1]; both None: no normalisation.
        draws: the random parameters are drawn from it, as for one minibatch where it is a generator; not touched unless
            the augmentation is active.

    Returns:
        float32 [B, C, H, W] in channels_last memory format, on the batch's device.

    Raises:
        ValueError: an active augmentation without `draws`.
    """
    if augmentation is not None and augmentation.active:
        if draws is None:
            raise ValueError("an active augmentation needs a random generator")
        if augmentation.crop_border == "mean" and mean is not None and std is not None:
            _, shift = _scale_and_shift(mean, std, 1, batch.device)
            # A black pixel x = 0 is (x - mean) / std = shift once normalised, the mean itself is 0.
            return augment(_normalised(batch, mean, std), augmentation, draws, black=shift).permute(0, 3, 1, 2)
        batch = augment(batch, augmentation, draws)
    if mean is None or std is None:
        return batch.to(torch.float32).div_(255).permute(0, 3, 1, 2)
    return _normalised(batch, mean, std).permute(0, 3, 1, 2)


def _normalised(batch: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """(x / 255 - mean) / std, uint8 [B, H, W, C] -> float32 [B, H, W, C]."""
    scale, shift = _scale_and_shift(mean, std, batch.shape[2], batch.device)
    pixels = batch.to(torch.float32).flatten(2)
    return torch.addcmul(shift, pixels, scale, out=pixels).view(batch.shape)


def augment(
    batch: torch.Tensor,
    augmentation: Augmentation,
    draws: np.random.Generator | MinibatchDraws,
    black: torch.Tensor | None = None,
) -> torch.Tensor:
    """Flip, rotate and crop every image of a batch by its own random parameters.

    Args:
        batch: [B, H, W, C], stored pixels or normalised ones.
        augmentation: the random changes.
        draws: draws for each minibatch of size b, in this order and only for the changes that are switched on: flips
            [b], angles [b] (degrees, counter-clockwise), crop offsets [b, 2] (y, x).
        black: [C], a black pixel in the units of the batch, which fills what a rotation leaves open; None: zeros. The
            border of the crop is zeros.

    Returns:
        [B, H, W, C] of the batch's type.
    """
    channels = batch.shape[3]
    if not isinstance(draws, MinibatchDraws):
        draws = MinibatchDraws(draws, [len(batch)])
    flips, angles, offsets = _parameters(augmentation, draws)
    index = _source_index(batch, flips, angles, offsets, augmentation.crop)
    # Two pixels behind the last one, for indices that fall outside the image: by the rotation, and by the crop.
    outside = batch.new_zeros(2, channels)
    if black is not None:
        outside[0] = black
    pixels = torch.cat([batch.reshape(-1, channels), outside])
    return pixels.index_select(0, index.flatten()).view(batch.shape)


def _parameters(
    augmentation: Augmentation, draws: MinibatchDraws
) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.float64] | None, npt.NDArray[np.int64] | None]:
    """The flips, angles and crop offsets of all minibatches, one minibatch after the other; None: switched off."""
    rng = draws.rng
    flips: list[npt.NDArray[np.bool_]] = []
    angles: list[npt.NDArray[np.float64]] = []
    offsets: list[npt.NDArray[np.int64]] = []
    for size in draws.sizes:
        if augmentation.flip:
            flips.append(rng.random(size) < 0.5)
        if augmentation.rotate:
            angles.append(rng.uniform(-augmentation.rotate, augmentation.rotate, size))
        if augmentation.crop:
            offsets.append(rng.integers(0, 2 * augmentation.crop + 1, (size, 2)))
    return (
        np.concatenate(flips) if flips else None,
        np.concatenate(angles) if angles else None,
        np.concatenate(offsets) if offsets else None,
    )


def _source_index(
    batch: torch.Tensor,
    flips: npt.NDArray[np.bool_] | None,
    angles: npt.NDArray[np.float64] | None,
    offsets: npt.NDArray[np.int64] | None,
    padding: int,
) -> torch.Tensor:
    """The row of `batch.reshape(-1, C)` that each pixel of the result is taken from.

    B * H * W: from none, as the rotation leaves it open; B * H * W + 1: from none, as it is in the border of the crop.

    The changes are traced back from the last to the first: crop, rotation, flip.

    Returns:
        int64 [B, H, W].
    """
    count, height, width, _ = batch.shape
    device = batch.device
    y = torch.arange(height, device=device).view(1, height, 1)
    x = torch.arange(width, device=device).view(1, 1, width)
    in_crop = in_rotation = None
    if offsets is not None:
        shift = torch.from_numpy(offsets - padding).to(device)
        y, x = y + shift[:, 0].view(-1, 1, 1), x + shift[:, 1].view(-1, 1, 1)
        in_crop = _within(y, height) & _within(x, width)
    if angles is not None:
        y, x = _rotated(y, x, angles, height, width)
        in_rotation = _within(y, height) & _within(x, width)
    if flips is not None:
        flipped = torch.from_numpy(flips).to(device).view(-1, 1, 1)
        x = torch.where(flipped, width - 1 - x, x)
    first = torch.arange(count, device=device).view(-1, 1, 1) * (height * width)
    index = first + y * width + x
    if in_rotation is not None:
        index = torch.where(in_rotation, index, count * height * width)
    return index if in_crop is None else torch.where(in_crop, index, count * height * width + 1)


def _rotated(
    y: torch.Tensor, x: torch.Tensor, angles: npt.NDArray[np.float64], height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels (y, x) from which those of images turned counter-clockwise by `angles` (degrees) are taken."""
    # Sines from NumPy and separate operations in float64 round the same way on every device.
    radians = np.deg2rad(angles)
    cos = torch.from_numpy(np.cos(radians)).to(y.device).view(-1, 1, 1)
    sin = torch.from_numpy(np.sin(radians)).to(y.device).view(-1, 1, 1)
    down, right = y - (height - 1) / 2, x - (width - 1) / 2
    source_y = sin * right + cos * down + (height - 1) / 2
    source_x = cos * right - sin * down + (width - 1) / 2
    return source_y.round().to(torch.int64), source_x.round().to(torch.int64)


def _within(coordinate: torch.Tensor, size: int) -> torch.Tensor:
    return (coordinate >= 0) & (coordinate < size)


@lru_cache(maxsize=32)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and the shift with which x * scale + shift is the normalised x / 255, each float32 [W * C].

    The C values are repeated over a row of W pixels, because broadcasting over three numbers is several times slower
    than over a hundred.
    """
    scale = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32).repeat(width)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32).repeat(width)
    return scale.to(device), shift.to(device)
