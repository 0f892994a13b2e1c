"""Masks: images whose pixels are classes, the labels of segmentation."""

import io
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedbench.errors import DataError

NOT_SCORED = 255
"""The value of pixels that are left out of loss and metrics, as in Pascal VOC's masks."""


def decode_mask(data: bytes | None, where: str) -> npt.NDArray[np.uint8]:
    """The classes of an image's pixels: grey values, or indices into the image's palette, as they are stored.

    Args:
        data: the bytes of an image file: grey with 8 bits, with a palette, or black and white (classes 0 and 1).
        where: the row, for error messages.

    Returns:
        uint8 [H, W].

    Raises:
        DataError: no image, one that is damaged, or a colour image.
    """
    if not data:
        raise DataError(f"{where}: no bytes of the mask; masks must be embedded in the file")
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, pixels = image.mode, np.asarray(image)
    except Exception as error:  # Pillow's decoders raise whatever the damage leads to
        text = " ".join(str(error).split())
        raise DataError(f"{where}: cannot decode the mask ({len(data)} bytes): {text}; get the file again") from error
    if mode not in ("1", "L", "P"):
        raise DataError(
            f"{where}: expected a mask whose pixels are class numbers (grey of 8 bits, or a palette), found mode {mode}"
        )
    return pixels.astype(np.uint8)


def decode_masks(encoded: Iterable[tuple[str, bytes | None]], count: int) -> npt.NDArray[np.uint8]:
    """Decode masks into one array.

    Args:
        encoded: for each mask its name in error messages, and the bytes of its file.
        count: number of masks.

    Returns:
        uint8 [count, H, W].

    Raises:
        DataError: as `decode_mask`, or masks of different sizes.
    """
    masks = np.empty((0, 0, 0), np.uint8)
    first = ""
    for index, (where, data) in enumerate(encoded):
        mask = decode_mask(data, where)
        if index == 0:
            masks, first = np.empty((count, *mask.shape), np.uint8), where
        if mask.shape != masks.shape[1:]:
            raise DataError(
                f"{where}: mask of {mask.shape[0]}x{mask.shape[1]} pixels, expected {masks.shape[1]}x{masks.shape[2]},"
                f" the size of the first mask ({first}); resize it or drop the row"
            )
        masks[index] = mask
    return masks


def mask_classes(masks: npt.NDArray[np.uint8], name: str) -> tuple[str, ...]:
    """The names "0", "1", ... of the classes in the masks of a training split.

    Raises:
        DataError: fewer than two classes.
    """
    present = np.flatnonzero(np.bincount(masks.ravel(), minlength=NOT_SCORED + 1)[:NOT_SCORED])
    if len(present) == 0 or present[-1] < 1:
        have = "only the class 0" if len(present) else "no class"
        raise DataError(
            f"{name}: the masks of the train split have {have}, expected 2"
            f" classes or more, numbered from 0; {NOT_SCORED} is no class: such pixels are not scored"
        )
    return tuple(str(label) for label in range(present[-1] + 1))


def check_masks(masks: npt.NDArray[np.uint8], classes: int, size: Sequence[int], where: Callable[[int], str]) -> None:
    """Check that masks have the size of their images, and only classes of the training split.

    Args:
        masks: uint8 [N, H, W].
        classes: number of classes.
        size: height and width of the images.
        where: gives a row's name in error messages.

    Raises:
        DataError: names the row.
    """
    if masks.shape[1:] != tuple(size):
        raise DataError(
            f"{where(0)}: mask of {masks.shape[1]}x{masks.shape[2]} pixels for an image of {size[0]}x{size[1]}; make"
            " them the same size"
        )
    unknown = ((masks >= classes) & (masks != NOT_SCORED)).reshape(len(masks), -1)
    if unknown.any():
        row = int(np.argmax(unknown.any(axis=1)))
        value = masks[row].ravel()[int(np.argmax(unknown[row]))]
        raise DataError(
            f"{where(row)}: the mask has the class {value}, the train split has 0..{classes - 1}; correct it or drop"
            " the row"
        )
