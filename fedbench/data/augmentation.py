"""The `data.augment` section of a configuration; `fedbench.data.augment` carries it out."""

from pydantic import BaseModel, ConfigDict, Field


class Augmentation(BaseModel):
    """Random changes to training images, in the order of the keys (Wang et al., NeurIPS 2024).

    Attributes:
        flip: Whether to mirror an image left to right, with probability 1/2.
        rotate: Degrees by which an image is turned about its centre at most: the angle is uniform in
            [-rotate, rotate], each pixel is taken from the nearest one, and what lies outside is zero.
        crop: Pixels by which an image is shifted at most, either way on both axes: zero pixels are put around the
            image, and a part of the original size is cut out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: bool = False
    rotate: float = Field(default=0.0, ge=0, le=180)
    crop: int = Field(default=0, ge=0)

    @property
    def active(self) -> bool:
        """Whether any change is switched on."""
        return self.flip or self.rotate > 0 or self.crop > 0
