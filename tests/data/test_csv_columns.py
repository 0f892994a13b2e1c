"""CSV files as data sets: types from all values, wrong rows named by their line."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbench.data.base import FederatedData
from fedbench.data.contract import check_data, remarks_on
from fedbench.data.csv_dataset import CsvDataset
from fedbench.data.csv_table import CsvTable
from fedbench.errors import ConfigError, DataError


def load(root: Path, **parameters: Any) -> FederatedData:
    dataset = CsvDataset(**parameters)
    dataset.check(root)
    return check_data(dataset, dataset.load(root, test_fraction=None, seed=0))


def write(root: Path, text: str, name: str = "train") -> None:
    (root / f"{name}.csv").write_text(text, encoding="utf-8")


def test_a_table_is_read_as_from_parquet(tmp_path: Path) -> None:
    write(tmp_path, "age,weight,label\n1,0.5,no\n2,1.5,yes\n3,2,no\n")
    write(tmp_path, "label,age,weight\nyes,4,4\n", "test")
    data = load(tmp_path)
    assert data.train.inputs.tolist() == [[1, 0.5], [2, 1.5], [3, 2]]
    assert data.test.inputs.tolist() == [[4, 4]]
    assert (data.task, data.class_names, data.test.labels.tolist()) == ("classification", ("no", "yes"), [1])
    assert "CSV in " in data.source


def test_a_type_is_that_of_all_values_of_a_column(tmp_path: Path) -> None:
    """The first megabyte holds whole numbers alone."""
    write(tmp_path, "x,y\n" + "123456,0\n" * 150_000 + "0.5,1\n" * 5)
    data = load(tmp_path)
    assert (data.task, len(data.train) + len(data.test)) == ("classification", 150_005)
    assert 0.5 in data.train.inputs


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x,label\n1,a\nabc,b\n3,a\n", "line 3: column 'x' is 'abc', other values of it are numbers"),
        ("x,label\n1,a\n\n,b\n3,a\n", "line 4: column 'x' is empty (null)"),
        ("x,label\n1,a\nNA,b\n3,a\n", "line 3: column 'x' is 'NA', other values"),
        ("x,label\n1,a\nnan,b\n3,a\n", "line 3: column 'x' is not a number (NaN)"),
        ("x,label\n1,a\n2,\n3,a\n", "line 3: column 'label' is empty (null)"),
        ("x,label\n1,a\n2,b,c\n", "line 3: 3 values, expected 2 as in the first line"),
        ('text,label\n"two\nlines",a\n"one",\n', "line 4: column 'label' is empty (null)"),
        ("x,label\n1,a\n2,a\n", "column 'label' has a single value (a) in the train split"),
        ("x,label\n1,a\n,a\n", "line 3: column 'x' is empty (null)"),
        ("x,label,client\n1,a,p\n2,a,\n", "line 3: column 'client' is empty (null)"),
        ("x,w,label\n1,,a\n2,,b\n", "column 'w' is empty in every row"),
        ("x,label\n", "no rows below the names"),
        ("", "not a readable CSV file"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(text: str, problem: str, tmp_path: Path) -> None:
    write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert problem in str(caught.value)
    assert str(tmp_path / "train.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_that_training_has_never_seen_is_named_by_its_line(tmp_path: Path) -> None:
    write(tmp_path, "x,label\n1,a\n2,b\n")
    write(tmp_path, "x,label\n1,a\n\n2,c\n", "test")
    with pytest.raises(DataError, match=r"test\.csv, line 4: column 'label' has the label 'c', expected one of the 2"):
        load(tmp_path)


def test_a_file_whose_values_look_like_another_type_is_read_as_the_training_split_is(tmp_path: Path) -> None:
    write(tmp_path, "x,label\n0.5,a1\n1.5,7\n")
    write(tmp_path, "x,label\n1,7\n2,7\n", "test")
    assert load(tmp_path).test.labels.tolist() == [0, 0]
    write(tmp_path, "x,y\n1,0.5\n2,1.5\n")
    write(tmp_path, "x,y\n1,3\n2,4\n", "test")
    assert load(tmp_path).test.labels.tolist() == [[3.0], [4.0]]
    write(tmp_path, "x,y\n1,0\n2,1\n")
    write(tmp_path, "x,y\n1,0.5\n", "test")
    with pytest.raises(DataError, match=r"test\.csv: column 'y' is double .*train\.csv int64 \(integer\)"):
        load(tmp_path)


def test_a_missing_label_of_another_split_is_told_before_a_single_class(tmp_path: Path) -> None:
    write(tmp_path, "x,label\n1,a\n2,a\n")
    write(tmp_path, "x,label\n1,a\n2,\n", "test")
    with pytest.raises(DataError, match=r"test\.csv, line 3: column 'label' is empty \(null\)"):
        load(tmp_path)


def test_a_file_that_belongs_to_no_split_is_named(tmp_path: Path) -> None:
    write(tmp_path, "x,label\n1,a\n2,b\n")
    write(tmp_path, "x,label\n1,a\n2,b\n3,b\n", "test")
    assert remarks_on(load(tmp_path), 1.0) == ()
    write(tmp_path, "x\n1\n", "sample_submission")
    (line,) = remarks_on(load(tmp_path), 1.0)
    assert line == "csv: not read, since no split that is used has such a name: sample_submission.csv"


def test_many_whole_numbers_as_classes_are_remarked_on(tmp_path: Path) -> None:
    def remarks(classes: int) -> tuple[str, ...]:
        write(tmp_path, "x,y\n" + "".join(f"{row},{10 * (row % classes)}\n" for row in range(60)))
        write(tmp_path, "x,y\n" + "".join(f"{row},{10 * row}\n" for row in range(classes)), "test")
        return remarks_on(load(tmp_path), 1.0)

    assert remarks(20) == ()
    (line,) = remarks(21)
    assert line.startswith("csv: 21 classes, which are numbers, have 60 training rows in all; where the numbers are")
    assert "task=regression" in line


def test_other_delimiters(tmp_path: Path) -> None:
    write(tmp_path, "x;y\n1;0.5\n2;1.5\n3;2.5\n")
    assert load(tmp_path, delimiter=";").task == "regression"
    write(tmp_path, "x\ty\n1\t0.5\n2\t1.5\n3\t2.5\n")
    assert load(tmp_path, delimiter="tab").class_names == ("y",)
    with pytest.raises(DataError, match=r"named 'x\\ty'; set data\.dataset\.delimiter='tab'"):
        load(tmp_path)


def test_texts_and_whole_numbers_are_classified(tmp_path: Path) -> None:
    write(tmp_path, 'text,label\n"a, b",0\n"c d",1\n"c e",1\n')
    write(tmp_path, "text,label\na,0\n", "test")
    data = load(tmp_path)
    assert (data.kind, data.class_names) == ("text", ("0", "1"))
    assert data.train.inputs[0, :3].tolist() == [3, 4, 0]


def test_there_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root: must be set with data\.dataset=csv"):
        CsvDataset().check(None)
    with pytest.raises(DataError, match=r"csv: not found, looked for .*\{train,test\}-\*\.csv"):
        CsvDataset().check(tmp_path)


def test_lines_are_counted_over_values_with_line_breaks_and_empty_lines(tmp_path: Path) -> None:
    write(tmp_path, 'a,b\n"k\nl",x\n\n"m",y\nn,z\n')
    table = CsvTable(tmp_path / "train.csv")
    assert [table.where(row).rpartition(" ")[2] for row in range(table.rows)] == ["2", "5", "6"]
    assert np.array_equal(list(table.texts("b")), ["x", "y", "z"])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("größe,label\n1,a\n".encode("latin-1"), r"train\.csv, line 1: not UTF-8 \(byte 0xf6\)"),
        ("x,label\n1,a\n2,ä\n".encode("latin-1"), r"train\.csv, line 3: not UTF-8 \(byte 0xe4\)"),
        ("x,label\n1,a\n".encode("utf-16"), r"train\.csv: UTF-16, expected text in UTF-8"),
        (gzip.compress(b"x,label\n1,a\n"), r"train\.csv: compressed with gzip, expected text in UTF-8; unpack it"),
        (b"x,x,label\n1,2,a\n", r"train\.csv: 2 columns are named 'x'; keep one of them, or rename the others"),
    ],
)
def test_other_encodings_and_columns_of_one_name_are_one_line(content: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DataError, match=line):
        load(tmp_path)


def test_row_labels_without_a_name_are_no_inputs(tmp_path: Path) -> None:
    write(tmp_path, ",x,label\n0,0.5,a\n1,1.5,b\n2,2.5,b\n3,3.5,b\n")
    data = load(tmp_path)
    assert (data.input_shape, "unused a column without a name" in data.source) == ((1,), True)
    write(tmp_path, "Unnamed: 0,x,label\n0,0.5,a\n1,1.5,b\n2,2.5,b\n3,3.5,b\n")
    assert load(tmp_path).input_shape == (1,)
    assert load(tmp_path, inputs=["Unnamed: 0", "x"]).input_shape == (2,)


def test_names_of_files_are_no_texts(tmp_path: Path) -> None:
    write(tmp_path, "image,label\na b.jpg,x\nc.PNG,y\n")
    with pytest.raises(DataError, match=r"train\.csv, line 2: column 'image' has names of files \(a b\.jpg\)"):
        load(tmp_path)


def test_whole_numbers_as_targets_are_held_out_as_rows_not_as_classes(tmp_path: Path) -> None:
    write(tmp_path, "x,label\n" + "".join(f"{row},{1000 * row}\n" for row in range(10)))
    data = CsvDataset().for_task("regression").load(tmp_path, test_fraction=None, seed=0)
    assert (len(data.train), len(data.test)) == (8, 2)
    with pytest.raises(ConfigError, match="whole numbers are targets with task=regression"):
        load(tmp_path)
