"""What a text in YAML means: in a configuration, an override, a suite and a study alike; and what is refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedbench.config import yaml_text
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.merge import parse_overrides
from fedbench.config.yaml_text import YamlFault, dump_yaml, name_of, parse_yaml
from fedbench.errors import ConfigError, FedbenchError
from fedbench.studies.file import load_study
from fedbench.suites.expand import expand
from fedbench.suites.file import read_suite

MEANINGS = [
    ("10", 10), ("010", 10), ("008", 8), ("-07", -7), ("+3", 3), ("0", 0),
    ("1e-6", 1e-6), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-1.5e+3", -1500.0),
    ("0x10", "0x10"), ("0o17", "0o17"), ("0b101", "0b101"), ("1_000", "1_000"), ("1:30", "1:30"),
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("true", True), ("False", False),
    ("null", None), ("~", None), ("'010'", "010"), ("2020-01-01", "2020-01-01"), ("=", "="),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meaning"), MEANINGS)
def test_a_text_means_the_same_in_a_file_and_in_an_override(text: str, meaning: object) -> None:
    in_a_file, in_an_override = parse_yaml(f"key: {text}")["key"], parse_overrides([f"key={text}"])["key"]
    for value in (in_a_file, in_an_override):
        assert (value, type(value)) == (meaning, type(meaning))


@pytest.mark.parametrize(
    "value", [meaning for _, meaning in MEANINGS] + ["1e-6", "010", "1.", "true", "a: b", "- x", ""]
)
def test_what_is_written_is_read_again_here_and_elsewhere(value: object) -> None:
    text = dump_yaml({"key": value})
    for read in (parse_yaml, yaml.safe_load):
        again = read(text)["key"]
        assert (again, type(again)) == (value, type(value))


@pytest.mark.parametrize("key", ["seed", "local.batch_size", "data.clients", "local.optimizer.lr", "rounds"])
@pytest.mark.parametrize("text", ["0x10", "0o17", "1_0", "1:30", "yes", "true", "ten", ".inf", ".nan", "9" * 5000])
def test_a_number_is_decimal_or_refused(key: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ExperimentConfig.load("quickstart", [f"{key}={text}"])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 5500


def test_leading_zeros_do_not_change_a_number() -> None:
    config = ExperimentConfig.load("quickstart", ["seed=010", "local.batch_size=010", "local.optimizer.lr=01e-3"])
    assert (config.seed, config.local.batch_size, config.local.optimizer.lr) == (10, 10, 1e-3)


BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))])
NASTY = {
    "recursive anchor": "data: &a {partition: *a}",
    "recursive list": "a: &a [*a]",
    "nested lists": "a: " + "[" * 100 + "]" * 100,
    "very deep": "[" * 100_000,
    "deep mappings": "".join(f"{' ' * n}k:\n" for n in range(200)),
    "long number": f"seed: {'9' * 5000}",
    "long fraction": f"seed: 0.{'9' * 5000}",
    "NUL": 'name: "a\\0b"',
    "surrogate": 'name: "\\ud800"',
    "expanding anchors": BOMB,
    "duplicate key": "seed: 1\nseed: 2",
    "duplicate key below": "data: {clients: 3, clients: 4}",
    "no key": ": 3",
    "a list as a key": "[1, 2]: 3",
    "python": "a: !!python/object/apply:os.system ['true']",
    "a date": "a: !!timestamp 2020-01-01",
    "bytes": "a: !!binary aGVsbG8=",
    "a set": "a: !!set {x}",
    "no integer": "seed: !!int abc",
    "two documents": "seed: 1\n---\nseed: 2",
    "a list": "- seed",
    "a number": "3",
    "tabs": "\tseed: 1",
    "merge of nothing": "<<: 3",
}


REASONS = {
    "recursive anchor": "line 1: an anchor stands within itself",
    "recursive list": "line 1: an anchor stands within itself",
    "nested lists": "is nested more than 40 levels deep",
    "very deep": "is nested more than 40 levels deep",
    "long number": "line 1: a number of 5,000 characters",
    "expanding anchors": "has more than 100,000 values with its anchors written out",
    "anchors that nest": "is nested more than 40 levels deep",
    "duplicate key": "line 2: the key 'seed' stands there twice",
    "a list as a key": "line 1: a key must be a name",
    "python": "line 1: .* is no kind of value here",
    "NUL": r"holds the character U\+0000, which no text may have",
}


@pytest.mark.parametrize("what", REASONS)
def test_each_limit_says_what_is_beyond_it(what: str) -> None:
    nasty = NASTY | {
        "anchors that nest": "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 50))]),
    }
    with pytest.raises(YamlFault, match=REASONS[what]):
        parse_yaml(nasty[what])


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_number_has_at_most_100_characters_wherever_it_is_written(quote: str, tmp_path: Path) -> None:
    number = f"{quote}0.{'1' * 99}{quote}"
    file = tmp_path / "long.yaml"
    file.write_text(f"local: {{optimizer: {{lr: {number}}}}}")
    for source, overrides in ((file, []), (None, [f"local.optimizer.lr={number}"])):
        with pytest.raises(ConfigError, match="a number of 101 characters"):
            ExperimentConfig.load(source, overrides)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_text("seed: 1\n")
    os.truncate(file, 2**30)
    with pytest.raises(ConfigError, match="has 1,073,741,824 bytes; at most 4,194,304 are read"):
        ExperimentConfig.load(file)


def test_a_long_text_is_given_up_before_it_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "MOST_NODES", 100)
    with pytest.raises(YamlFault, match=r"has more than 100 values$"):
        parse_yaml("a: [" + "1, " * 250)


def as_configuration(file: Path) -> Any:
    return ExperimentConfig.load(file)


def as_suite(file: Path) -> Any:
    return expand("mine", read_suite(file))


READERS: dict[str, Callable[[Path], Any]] = {"run": as_configuration, "suite": as_suite, "sweep": load_study}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", NASTY)
def test_what_is_not_plain_yaml_is_refused_in_one_line(what: str, reader: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(NASTY[what])
    with pytest.raises(FedbenchError) as refused:
        READERS[reader](file)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700


SHAPES: list[Any] = [
    [],
    {},
    [[]],
    {"a": []},
    [1, {"b": 2}],
    "x\ny",
    3,
    0.5,
    True,
    None,
    "${x}",
    "${",
    "${a:b}",
    ":",
    "a:",
    ".:x",
]
KEYS = (
    "data", "data.partition", "data.dataset", "model", "local", "local.optimizer", "local.optimizer.name", "rounds",
    "schedule.name", "algorithm", "runtime", "runtime.resources", "tracking", "tracking.tags", "name", "server",
    "delays", "local.optimizer.betas", "update.compression", "data.augment", "output.directory",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_values_of_another_shape_are_taken_or_refused_in_one_line(key: str) -> None:
    for value in SHAPES:
        text = f"{key}={dump_yaml(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}"
        lines = []
        try:
            ExperimentConfig.load("quickstart", [text])
        except FedbenchError as error:
            lines = str(error).splitlines()
        assert len(lines) <= 1, text


@pytest.mark.parametrize(
    "text", ["name=a\0b", "name=\udcff", "local.optimizer.name=:", "a[0=1", "[=1", "a..b=1", ".=1"]
)
def test_odd_overrides_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ExperimentConfig.load("quickstart", [text])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["conf.json", "UPPER.YAML", "with space.yml", "Größe.yaml"])
def test_files_of_every_name_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"seed": 5, "rounds": 3}')
    config = ExperimentConfig.load(tmp_path / name)
    assert (config.seed, config.name) == (5, name_of(name))
