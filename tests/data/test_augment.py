"""Augmentation: batched index arithmetic against plain per-image statements and torchvision."""

import numpy as np
import pytest
import torch

from fedbench.data.augment import augment, prepare
from fedbench.data.augmentation import Augmentation

MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(1, 256, (16, 12, 10, 3), dtype=np.uint8))


class Scripted:
    """Stands where a generator does and gives the parameters it was told."""

    def __init__(
        self, flips: list[bool] | None = None, angles: list[float] | None = None, offsets: object = None
    ) -> None:
        self.flips, self.angles, self.offsets = flips, angles, offsets

    def random(self, count: int) -> np.ndarray:
        return np.where(self.flips, 0.0, 0.9)

    def uniform(self, low: float, high: float, count: int) -> np.ndarray:
        return np.array(self.angles, dtype=np.float64)

    def integers(self, low: int, high: int, shape: tuple[int, int]) -> np.ndarray:
        return np.array(self.offsets, dtype=np.int64)


def per_image(image: torch.Tensor, angle: float) -> torch.Tensor:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as reference

    turned = reference.rotate(image.permute(2, 0, 1), angle, interpolation=InterpolationMode.NEAREST, fill=0)
    return turned.permute(1, 2, 0)


def test_scaling_alone_equals_torchvisions_and_keeps_the_layout(batch: torch.Tensor) -> None:
    from torchvision.transforms.functional import to_tensor

    before = batch.clone()
    for augmentation in (None, Augmentation()):
        found = prepare(batch, augmentation, None, None, None)
        assert torch.equal(found, torch.stack([to_tensor(image) for image in batch.numpy()]))
        assert found.shape == (16, 3, 12, 10)
        assert found.dtype == torch.float32
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_equals_torchvisions(batch: torch.Tensor, channels: int) -> None:
    from torchvision.transforms.v2 import functional as reference

    pixels = batch[..., :channels].contiguous()
    found = prepare(pixels, None, MEAN[:channels], STD[:channels], None)
    scaled = reference.to_dtype(pixels.permute(0, 3, 1, 2), torch.float32, scale=True)
    torch.testing.assert_close(found, reference.normalize(scaled, list(MEAN[:channels]), list(STD[:channels])))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_grey_batch_and_a_view_of_a_larger_one_are_prepared_alike(batch: torch.Tensor) -> None:
    view = batch[::2, 2:10]
    expected = prepare(view.contiguous(), None, MEAN, STD, None)
    assert torch.equal(prepare(view, None, MEAN, STD, None), expected)


def test_what_is_off_draws_nothing(batch: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    prepare(batch, Augmentation(), MEAN, STD, rng)
    assert rng.random() == np.random.default_rng(0).random()


def test_an_active_augmentation_needs_a_generator(batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="generator"):
        prepare(batch, Augmentation(flip=True), None, None, None)


def test_flipping_mirrors_the_drawn_images_and_twice_is_nothing(batch: torch.Tensor) -> None:
    flips = [index % 3 == 0 for index in range(16)]
    found = augment(batch, Augmentation(flip=True), Scripted(flips=flips))
    for image, original, flipped in zip(found, batch, flips, strict=True):
        assert torch.equal(image, original.flip(1) if flipped else original)
    assert torch.equal(augment(found, Augmentation(flip=True), Scripted(flips=flips)), batch)


def test_about_half_of_the_images_are_flipped() -> None:
    images = torch.zeros((4000, 1, 2, 1), dtype=torch.uint8)
    images[:, 0, 0, 0] = 1
    flipped = augment(images, Augmentation(flip=True), np.random.default_rng(0))[:, 0, 1, 0].float().mean()
    assert float(flipped) == pytest.approx(0.5, abs=0.03)


def test_rotation_by_zero_is_nothing(batch: torch.Tensor) -> None:
    assert torch.equal(augment(batch, Augmentation(rotate=10), Scripted(angles=[0.0] * 16)), batch)


@pytest.mark.parametrize("angle", [90.0, -90.0, 180.0])
def test_right_angles_only_move_pixels(angle: float) -> None:
    square = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 9, 9, 2), dtype=np.uint8))
    found = augment(square, Augmentation(rotate=180), Scripted(angles=[angle]))
    assert torch.equal(found, torch.rot90(square, round(angle / 90), (1, 2)))


def test_rotation_equals_torchvisions() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    angles = np.random.default_rng(1).uniform(-15, 15, 40).tolist()
    found = augment(images, Augmentation(rotate=15), Scripted(angles=angles))
    expected = torch.stack([per_image(image, angle) for image, angle in zip(images, angles, strict=True)])
    # Single precision there and double precision here may round a tie to different neighbours.
    assert float((found == expected).float().mean()) > 0.999


def test_cropping_equals_padding_and_slicing_each_image(batch: torch.Tensor) -> None:
    offsets = np.random.default_rng(5).integers(0, 9, (16, 2))
    found = augment(batch, Augmentation(crop=4), Scripted(offsets=offsets))
    for image, original, (top, left) in zip(found.numpy(), batch.numpy(), offsets, strict=True):
        padded = np.pad(original, ((4, 4), (4, 4), (0, 0)))
        np.testing.assert_array_equal(image, padded[top : top + 12, left : left + 10])


def test_all_offsets_of_a_crop_are_drawn() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 3, 3, 1).repeat(500, 1, 1, 1)
    centres = augment(image, Augmentation(crop=1), np.random.default_rng(0))[:, 1, 1, 0]
    assert sorted(set(centres.tolist())) == list(range(1, 10))


def test_the_order_is_flip_then_rotation_then_crop_then_normalisation() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8))
    rng = np.random.default_rng(2)
    flips = [True, False] * 4
    angles, offsets = rng.uniform(-30, 30, 8).tolist(), rng.integers(0, 7, (8, 2))
    script = Scripted(flips, angles, offsets)
    found = prepare(images, Augmentation(flip=True, rotate=30, crop=3), MEAN, STD, script)
    expected = []
    for image, flipped, angle, (top, left) in zip(images, flips, angles, offsets, strict=True):
        turned = per_image(image.flip(1) if flipped else image, angle)
        padded = torch.nn.functional.pad(turned, (0, 0, 3, 3, 3, 3))
        expected.append(padded[top : top + 16, left : left + 16])
    same = (found - prepare(torch.stack(expected), None, MEAN, STD, None)).abs() < 1e-5
    assert float(same.float().mean()) > 0.999


def test_the_generator_decides_the_result(batch: torch.Tensor) -> None:
    everything = Augmentation(flip=True, rotate=15, crop=4)
    first, again, other = (augment(batch, everything, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_mean_border_is_a_crop_after_normalising_and_rotation_leaves_black_corners(batch: torch.Tensor) -> None:
    from torchvision.transforms.v2 import functional as reference

    pixels = batch[:, :10].contiguous()
    angles, offsets = [0.0, 15.0, -12.0, 7.0] * 4, [[0, 0], [2, 8], [8, 1], [4, 4]] * 4
    scripted = Scripted(angles=angles, offsets=offsets)
    augmentation = Augmentation(rotate=15, crop=4, crop_border="mean")
    prepared = prepare(pixels, augmentation, MEAN, STD, scripted)  # type: ignore[arg-type]
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    for image, angle, (top, left), result in zip(pixels, angles, offsets, prepared, strict=True):
        turned = per_image(image, angle).permute(2, 0, 1)
        normalised = reference.normalize(reference.to_dtype(turned, torch.float32, scale=True), list(MEAN), list(STD))
        padded = torch.nn.functional.pad(normalised, (4, 4, 4, 4))
        torch.testing.assert_close(result, padded[:, top : top + 10, left : left + 10])
    assert (prepared[1, :, :, -1] == 0).all()


def test_a_border_of_another_colour_needs_a_crop() -> None:
    with pytest.raises(ValueError, match="crop_border=mean: has no effect without crop"):
        Augmentation(flip=True, crop_border="mean")
