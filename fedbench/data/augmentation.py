"""The settings of random changes to training images; what they do stands in `fedbench.data.augment`."""

from pydantic import BaseModel, ConfigDict, Field


class Augmentation(BaseModel):
    """Random changes to training images, in this order: flip, rotation, crop (Wang et al., NeurIPS 2024).

    Attributes:
        flip: mirror left to right, with probability 1/2.
        rotate: turn about the centre by an angle uniform in [-rotate, rotate], in degrees; nearest pixel, zeros
            outside.
        crop: shift by up to this many pixels either way, on both axes: a crop of the image's own size out of the image
            with `crop` zero pixels around it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: bool = False
    rotate: float = Field(default=0.0, ge=0, le=180)
    crop: int = Field(default=0, ge=0)

    @property
    def active(self) -> bool:
        """Whether anything is switched on."""
        return self.flip or self.rotate > 0 or self.crop > 0
