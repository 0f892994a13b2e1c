"""Decoding image files into one array of pixels, with a check of every image."""

import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fedbench.errors import DataError

DECODER_VERSION = 2
"""Part of every cache key: raise it when the same files would decode to other arrays."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {"L": 1, "RGB": 3}
_ORIENTATION = 0x0112
"""The EXIF tag for how an image is turned or mirrored from the way in which it is stored."""

_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""For each value of that tag what makes the image stand upright; 1 is upright."""


@dataclass(frozen=True)
class ImageKind:
    """The format that every image of a data set must have.

    Attributes:
        channels: 1 (grey) or 3 (colour); None: 1 where all images are grey, or else 3, the channel of a grey image
            repeated three times.
        size: (height, width) in pixels; None: the size of the first image.
        grey_as_rgb: whether a grey image may stand in a colour data set, its channel repeated three times
            (Tiny-ImageNet holds such JPEGs).
    """

    channels: int | None
    size: tuple[int, int] | None = None
    grey_as_rgb: bool = False


def decode_image(data: bytes | None, kind: ImageKind, where: str) -> npt.NDArray[np.uint8]:
    """Decode one image file, of any format that Pillow reads, and turn it upright as its EXIF orientation says.

    Args:
        data: the file's bytes.
        kind: the channels to expect; the size is not checked here.
        where: the image's name in an error message ("FILE, row 3").

    Returns:
        uint8 [H, W, C].

    Raises:
        DataError: no image, an incomplete one, several in one file, or one whose channels are others or would have to
            be changed (transparency, CMYK, more than 8 bits).
    """
    if not data:
        raise DataError(f"{where}: no image bytes; the images must be embedded in the file: write it again with them")
    if data.startswith(_PNG_START) and (damage := _png_damage(data)) is not None:
        raise DataError(f"{where}: the image (PNG, {len(data)} bytes) is {damage}; get the file again")
    try:
        with Image.open(io.BytesIO(data)) as opened:
            refusal = _refusal(opened, kind)
            image = _plain(opened) if refusal is None else opened
            pixels = np.asarray(image) if refusal is None else None
    except Exception as error:  # Pillow's decoders raise whatever the damage leads to
        reason = "no image format known to Pillow" if isinstance(error, UnidentifiedImageError) else error
        text = " ".join(str(reason).split())
        raise DataError(f"{where}: cannot decode the image ({len(data)} bytes): {text}; get the file again") from error
    if pixels is None:
        raise DataError(f"{where}: {refusal}; convert or drop the image")
    if image.mode == "L" and kind.channels == 3 and kind.grey_as_rgb:
        return _as_colour(pixels[..., None])
    if (kind.channels or _CHANNELS[image.mode]) != _CHANNELS[image.mode]:
        expected = "1 channel (grey, mode L)" if kind.channels == 1 else f"{kind.channels} channels (mode RGB)"
        raise DataError(
            f"{where}: expected {expected}, found {_CHANNELS[image.mode]} (mode {image.mode}); convert or drop the"
            " image"
        )
    return pixels[..., None] if pixels.ndim == 2 else pixels


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
        if image.shape[2] != pixels.shape[3]:
            pixels, image = _as_colour(pixels), _as_colour(image)
        pixels[index] = image
    return pixels


def of_equal_channels(splits: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
    """Arrays of images [N, H, W, C], all in colour if one of them is."""
    if len({images.shape[-1] for images in splits}) == 1:
        return list(splits)
    return [_as_colour(images) for images in splits]


def _as_colour(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pixels [..., 1] with their channel repeated to [..., 3]; colour as it is."""
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _png_damage(data: bytes) -> str | None:
    """Whether a PNG is truncated or damaged, by the checksum of each of its chunks, which Pillow does not compare.

    A chunk is its length, its name, its data, and the CRC-32 of name and data.
    """
    view, place = memoryview(data), len(_PNG_START)
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(view[place : place + 4])
        if end + 4 > len(data):
            break
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4]):
            return "damaged"
        if bytes(view[place + 4 : place + 8]) == b"IEND":
            return None
        place = end + 4
    return "truncated"


def _refusal(image: Image.Image, kind: ImageKind) -> str | None:
    """Why an opened image cannot be taken as it is; None where it can."""
    # A phone's JPEG with a preview or a depth map (MPO) has its picture first.
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":
        return f"{count} images in one file ({image.format}), expected one"
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return f"the image has transparent pixels (mode {image.mode}), expected none"
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    if deep or image.mode not in (*_CHANNELS, "1", "P"):
        bits = "16-bit channels, " if deep or image.mode.startswith("I;16") else ""
        return f"expected 8-bit channels, grey (mode L) or colour (mode RGB), found {bits}mode {image.mode}"
    return None


def _plain(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB, upright: without a palette or 1-bit pixels. A palette of greys gives a grey image."""
    image.load()
    # Only now: loading a TIFF turns it.
    turn = _TURNED.get(_orientation(image))
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode == "P":
        colours = image.convert("RGB")
        red, green, blue = colours.split()
        image = red if red.tobytes() == green.tobytes() == blue.tobytes() else colours
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 (as stored) where there is none, or none that can be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises whatever the damage leads to; viewers show such an image as it is stored
        return 1
