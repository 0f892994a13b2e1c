"""Reading Parquet in the Hugging Face layout: what is read is what was written, and every damage is named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.data.decode import ImageKind
from fedbench.data.parquet import read_images, read_texts
from fedbench.data.parquet_files import find_splits
from fedbench.data.parquet_writer import write_parquet
from fedbench.errors import DataError

COLOUR = ImageKind(channels=3)
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(
    encoded: list[bytes | None], labels: list[int | None], image: str = "image", label: str = "label"
) -> pa.Table:
    rows = [None if data is None else {"bytes": data, "path": None} for data in encoded]
    return pa.table({image: pa.array(rows, IMAGE_TYPE), label: pa.array(labels, pa.int64())})


def one_line_error(call: Callable[[], object], *parts: str) -> str:
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_what_was_written_is_read_back(tmp_path: Path, random_images: Callable[..., np.ndarray]) -> None:
    images, labels = random_images(2500, 4), np.arange(2500, dtype=np.int64) % 3
    file = tmp_path / "train-00000-of-00001.parquet"
    write_parquet(file, images, labels, ["a", "b", "c"])
    rows = read_images([file], COLOUR, label_columns=("label",), classes=3)
    np.testing.assert_array_equal(rows.images, images)
    np.testing.assert_array_equal(rows.labels, labels)
    assert rows.class_names == ("a", "b", "c")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_written_file_has_the_hugging_face_layout(tmp_path: Path, random_images: Callable[..., np.ndarray]) -> None:
    write_parquet(tmp_path / "f.parquet", random_images(2), np.array([0, 1]), ["a", "b"], owners=("writer", ["x", "y"]))
    found = pq.read_table(tmp_path / "f.parquet")
    assert found.schema.field("image").type == IMAGE_TYPE
    assert found["image"][0].as_py()["bytes"].startswith(b"\x89PNG")
    features = json.loads(found.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": ["a", "b"], "_type": "ClassLabel"}
    assert features["image"] == {"_type": "Image"}
    assert found["writer"].to_pylist() == ["x", "y"]


def test_rows_of_several_files_follow_each_other(tmp_path: Path, random_images: Callable[..., np.ndarray]) -> None:
    images = random_images(6, 4)
    for shard in range(3):
        rows = slice(2 * shard, 2 * shard + 2)
        write_parquet(
            tmp_path / f"train-0000{shard}-of-00003.parquet", images[rows], np.array([shard] * 2), list("abc")
        )
    files = find_splits(tmp_path)["train"]
    rows = read_images(files, COLOUR, label_columns=("label",))
    np.testing.assert_array_equal(rows.images, images)
    assert rows.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_same_pixels(
    tmp_path: Path, random_images: Callable[..., np.ndarray], image_bytes: Callable[..., bytes], form: str
) -> None:
    images = random_images(3)
    options = {"lossless": True} if form == "WEBP" else {}
    encoded = [image_bytes(image, form, **options) for image in images]
    pq.write_table(table(encoded, [0, 1, 2], image="img", label="fine_label"), tmp_path / "train.parquet")
    rows = read_images([tmp_path / "train.parquet"], COLOUR, label_columns=("fine_label", "label"))
    np.testing.assert_array_equal(rows.images, images)
    assert rows.class_names is None


@pytest.mark.parametrize("place", [".", "data", "plain_text"])
def test_files_are_found_in_the_folder_and_its_subfolders(tmp_path: Path, place: str) -> None:
    for name in ("train-00000-of-00001.parquet", "valid-00000-of-00001-0123abcd.parquet", "notes.txt", "other.parquet"):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / name).touch()
    found = find_splits(tmp_path)
    assert {split: [file.name for file in files] for split, files in found.items()} == {
        "train": ["train-00000-of-00001.parquet"],
        "validation": ["valid-00000-of-00001-0123abcd.parquet"],
    }


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00002.parquet").touch()
    one_line_error(lambda: find_splits(tmp_path), str(tmp_path), "1 Parquet file(s)", "train", "expected 2")


def test_two_subfolders_with_data_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.parquet").touch()
    one_line_error(lambda: find_splits(tmp_path), "one, two", "expected one")


def test_a_folder_that_is_not_there_has_no_splits(tmp_path: Path) -> None:
    assert find_splits(tmp_path / "nowhere") == {}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.995])
def test_a_truncated_image_is_named_with_file_and_row(
    tmp_path: Path, random_images: Callable[..., np.ndarray], image_bytes: Callable[..., bytes], form: str, share: float
) -> None:
    encoded = [image_bytes(image, form) for image in random_images(1100)]
    encoded[1050] = encoded[1050][: int(share * len(encoded[1050]))]
    file = tmp_path / "train.parquet"
    pq.write_table(table(encoded, [0] * 1100), file)
    one_line_error(
        lambda: read_images([file], COLOUR, label_columns=("label",)), f"{file}, row 1050", "get the file again"
    )


def test_no_truncation_of_a_png_goes_unnoticed(
    tmp_path: Path, random_images: Callable[..., np.ndarray], image_bytes: Callable[..., bytes]
) -> None:
    whole = image_bytes(random_images(1, 4)[0])
    file = tmp_path / "train.parquet"
    for length in range(len(whole)):
        pq.write_table(table([whole[:length]], [0]), file)
        one_line_error(lambda: read_images([file], COLOUR, label_columns=("label",)), f"{file}, row 0")


def test_a_text_file_is_not_taken_for_parquet(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    file.write_text("hello\nworld\n" * 10)
    one_line_error(
        lambda: read_images([file], COLOUR, label_columns=("label",)), str(file), "not a readable Parquet file"
    )


def test_a_truncated_parquet_file_is_named(tmp_path: Path, random_images: Callable[..., np.ndarray]) -> None:
    file = tmp_path / "train.parquet"
    write_parquet(file, random_images(3), np.zeros(3, np.int64), ["a"])
    file.write_bytes(file.read_bytes()[:-100])
    one_line_error(
        lambda: read_images([file], COLOUR, label_columns=("label",)), str(file), "not a readable Parquet file"
    )


def test_damage_inside_a_parquet_file_is_named(tmp_path: Path, random_images: Callable[..., np.ndarray]) -> None:
    file = tmp_path / "train.parquet"
    write_parquet(file, random_images(30), np.zeros(30, np.int64), ["a"])
    data = bytearray(file.read_bytes())
    data[40:4000] = bytes(3960)
    file.write_bytes(data)
    one_line_error(lambda: read_images([file], COLOUR, label_columns=("label",)), str(file))


def test_missing_columns_are_named_with_those_found(tmp_path: Path, image_bytes: Callable[..., bytes]) -> None:
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"picture": [1], "label": [0]}), file)
    one_line_error(
        lambda: read_images([file], COLOUR, label_columns=("label",)), str(file), "'image' or 'img'", "picture, label"
    )
    pq.write_table(table([b"x"], [0], label="kind"), file)
    one_line_error(lambda: read_images([file], COLOUR, label_columns=("label",)), "label column", "image, kind")
    pq.write_table(table([b"x"], [0]), file)
    one_line_error(
        lambda: read_images([file], COLOUR, label_columns=("label",), owner_column="writer_id"), "'writer_id'"
    )


def test_columns_of_a_foreign_type_are_refused(tmp_path: Path, image_bytes: Callable[..., bytes]) -> None:
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": ["a"], "label": [0]}), file)
    one_line_error(lambda: read_images([file], COLOUR, label_columns=("label",)), "'image' is string", "struct<bytes")
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": ""}], "label": [0.5]}), file)
    one_line_error(lambda: read_images([file], COLOUR, label_columns=("label",)), "'label' is double", "integer")
    pq.write_table(pa.table({"text": [1], "label": [0]}), file)
    one_line_error(lambda: read_texts([file], label_columns=("label",)), "'text' is int64", "string")


@pytest.mark.parametrize(("label", "found"), [(-1, "label -1"), (10, "label 10")])
def test_a_label_out_of_range_is_named(tmp_path: Path, label: int, found: str) -> None:
    file = tmp_path / "train.parquet"
    pq.write_table(table([b"x"] * 3, [0, 9, label]), file)
    one_line_error(
        lambda: read_images([file], COLOUR, label_columns=("label",), classes=10), f"{file}, row 2", found, "0..9"
    )


def test_empty_cells_are_named(tmp_path: Path, random_images: Callable[..., np.ndarray], image_bytes: Callable) -> None:
    file = tmp_path / "train.parquet"
    encoded = [image_bytes(image) for image in random_images(3)]
    pq.write_table(table(encoded, [0, None, 1]), file)
    one_line_error(lambda: read_images([file], COLOUR, label_columns=("label",)), f"{file}, row 1", "'label' is empty")
    pq.write_table(table([encoded[0], None, b""], [0, 0, 0]), file)
    one_line_error(lambda: read_images([file], COLOUR, label_columns=("label",)), f"{file}, row 1", "no image bytes")


def test_the_image_of_another_size_is_named(
    tmp_path: Path, random_images: Callable[..., np.ndarray], image_bytes: Callable[..., bytes]
) -> None:
    file = tmp_path / "train.parquet"
    encoded = [image_bytes(image) for image in random_images(2, 8)] + [image_bytes(random_images(1, 9)[0])]
    pq.write_table(table(encoded, [0, 0, 0]), file)
    one_line_error(lambda: read_images([file], COLOUR, label_columns=("label",)), f"{file}, row 2", "9x9", "8x8")
    sized = ImageKind(channels=3, size=(32, 32))
    one_line_error(lambda: read_images([file], sized, label_columns=("label",)), f"{file}, row 0", "8x8", "32x32")


def test_images_with_other_channels_are_named(
    tmp_path: Path, random_images: Callable[..., np.ndarray], image_bytes: Callable[..., bytes]
) -> None:
    file = tmp_path / "train.parquet"
    grey, colour, alpha = (image_bytes(random_images(1, 8, channels)[0]) for channels in (1, 3, 4))
    for encoded, kind in (([colour, grey], COLOUR), ([colour, alpha], COLOUR), ([grey, colour], ImageKind(channels=1))):
        pq.write_table(table(encoded, [0, 0]), file)
        one_line_error(lambda kind=kind: read_images([file], kind, label_columns=("label",)), f"{file}, row 1", "mode")


def test_grey_images_among_colour_ones_are_repeated_where_allowed(
    tmp_path: Path, random_images: Callable[..., np.ndarray], image_bytes: Callable[..., bytes]
) -> None:
    file = tmp_path / "train.parquet"
    grey = random_images(1, 8, 1)[0]
    pq.write_table(table([image_bytes(grey)], [0]), file)
    rows = read_images([file], ImageKind(channels=3, grey_as_rgb=True), label_columns=("label",))
    np.testing.assert_array_equal(rows.images[0], np.repeat(grey, 3, axis=2))


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    pq.write_table(table([], []), file)
    one_line_error(lambda: read_images([file], COLOUR, label_columns=("label",)), str(file), "no rows")


def test_another_number_of_class_names_is_refused(tmp_path: Path, random_images: Callable[..., np.ndarray]) -> None:
    file = tmp_path / "train.parquet"
    write_parquet(file, random_images(2), np.array([0, 1]), ["cat", "dog"])
    one_line_error(
        lambda: read_images([file], COLOUR, label_columns=("label",), classes=10),
        str(file),
        "2 class names",
        "expected 10",
    )


def test_a_failed_write_leaves_nothing(tmp_path: Path, random_images: Callable[..., np.ndarray]) -> None:
    with pytest.raises(ValueError, match="one label"):
        write_parquet(tmp_path / "a" / "f.parquet", random_images(2), np.array([0]), ["a"])
    (tmp_path / "file").touch()
    one_line_error(
        lambda: write_parquet(tmp_path / "file" / "f.parquet", random_images(1), np.array([0]), ["a"]), "written"
    )
    (tmp_path / "full").mkdir()
    with pytest.raises(TypeError):
        write_parquet(tmp_path / "full" / "f.parquet", random_images(1).astype(np.float64), np.array([0]), ["a"])
    assert list((tmp_path / "full").iterdir()) == []


def test_no_damaged_byte_of_the_images_that_were_written_here_changes_a_pixel_unnoticed(
    tmp_path: Path, random_images: Callable[..., np.ndarray]
) -> None:
    file = tmp_path / "train.parquet"
    images = random_images(20, 8)
    write_parquet(file, images, np.zeros(20, np.int64), ["a"])
    whole = file.read_bytes()
    column = pq.ParquetFile(file).metadata.row_group(0).column(0)
    first = min(offset for offset in (column.dictionary_page_offset, column.data_page_offset) if offset)
    noticed = 0
    for place in range(first, first + column.total_compressed_size, 97):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            rows = read_images([file], COLOUR, label_columns=("label",))
        except DataError:
            noticed += 1
        else:  # the bytes of a page's header that say nothing of its content
            np.testing.assert_array_equal(rows.images, images)
    assert noticed > 30
