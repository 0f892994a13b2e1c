"""Any images as Parquet in the Hugging Face layout."""

from typing import ClassVar, Literal

from pydantic import Field

from fedbench.data.decode import ImageKind
from fedbench.data.images import ImageDataset


class ParquetImages(ImageDataset):
    """Any labelled images as Parquet in the Hugging Face layout, all of one size, with a test or validation split.

    Attributes:
        folder: Name of the folder under `data.root`.
        channels: 1 for grey images, 3 for colour. A grey image among colour images has its channel repeated.
    """

    name: str = "fedbench.data.parquet_images:ParquetImages"
    folder: str = Field(min_length=1)
    channels: Literal[1, 3] = 3

    label_columns: ClassVar[tuple[str, ...]] = ("label", "fine_label")

    @property
    def folders(self) -> tuple[str, ...]:
        """See `ImageDataset.folders`."""
        return (self.folder,)

    @property
    def kind(self) -> ImageKind:
        """See `ImageDataset.kind`."""
        return ImageKind(channels=self.channels, grey_as_rgb=self.channels == 3)
