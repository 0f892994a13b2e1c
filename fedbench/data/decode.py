"""Decoding image files into one array of pixels, with a check of every image."""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fedbench.errors import DataError

DECODER_VERSION = 1
"""Part of every cache key: raise it when the same files would decode to other arrays."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}


@dataclass(frozen=True)
class ImageKind:
    """The format that every image of a data set must have.

    Attributes:
        channels: 1 (grey) or 3 (colour).
        size: (height, width) in pixels; None: the size of the first image.
        grey_as_rgb: whether a grey image may stand in a colour data set, its channel repeated three times
            (Tiny-ImageNet holds such JPEGs).
    """

    channels: int
    size: tuple[int, int] | None = None
    grey_as_rgb: bool = False


def decode_image(data: bytes | None, kind: ImageKind, where: str) -> npt.NDArray[np.uint8]:
    """Decode one image file, of any format that Pillow reads.

    Args:
        data: the file's bytes.
        kind: the channels to expect; the size is not checked here.
        where: the image's name in an error message ("FILE, row 3").

    Returns:
        uint8 [H, W, C].

    Raises:
        DataError: no image, an incomplete one, or one with other channels.
    """
    if not data:
        raise DataError(f"{where}: no image bytes; the images must be embedded in the file: write it again with them")
    if data.startswith(_PNG_START) and _PNG_END not in data:
        raise DataError(f"{where}: the image (PNG, {len(data)} bytes) is truncated; get the file again")
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image: Image.Image = _without_palette(opened, kind)
            image.load()
            mode = image.mode
            if kind.grey_as_rgb and mode == "L":
                image = image.convert("RGB")
            pixels = np.asarray(image)
    except Exception as error:  # Pillow's decoders raise whatever the damage leads to
        reason = "no image format known to Pillow" if isinstance(error, UnidentifiedImageError) else error
        text = " ".join(str(reason).split())
        raise DataError(f"{where}: cannot decode the image ({len(data)} bytes): {text}; get the file again") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if _CHANNELS.get(image.mode) != kind.channels:
        expected = "1 (grey, mode L)" if kind.channels == 1 else f"{kind.channels} (mode RGB)"
        given = f"{pixels.shape[2]} of {pixels.dtype} (mode {mode})"
        raise DataError(f"{where}: expected 8-bit channels: {expected}, found {given}; convert or drop the image")
    return pixels


def decode_images(encoded: Iterable[tuple[str, bytes | None]], count: int, kind: ImageKind) -> npt.NDArray[np.uint8]:
    """Decode images into one array.

    Args:
        encoded: for each image its name in error messages, and the bytes of its file.
        count: number of images.
        kind: the format that they must have.

    Returns:
        uint8 [count, H, W, C].

    Raises:
        DataError: as `decode_image`, or an image of another size than the data set's or the first image's.
    """
    size = kind.size
    expected = "the data set's size"
    pixels = np.empty((0, 0, 0, 0), np.uint8)
    for index, (where, data) in enumerate(encoded):
        image = decode_image(data, kind, where)
        if size is None:
            size, expected = (image.shape[0], image.shape[1]), f"the size of the first image ({where})"
        if image.shape[:2] != size:
            raise DataError(
                f"{where}: image of {image.shape[0]}x{image.shape[1]} pixels, expected {size[0]}x{size[1]}, {expected};"
                " resize the image or drop the row"
            )
        if index == 0:
            pixels = np.empty((count, *image.shape), np.uint8)
        pixels[index] = image
    return pixels


def _without_palette(image: Image.Image, kind: ImageKind) -> Image.Image:
    """The image with ordinary pixels where it had a palette or 1-bit pixels; other images as they are."""
    if image.mode == "P" and kind.channels == 3 and "transparency" not in image.info:
        return image.convert("RGB")
    if image.mode == "1" and kind.channels == 1:
        return image.convert("L")
    return image
