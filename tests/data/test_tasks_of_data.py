"""Data for tasks beside classification: what is checked, how rows are divided, and labels for another task."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedbench.config.experiment import ExperimentConfig
from fedbench.data.base import FederatedData, Split
from fedbench.data.contract import check_data, remarks_on
from fedbench.data.digits import Digits
from fedbench.data.holdout import VALIDATION_DRAW, hold_out, with_validation
from fedbench.data.retask import with_task
from fedbench.data.strata import strata_of
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.federation import divide

ROWS = 40


def made(
    kind: Any, task: Any, inputs: np.ndarray, labels: np.ndarray, names: tuple[str, ...], **more: Any
) -> FederatedData:
    """A data set with the same rows in both splits."""
    split = Split(inputs, labels)
    values: dict[str, Any] = {"mean": None, "std": None, "vocabulary_size": 0, "padding_index": -1} | more
    return FederatedData("made", kind, split, split, names, source="drawn", fingerprint="made", task=task, **values)


def regression() -> FederatedData:
    """Rows of three numbers with two targets."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(ROWS, 3)).astype(np.float32)
    return made("array", "regression", inputs, (inputs[:, :2] * 2).astype(np.float32), ("height", "width"))


def texts() -> FederatedData:
    """Texts of six tokens, padded with 0, in two classes."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, (ROWS, 6)).astype(np.int32)
    tokens[::2, 4:] = 0
    labels = rng.integers(2, size=ROWS)
    return made("text", "classification", tokens, labels, ("a", "b"), vocabulary_size=9, padding_index=0)


def masks() -> FederatedData:
    """Images of 4x4 pixels with a class for each pixel."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS, 4, 4, 1)).astype(np.uint8)
    return made("image", "segmentation", images, (images[..., 0] > 99).astype(np.uint8), ("dark", "bright"))


def changed(data: FederatedData, **fields: Any) -> FederatedData:
    """The data with another training split."""
    return replace(data, train=replace(data.train, **fields))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(regression(), labels=np.zeros(ROWS, np.float32)), "float32 [40, 2] is needed of task=regression"),
        (changed(regression(), labels=np.full((ROWS, 2), np.nan, np.float32)), "labels are not finite in row 0"),
        (changed(regression(), inputs=np.full((ROWS, 3), np.inf, np.float32)), "inputs are not finite in row 0"),
        (changed(regression(), inputs=np.zeros((ROWS, 3))), "float32 [N, ...] is needed for arrays"),
        (changed(masks(), labels=np.full((ROWS, 4, 4), 2, np.uint8)), "with the label 2; 0..1 is allowed"),
        (changed(masks(), labels=np.full((ROWS, 4, 4), 255, np.uint8)), "of which no pixel counts"),
        (changed(masks(), labels=np.zeros((ROWS, 4, 3), np.uint8)), "uint8 or int64 [40, 4, 4] is needed"),
        (
            replace(masks(), class_names=("a",) * 256),
            "of which 255 does not count; int64 is needed for 256 class_names",
        ),
        (replace(regression(), task="ranking"), "task='ranking'; supported are classification, multilabel"),
        (replace(regression(), task="next_token"), "kind=array for task=next_token, which needs text"),
        (replace(regression(), mean=(0.0,) * 2, std=(1.0,) * 2), "a mean of 2 values for 3 entries of the last axis"),
        (replace(regression(), mean=(0.0,) * 3, std=(1.0, 0.0, 1.0)), "finite numbers above 0 are allowed"),
    ],
)
def test_what_a_task_cannot_be_learned_from_is_refused(data: FederatedData, message: str) -> None:
    with pytest.raises(DataError) as refusal:
        check_data(Digits(), data)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", [regression(), texts(), masks()])
def test_sound_data_of_each_kind_are_taken(data: FederatedData) -> None:
    assert check_data(Digits(), data) is data


def test_a_target_that_never_changes_is_remarked_on() -> None:
    data = regression()
    assert remarks_on(data) == ()
    labels = data.train.labels.copy()
    labels[:, 1] = 7
    (line,) = remarks_on(changed(data, labels=labels))
    assert line == "made: the target width is 7 in every training row; nothing is learned of it, and R2 is not defined"


def test_text_is_its_own_label_shifted_by_one() -> None:
    data = check_data(Digits(), with_task(texts(), "next_token"))
    tokens = texts().train.inputs
    assert data.input_shape == (5,)
    assert data.outputs == 9
    assert data.train.labels[1].tolist() == tokens[1, 1:].tolist()
    assert data.train.labels[0].tolist() == [*tokens[0, 1:4].tolist(), -100, -100]
    assert data.fingerprint != texts().fingerprint


@pytest.mark.parametrize("length", [1, 4])
def test_texts_without_a_second_token_are_not_continued(length: int) -> None:
    tokens = np.zeros((ROWS, length), np.int32)
    tokens[:, 0] = 1
    data = replace(texts(), test=Split(tokens, np.zeros(ROWS, np.int64)))
    with pytest.raises(ConfigError, match="task=next_token: no text of the test split of made has a token that follo"):
        with_task(data, "next_token")


def test_a_validation_split_of_which_no_pixel_counts_is_refused() -> None:
    kept, _ = hold_out(np.zeros(ROWS, np.int64), 0.25, seed=0, draw=VALIDATION_DRAW)
    labels = np.full((ROWS, 4, 4), 255, np.uint8)
    labels[kept] = 1
    with pytest.raises(ConfigError, match=r"validation_fraction=0.25: of the 10 rows held out no pixel counts"):
        with_validation(changed(masks(), labels=labels), 0.25, seed=0)


def test_classes_serve_as_numbers_and_nothing_else_changes_its_task() -> None:
    images = Digits().load(None, test_fraction=None, seed=0)
    numbers = check_data(Digits(), with_task(images, "regression"))
    assert numbers.train.labels[:, 0].tolist() == images.train.labels.tolist()
    assert with_task(images, "classification") is images
    with pytest.raises(ConfigError, match=r"task=next_token: digits is image data .* allowed: classification or regre"):
        with_task(images, "next_token")
    with pytest.raises(ConfigError, match=r"task=classification: made is array data .* allowed: regression, or leave"):
        with_task(regression(), "classification")


def test_classes_that_are_no_numbers_are_no_targets() -> None:
    with pytest.raises(ConfigError, match=r"task=regression: made is text data .* allowed: classification or next_to"):
        with_task(texts(), "regression")
    ratings = with_task(replace(texts(), class_names=("1.5", "4")), "regression")
    assert set(ratings.train.labels[:, 0].tolist()) == {1.5, 4.0}


def test_regressions_are_divided_by_ranges_of_the_target_with_as_many_rows_each() -> None:
    data = regression()
    strata = strata_of(data)
    counts = np.bincount(strata.of(data.train.labels))
    assert counts.tolist() == [4] * 10
    assert len(strata.names) == 10
    assert "height" in strata.names[0]
    dealt = divide(ExperimentConfig.load(None, {"data.clients": 4, "data.partition": {"name": "shards"}}), data)
    assert sorted(np.concatenate(dealt.rows).tolist()) == list(range(ROWS))
    # Two shards of five rows each in the order of the targets span three or four ranges of ten.
    assert all(sum(count > 0 for count in of_client) <= 4 for of_client in dealt.counts)


def test_equal_targets_share_a_range() -> None:
    data = changed(regression(), labels=np.repeat(np.float32([1.0, 2.0]), ROWS)[:: ROWS // 20].reshape(-1, 1))
    strata = strata_of(replace(data, class_names=("height",)))
    assert strata.names == ("height <= 1", "height > 1")
    assert strata.of(data.train.labels).tolist() == [0] * 20 + [1] * 20


@pytest.mark.parametrize("name", ["dirichlet", "shards"])
def test_partitions_by_class_are_refused_where_there_are_no_classes(name: str) -> None:
    config = ExperimentConfig.load(
        None, {"data.clients": 4, "data.partition": {"name": name, **({"alpha": 1.0} if name == "dirichlet" else {})}}
    )
    with pytest.raises(ConfigError, match=f"data.partition.name={name}: divides rows by class.*allowed: iid, quantity"):
        divide(config, masks())


def test_rows_without_classes_are_held_out_as_one() -> None:
    data = with_validation(masks(), 0.25, seed=0)
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (30, 10)
    assert data.validation.labels.shape == (10, 4, 4)
