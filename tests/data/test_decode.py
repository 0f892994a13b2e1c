"""Decoding single images: upright, with the channels that they have, or refused by name."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from fedbench.data.decode import ImageKind, decode_image, decode_images
from fedbench.errors import DataError

COLOUR, GREY, EITHER = ImageKind(channels=3), ImageKind(channels=1), ImageKind(channels=None)


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_stands_as_its_exif_orientation_says(
    random_images: Callable[..., np.ndarray], form: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(Image.fromarray(random_images(1, 8)[0][:4]), form, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert upright.shape == ((4, 8, 3) if orientation < 5 else (8, 4, 3))
    np.testing.assert_array_equal(decode_image(data, COLOUR, "it"), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_image_whose_exif_data_are_damaged_is_taken_as_it_is_stored(
    random_images: Callable[..., np.ndarray],
) -> None:
    pixels = random_images(1, 8)[0]
    data = saved(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode_image(data, COLOUR, "it"), pixels)


def sixteen_bit_rgb() -> bytes:
    """A PNG of 2x2 pixels of 16-bit RGB, which Pillow would cut to 8 bits without a word."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette(transparent: bool) -> bytes:
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).convert("P")
    return saved(image, "PNG", **({"transparency": 0} if transparent else {}))


def animated() -> bytes:
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 90, 200)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (saved(Image.new("RGBA", (4, 4))), r"transparent pixels \(mode RGBA\)"),
        (saved(Image.new("LA", (4, 4))), r"transparent pixels \(mode LA\)"),
        (palette(transparent=True), "transparent pixels"),
        (saved(Image.new("CMYK", (4, 4)), "JPEG"), "found mode CMYK"),
        (saved(Image.fromarray(np.zeros((4, 4), np.uint16))), r"found 16-bit channels, mode I;16"),
        (sixteen_bit_rgb(), "found 16-bit channels, mode RGB"),
        (saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "found mode F"),
        (animated(), r"3 images in one file \(GIF\)"),
    ],
)
def test_what_would_have_to_be_changed_is_refused_by_name(data: bytes, message: str) -> None:
    for kind in (COLOUR, GREY, EITHER):
        with pytest.raises(DataError, match=f"^FILE, row 3: .*{message}.*; convert or drop the image"):
            decode_image(data, kind, "FILE, row 3")


def test_a_palette_of_greys_is_grey_and_one_of_colours_is_colour(random_images: Callable[..., np.ndarray]) -> None:
    assert decode_image(palette(transparent=False), EITHER, "it").shape == (4, 4, 1)
    colour = Image.fromarray(random_images(1, 4)[0]).quantize(16)
    pixels = decode_image(saved(colour), EITHER, "it")
    np.testing.assert_array_equal(pixels, np.asarray(colour.convert("RGB")))


def test_images_of_ones_own_are_grey_until_one_is_in_colour(random_images: Callable[..., np.ndarray]) -> None:
    grey, colour = random_images(2, 4, 1), random_images(1, 4)
    encoded = [("it", saved(Image.fromarray(image.squeeze()))) for image in (*grey, *colour)]
    np.testing.assert_array_equal(decode_images(encoded[:2], 2, EITHER), grey)
    pixels = decode_images([encoded[0], encoded[2], encoded[1]], 3, EITHER)
    np.testing.assert_array_equal(pixels[1], colour[0])
    for index, image in ((0, grey[0]), (2, grey[1])):
        np.testing.assert_array_equal(pixels[index], np.repeat(image, 3, axis=2))


def test_no_flipped_bit_of_a_png_goes_unnoticed(random_images: Callable[..., np.ndarray]) -> None:
    data = saved(Image.fromarray(random_images(1, 4)[0]))
    pixels = decode_image(data, COLOUR, "it")
    for place in range(8, len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(DataError, match=r"it: .*get the file again"):
            np.testing.assert_array_equal(decode_image(bytes(damaged), COLOUR, "it"), pixels)
