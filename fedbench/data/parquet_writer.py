"""Writing a split of images as Parquet in the Hugging Face layout."""

import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fedbench.data.base import IntArray
from fedbench.errors import DataError

ROW_GROUP = 1000


def write_parquet(
    path: Path,
    images: npt.NDArray[np.uint8],
    labels: IntArray,
    class_names: Sequence[str],
    *,
    image_column: str = "image",
    label_column: str = "label",
    owners: tuple[str, Sequence[str]] | None = None,
) -> None:
    """Write one split: images as PNG bytes, labels, class names in the Hugging Face metadata.

    The file appears under its name only when it is complete.

    Args:
        path: the file, for example ROOT/cifar10/train-00000-of-00001.parquet; its folder is made.
        images: uint8 [N, H, W, C], with C = 1 or 3.
        labels: int64 [N], each an index into `class_names`.
        class_names: the names of the classes.
        image_column, label_column: names of the columns.
        owners: (name of a third column, the natural client of each row), such as FEMNIST's writers; None: no column.

    Raises:
        DataError: the file cannot be written.
        ValueError: arrays of different lengths.
    """
    if len(images) != len(labels) or (owners is not None and len(owners[1]) != len(labels)):
        raise ValueError(f"{len(images)} images, {len(labels)} labels: one label and one owner per image expected")
    schema = _schema(class_names, image_column, label_column, owners[0] if owners else None)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
            for first in range(0, len(images), ROW_GROUP):
                rows = slice(first, first + ROW_GROUP)
                encoded = [{"bytes": _png(image), "path": None} for image in images[rows]]
                columns = [pa.array(encoded, schema.field(0).type), pa.array(labels[rows], pa.int64())]
                if owners is not None:
                    columns.append(pa.array(list(owners[1][rows]), pa.string()))
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be written ({reason}); check the folder and its space") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _schema(class_names: Sequence[str], image: str, label: str, owner: str | None) -> pa.Schema:
    fields = [(image, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), (label, pa.int64())]
    features: dict[str, object] = {
        image: {"_type": "Image"},
        label: {"names": list(class_names), "_type": "ClassLabel"},
    }
    if owner is not None:
        fields.append((owner, pa.string()))
        features[owner] = {"dtype": "string", "_type": "Value"}
    metadata = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": metadata})


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    pixels = np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image)
    # Small images hardly shrink at higher levels; the fastest one converts 60,000 of them in a short time.
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
