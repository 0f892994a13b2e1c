"""What a configuration says of the preparation of images; `fedbench.data.augment` carries it out."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fedbench.components.base import Section, explain
from fedbench.errors import ConfigError


class Augmentation(Section):
    """Random changes to training images, in the order of the keys (Wang et al., NeurIPS 2024).

    Attributes:
        flip: Whether to mirror an image left to right, with probability 1/2.
        rotate: Degrees by which an image is turned about its centre at most: the angle is uniform in
            [-rotate, rotate], each pixel is taken from the nearest one, and what lies outside is zero.
        crop: Pixels by which an image is shifted at most, either way on both axes: a border is put around the image,
            and a part of the original size is cut out.
        crop_border: Colour of that border: black, or the mean by which images are normalised (mean), which is the same
            as a border of zeros after normalising.
    """

    flip: bool = False
    rotate: float = Field(default=0.0, ge=0, le=180)
    crop: int = Field(default=0, ge=0)
    crop_border: Literal["black", "mean"] = "black"

    @model_validator(mode="after")
    def _border_needs_a_crop(self) -> Self:
        if self.crop_border != "black" and not self.crop:
            raise ValueError(f"crop_border={self.crop_border}: has no effect without crop; leave it out")
        return self

    @property
    def active(self) -> bool:
        """Whether any change is switched on."""
        return self.flip or self.rotate > 0 or self.crop > 0


Deviation = Annotated[float, Field(ge=1e-6, le=1)]
Mean = Annotated[float, Field(ge=0, le=1)]


class Normalization(Section):
    """Mean and standard deviation by which images are normalised, in units of [0, 1].

    Attributes:
        mean: Of all channels, or one for each.
        std: Of all channels, or one for each.
    """

    mean: Mean | tuple[Mean, ...]
    std: Deviation | tuple[Deviation, ...]

    @classmethod
    def of_mapping(cls, value: object) -> object:
        """The normalisation that a mapping describes; anything else as it is.

        Raises:
            ConfigError: the mapping describes none; one line that starts with its dotted key.
        """
        if not isinstance(value, dict):
            return value
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ConfigError(explain(error, "data.normalize", list(cls.model_fields))) from None

    def of_channels(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and the deviation of each channel.

        Raises:
            ValueError: a list of another length; names the key and what is needed.
        """
        both = []
        for key, value in (("mean", self.mean), ("std", self.std)):
            each = value if isinstance(value, tuple) else (value,) * channels
            if len(each) != channels:
                raise ValueError(f"{key}={list(each)}: has {len(each)} values for {channels} channel(s)")
            both.append(each)
        return both[0], both[1]
