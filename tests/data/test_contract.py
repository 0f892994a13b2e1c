"""What a data set of one's own returns is checked when it is loaded: no foreign type or range is computed on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbench.config.experiment import ExperimentConfig
from fedbench.data.base import Dataset, FederatedData, Split
from fedbench.data.contract import check_data, remarks_on
from fedbench.data.convert import describe
from fedbench.data.digits import Digits
from fedbench.errors import DataError
from fedbench.experiment.federation import outline_federation
from fedbench.experiment.run import run


def images(**changes: object) -> FederatedData:
    rng = np.random.default_rng(0)
    train, test = (Split(rng.integers(0, 256, (8, 4, 4, 1), dtype=np.uint8), np.arange(8) % 2) for _ in range(2))
    plain = FederatedData("own", "image", train, test, ("a", "b"), None, None, 0, -1, "drawn", "0")
    return replace(plain, **changes)


def texts(token: int = 3, **changes: object) -> FederatedData:
    split = Split(np.full((4, 5), token, np.int32), np.arange(4) % 2)
    plain = FederatedData("own", "text", split, split, ("a", "b"), None, None, 4, 0, "drawn", "0")
    return replace(plain, **changes)


def recast(split: Split, kind: type) -> Split:
    return Split(split.inputs.astype(kind), split.labels)


class Given(Dataset):
    """Gives what it was given, as its data and as its outline."""

    name: str = "given:Given"
    data: object

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        return self.data

    def outline(self) -> FederatedData | None:
        return self.data


WRONG: dict[str, tuple[Callable[[], FederatedData], str]] = {
    "float32": (lambda: images(train=recast(images().train, np.float32)), r"float32 \[8, 4, 4, 1\]; uint8 .*255 \* x"),
    "float64 test": (lambda: images(test=recast(images().test, np.float64)), r"a test split whose inputs are float64"),
    "signed": (lambda: images(train=recast(images().train, np.int16)), "int16"),
    "kind": (lambda: images(kind="tabular"), r"kind='tabular'; supported are image, text"),
    "one class": (lambda: images(class_names=("a",)), "1 class_names; at least 2"),
    "mean in 0..255": (lambda: images(mean=(127.5,), std=(127.5,)), r"mean=\(127\.5,\); 0 or more and at most 1"),
    "deviation of 0": (lambda: images(mean=(0.5,), std=(0.0,)), r"std=\(0\.0,\); above 0 and at most 1"),
    "deviation NaN": (lambda: images(mean=(0.5,), std=(float("nan"),)), "std="),
    "no pixels": (
        lambda: images(train=Split(np.zeros((8, 0, 4, 1), np.uint8), np.arange(8) % 2)),
        "no dimension may be 0",
    ),
    "token": (lambda: texts(token=4), r"the token id 4; 0\.\.3 is allowed, for the vocabulary_size"),
    "negative token": (lambda: texts(token=-1), "the token id -1"),
    "padding": (lambda: texts(padding_index=4), r"padding_index=4; 0\.\.3 is allowed"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_supported_is_refused_where_it_is_loaded(wrong: str) -> None:
    make, message = WRONG[wrong]
    dataset = Given(data=make())
    for check in (
        lambda: check_data(dataset, dataset.data),
        lambda: describe(dataset, None),
        lambda: outline_federation(ExperimentConfig().model_copy(update={"data": section(dataset)})),
    ):
        with pytest.raises(DataError, match=message):
            check()


def section(dataset: Dataset) -> object:
    return ExperimentConfig().data.model_copy(update={"dataset": dataset, "clients": 2})


def test_sound_data_pass_without_a_remark() -> None:
    for data in (images(), images(mean=(0.5,), std=(0.25,)), texts(), Digits().load(None, test_fraction=None, seed=0)):
        assert check_data(Digits(), data) is data
        assert remarks_on(data) == ()


def test_images_in_0_to_1_that_were_cut_to_whole_numbers_are_remarked_on() -> None:
    cut = Split((images().train.inputs // 255).astype(np.uint8), images().train.labels)
    assert remarks_on(images(train=cut)) == (
        "own: no pixel is above 1 of 255; images in 0..1 are stored as 255 times their values",
    )


class Absent(Given):
    """Is not there, and says so before it is loaded."""

    name: str = "given:Absent"

    def check(self, root: Path | None) -> None:
        raise DataError("absent: not there")

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        raise AssertionError("loaded")


def test_a_run_asks_whether_its_data_are_there_before_it_starts_anything() -> None:
    with pytest.raises(DataError, match="absent: not there"):
        run(ExperimentConfig().model_copy(update={"data": section(Absent(data=None))}))
