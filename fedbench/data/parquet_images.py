"""Images of one's own: Parquet in the Hugging Face layout, or a tree of image files."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from fedbench.data.columns import SHOWN, content_of
from fedbench.data.decode import ImageKind
from fedbench.data.image_dataset import ImageDataset
from fedbench.data.image_source import ImageSource
from fedbench.data.image_tree import class_folders
from fedbench.data.parquet_table import ParquetTable
from fedbench.errors import DataError


class ParquetImages(ImageDataset):
    """Images of your own, of one size: Parquet, or train/CLASS/* and test/CLASS/*, in a folder of data.root.

    Parquet files are named train-*.parquet, and test-*.parquet or validation-*.parquet, with the columns image (the
    bytes of an image file) and label (a whole number from 0, or the class's name).

    Attributes:
        folder: Name of the folder under `data.root`.
        channels: 1 for grey images, 3 for colour. auto: 1 where all images are grey, or else 3. With 3, and with auto,
            a grey image among colour images has its channel repeated.
    """

    name: str = "images"
    folder: str = Field(min_length=1, pattern=r"^[^/\\]+$")
    channels: Literal["auto", 1, 3] = "auto"

    label_columns: ClassVar[tuple[str, ...]] = ("label", "fine_label")

    @property
    def folders(self) -> tuple[str, ...]:
        """See `ImageDataset.folders`."""
        return (self.folder,)

    @property
    def tree_folders(self) -> tuple[str, ...]:
        """See `ImageDataset.tree_folders`."""
        return (self.folder,)

    @property
    def kind(self) -> ImageKind:
        """See `ImageDataset.kind`."""
        return ImageKind(channels=None if self.channels == "auto" else self.channels, grey_as_rgb=self.channels == 3)

    def find_parquet(self, root: Path) -> ImageSource | None:
        """See `ImageDataset.find_parquet`.

        Raises:
            DataError: Parquet files and image files are there beside each other, or the Parquet holds no images.
        """
        source = super().find_parquet(root)
        if source is not None and (images := class_folders(root / self.folder / "train")):
            raise DataError(
                f"{root / self.folder}: holds Parquet files, and class folders of images ({images[0]}) in train; move"
                " one of them away"
            )
        if source is not None:
            self._require_images(ParquetTable(source.files[0]))
        return source

    def _require_images(self, table: ParquetTable) -> None:
        """Refuse a table of which no column holds images.

        Raises:
            DataError: names its columns, and the data set that reads them.
        """
        if table.columns and not any(content_of(table, name) == "image" for name in table.columns):
            there = ", ".join(f"{name} ({table.kind(name)})" for name in table.columns[:SHOWN])
            raise DataError(
                f"{table.place}: none of its columns holds images: {there}; for other data set data.dataset=parquet"
                f" data.dataset.folder={self.folder}, and look at them with: fedbench data parquet folder={self.folder}"
            )

    @property
    def advice(self) -> str:
        """See `ImageDataset.advice`."""
        return (
            f"place DIR/{self.folder}/train-00000-of-00001.parquet and test-00000-of-00001.parquet with the columns"
            f" image and label, or image files as DIR/{self.folder}/train/CLASS/* and DIR/{self.folder}/test/CLASS/*"
        )
