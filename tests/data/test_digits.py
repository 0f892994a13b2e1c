"""scikit-learn's digits, and test splits that are drawn."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fedbench.data import digits
from fedbench.data.digits import Digits
from fedbench.data.holdout import hold_out
from fedbench.errors import ConfigError


def test_the_digits_are_scikit_learns_scaled_to_bytes() -> None:
    data = Digits().load(None, test_fraction=None, seed=0)
    assert data.input_shape == (8, 8, 1)
    assert data.train.inputs.dtype == np.uint8
    assert data.classes == 10
    assert data.mean is None
    together = np.concatenate([data.train.inputs, data.test.inputs])[..., 0]
    original = np.rint(load_digits().images / 16 * 255).astype(np.uint8)
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in original)
    assert (together.min(), together.max()) == (0, 255)


def test_they_are_the_same_where_the_file_is_not_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits.read_digits()
    monkeypatch.setattr(digits, "FILE", ("nowhere",))
    for mine, theirs in zip((images, labels), digits.read_digits(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype


def test_the_file_is_read_once_and_nobody_can_change_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = digits.read_digits()
    monkeypatch.setattr(np, "loadtxt", None)
    images, _ = digits.read_digits()
    np.testing.assert_array_equal(images, first)
    with pytest.raises(ValueError, match="read-only"):
        images[0, 0, 0] = 1


def test_a_fifth_of_each_class_is_held_out() -> None:
    data = Digits().load(None, test_fraction=None, seed=0)
    totals = np.bincount(load_digits().target)
    np.testing.assert_array_equal(np.bincount(data.test.labels), np.floor(0.2 * totals + 0.5))
    np.testing.assert_array_equal(np.bincount(data.train.labels) + np.bincount(data.test.labels), totals)


def test_seed_and_fraction_decide_split_and_fingerprint() -> None:
    first, again, other, larger = (
        Digits().load(None, test_fraction=fraction, seed=seed)
        for fraction, seed in ((0.2, 1), (0.2, 1), (0.2, 2), (0.5, 1))
    )
    np.testing.assert_array_equal(first.train.inputs, again.train.inputs)
    assert first.fingerprint == again.fingerprint
    assert not np.array_equal(first.train.inputs, other.train.inputs)
    assert len({first.fingerprint, other.fingerprint, larger.fingerprint}) == 3
    assert first.test_split_by_seed
    assert len(larger.test) == pytest.approx(1797 / 2, abs=5)


def test_a_root_would_have_no_effect_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root=.*no effect.*digits"):
        Digits().load(tmp_path, test_fraction=None, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.test_fraction"):
        Digits().load(None, test_fraction=fraction, seed=0)


def test_every_group_keeps_a_training_row() -> None:
    groups = np.array([5, 3, 3, 5, 5, 9])
    train, test = hold_out(groups, 0.9, seed=0)
    assert sorted(np.concatenate([train, test]).tolist()) == list(range(6))
    assert sorted(groups[train].tolist()) == [3, 5, 9]


def test_a_fraction_that_holds_out_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.test_fraction=0\.01: holds out none of the 6 rows"):
        hold_out(np.zeros(6, np.int64), 0.01, seed=0)
