"""The public names of `fedbench`: which there are, and what importing them loads."""

import subprocess
import sys
from typing import get_args

import pytest

import fedbench
from fedbench.components.base import Component
from fedbench.config import experiment, sections
from fedbench.planning import delays

PUBLIC = {
    "__version__",
    # Running experiments
    "ExperimentConfig", "Observer", "Result", "resume", "run", "session",
    # Suites, studies, reports
    "SuiteResult", "WrittenReport", "run_study", "run_suite", "write_report",
    # Methods
    "Algorithm", "ArrivalRule", "AsyncAlgorithm", "LocalContext", "ModelPool", "Objective", "RoundUpdates",
    "RuleContext", "ServerRule",
    # Schedules
    "ActiveGroups", "Exchange", "Feedback", "Schedule", "TrainedRound",
    # Models and data
    "Dataset", "FederatedData", "LayerGroup", "Model", "Partition", "Split", "Task",
    # Smaller parts
    "Attack", "ClientHistory", "Compression", "Distribution", "LearningRate", "Optimizer", "Sampler",
    # Errors
    "ConfigError", "DataError", "FedbenchError", "ModelError",
}  # fmt: skip

REPORT_AFTER_EACH_IMPORT = """
import sys
import fedbench
for name in fedbench.__all__:
    getattr(fedbench, name)
    loaded = [package for package in ("ray", "mlflow", "optuna", "torch") if package in sys.modules]
    if loaded:
        print(name, *loaded)
"""


def test_the_public_names_are_exactly_these() -> None:
    assert set(fedbench.__all__) == PUBLIC
    assert set(dir(fedbench)) >= PUBLIC
    assert {name: getattr(fedbench, name).__name__ for name in PUBLIC - {"__version__"}} == {
        name: name for name in PUBLIC - {"__version__"}
    }


def test_no_public_name_loads_ray_mlflow_optuna_or_pytorch() -> None:
    process = [sys.executable, "-c", REPORT_AFTER_EACH_IMPORT]
    assert subprocess.run(process, capture_output=True, text=True, check=True, timeout=120).stdout == ""


def test_import_of_the_package_alone_loads_none_of_its_modules() -> None:
    code = "import sys, fedbench\nprint(*[name for name in sys.modules if name.startswith('fedbench.')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=120).split() == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fedbench' has no attribute 'Algoritm'"):
        _ = fedbench.Algoritm


def test_the_base_of_every_exchangeable_part_is_public() -> None:
    named = vars(experiment) | vars(sections)
    annotations = [value for name, value in named.items() if name.startswith("Any") and get_args(value)]
    bases = {get_args(annotation)[0] for annotation in [*annotations, delays.AnyDistribution]}
    bases = {base for base in bases if isinstance(base, type) and issubclass(base, Component)}
    assert len(bases) == 10
    assert {getattr(fedbench, base.__name__) for base in bases} == bases
