"""What importing fedbench loads: the import contracts say it of each file, these tests of a whole process."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "mlflow", "optuna")

LIGHT = (
    "fedbench.config.experiment",
    "fedbench.config.merge",
    "fedbench.planning.schedules",
    "fedbench.planning.deadlines",
    "fedbench.records.schema",
    "fedbench.records.reader",
    "fedbench.records.run_directory",
    "fedbench.records.plots",
    "fedbench.report.compare",
    "fedbench.report.content",
    "fedbench.report.html",
    "fedbench.tables.table",
    "fedbench.tables.render",
)


def loaded_by(statement: str) -> set[str]:
    """Which of the heavy packages a fresh Python process has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(result.stdout.split())


@pytest.mark.parametrize("packages", [LIGHT], ids=["config, planning, records, report, tables"])
def test_what_needs_no_cluster_and_no_training_loads_neither(packages: tuple[str, ...]) -> None:
    assert loaded_by(f"import {', '.join(packages)}") == set()


def test_server_actors_load_no_pytorch() -> None:
    """Importing it takes longer than all else that their processes do when they start."""
    built = "from fedbench.algorithms import fedavg, fedmr, fedprox, scaffold, ormo"
    sums = "import fedbench.engine.on_ray.node_sum"
    assert loaded_by(f"import fedbench.engine.on_ray.server_actors; {built}; {sums}") == set()


def test_actors_are_asked_for_before_pytorch_is_imported() -> None:
    """The process of a run imports it while the actors do."""
    assert loaded_by("import fedbench.engine.on_ray.actors") == {"ray"}


def test_a_configuration_loads_no_pytorch_whatever_it_names() -> None:
    """So that Ray starts at once, and PyTorch is imported beside it."""
    looked_up = """
from fedbench.components.catalogue import BUILTIN, component_class
from fedbench.config.experiment import ExperimentConfig

ExperimentConfig.load("quickstart")
for kind, names in BUILTIN.items():
    for name in names:
        component_class(kind, name)
"""
    assert loaded_by(looked_up) == set()


@pytest.mark.slow
def test_that_heavy_packages_would_be_seen() -> None:
    assert loaded_by("import fedbench.models.flat") == {"torch"}
