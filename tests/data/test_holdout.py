"""A validation split that is drawn from the training rows: who is in it, and what stays as it is."""

from dataclasses import replace

import numpy as np
import pytest

from fedbench.data.base import FederatedData, Split
from fedbench.data.contract import check_data
from fedbench.data.digits import Digits
from fedbench.data.holdout import hold_out, with_validation
from fedbench.data.images import Cifar10
from fedbench.data.sklearn_tables import Diabetes
from fedbench.errors import ConfigError, DataError


def digits(seed: int = 0) -> FederatedData:
    return Digits().load(None, test_fraction=None, seed=seed)


def test_training_rows_are_shared_out_between_training_and_validation_alike_in_every_class() -> None:
    data = digits()
    held = with_validation(data, 0.25, seed=0)
    assert held.validation is not None
    together = np.concatenate([held.train.inputs, held.validation.inputs])
    assert sorted(map(np.ndarray.tobytes, together)) == sorted(map(np.ndarray.tobytes, data.train.inputs))
    counts = np.bincount(data.train.labels)
    np.testing.assert_array_equal(np.bincount(held.validation.labels), np.floor(0.25 * counts + 0.5))
    assert held.test is data.test
    assert held.scored_rows == {"test": len(data.test), "validation": len(held.validation)}


def test_natural_clients_give_the_same_share_each_and_keep_a_row() -> None:
    data = digits()
    owners = np.arange(len(data.train)) % 97
    data = replace(data, train=Split(data.train.inputs, data.train.labels, owners))
    held = with_validation(data, 0.5, seed=0)
    assert held.validation is not None
    assert held.validation.owners is not None
    np.testing.assert_array_equal(
        np.bincount(held.validation.owners), np.floor(0.5 * np.bincount(owners) + 0.5).astype(int)
    )
    assert set(with_validation(data, 0.99, seed=0).train.owners) == set(range(97))


def test_the_seed_and_the_fraction_decide_the_split_and_the_fingerprint() -> None:
    data = digits()
    first, again, other, larger = (with_validation(data, f, s) for f, s in ((0.1, 1), (0.1, 1), (0.1, 2), (0.2, 1)))
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    assert first.fingerprint == again.fingerprint
    assert len({data.fingerprint, first.fingerprint, other.fingerprint, larger.fingerprint}) == 4
    assert first.validation_by_seed
    assert not data.validation_by_seed


def test_the_rows_are_not_those_that_the_test_split_would_draw() -> None:
    groups = np.repeat([0, 1], 100)
    test, validation = (hold_out(groups, 0.5, 0, "", draw)[1] for draw in (0x7E57, 0x7A11D))
    assert 0 < len(np.intersect1d(test, validation)) < 90


def test_arrays_are_normalised_by_the_rows_that_remain_and_images_as_published() -> None:
    data = Diabetes().load(None, test_fraction=None, seed=0)
    held = with_validation(data, 0.25, seed=0)
    assert held.mean != data.mean
    np.testing.assert_allclose(held.mean, held.train.inputs.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(held.std, held.train.inputs.astype(np.float64).std(axis=0))
    given = replace(data, scaling_axis=None)
    assert with_validation(given, 0.25, seed=0).mean == data.mean


def test_without_a_fraction_nothing_changes() -> None:
    data = digits()
    assert with_validation(data, 0.0, seed=0) is data


def test_a_fraction_beside_a_validation_split_of_the_datas_own_is_refused() -> None:
    data = replace(digits(), validation=digits().test)
    assert with_validation(data, 0.0, seed=0) is data
    with pytest.raises(ConfigError, match=r"data\.validation_fraction=0\.1 has no effect: digits has a validation spl"):
        with_validation(data, 0.1, seed=0)


def test_a_fraction_that_holds_out_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.validation_fraction=0\.0001: holds out none of the 1438 rows"):
        with_validation(digits(), 0.0001, seed=0)


def test_an_outline_stays_without_content() -> None:
    outline = Cifar10().outline()
    assert outline is not None
    held = with_validation(outline, 0.1, seed=0)
    assert (len(held.train), held.scored_rows) == (45_000, {"test": 10_000, "validation": 5_000})
    assert held.train.inputs.shape == (45_000, 32, 32, 3)
    assert held.train.inputs.strides[0] == 0


def test_a_validation_split_is_checked_like_the_others() -> None:
    data = digits()
    wrong = Split(data.test.inputs, data.test.labels + 1)
    with pytest.raises(DataError, match=r"returned a validation split with the label 10; 0\.\.9 is allowed"):
        check_data(Digits(), replace(data, validation=wrong))
    narrow = Split(np.ascontiguousarray(data.test.inputs[:, :4]), data.test.labels)
    with pytest.raises(DataError, match=r"one row is \[8, 8, 1\] in train, \[4, 8, 1\] in validation"):
        check_data(Digits(), replace(data, validation=narrow))
