"""fedbench: federated-learning experiments on a Ray cluster, with every byte and FLOP accounted for.

Everything that runs experiments, suites, studies and reports, and everything that a new algorithm, schedule, model,
data set, partition, sampler or optimizer is written with, is imported from here (examples: README.md beside this file):

>>> from fedbench import ExperimentConfig, run
>>> result = run(ExperimentConfig.load("quickstart", ["rounds=3"]))  # doctest: +SKIP
>>> result.summary["final_accuracy"]  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fedbench.algorithms.arrivals import ArrivalRule, AsyncAlgorithm
    from fedbench.algorithms.base import Algorithm, LocalContext, Objective, RoundUpdates, RuleContext, ServerRule
    from fedbench.api.reports import WrittenReport, write_report
    from fedbench.api.runs import resume, run
    from fedbench.api.session import session
    from fedbench.api.studies import run_study
    from fedbench.api.suites import SuiteResult, run_suite
    from fedbench.config.experiment import ExperimentConfig
    from fedbench.data.base import Dataset, FederatedData, Split
    from fedbench.data.partition import Partition
    from fedbench.errors import ConfigError, DataError, FedbenchError, ModelError
    from fedbench.experiment.result import Result
    from fedbench.models.base import LayerGroup, Model, Task
    from fedbench.planning.delays import Distribution
    from fedbench.planning.exchange import Exchange, TrainedRound
    from fedbench.planning.samplers import ClientHistory, Sampler
    from fedbench.planning.schedules import ActiveGroups, Feedback, Schedule
    from fedbench.protocol.attacks import Attack
    from fedbench.protocol.compression import Compression
    from fedbench.protocol.model_pool import ModelPool
    from fedbench.records.observers import Observer
    from fedbench.training.optimizers import LearningRate, Optimizer

_MODULES = {
    "ActiveGroups": "planning.schedules",
    "Algorithm": "algorithms.base",
    "ArrivalRule": "algorithms.arrivals",
    "AsyncAlgorithm": "algorithms.arrivals",
    "Attack": "protocol.attacks",
    "ClientHistory": "planning.samplers",
    "Compression": "protocol.compression",
    "ConfigError": "errors",
    "DataError": "errors",
    "Dataset": "data.base",
    "Distribution": "planning.delays",
    "Exchange": "planning.exchange",
    "ExperimentConfig": "config.experiment",
    "FedbenchError": "errors",
    "FederatedData": "data.base",
    "Feedback": "planning.schedules",
    "LayerGroup": "models.base",
    "LearningRate": "training.optimizers",
    "LocalContext": "algorithms.base",
    "Model": "models.base",
    "ModelError": "errors",
    "ModelPool": "protocol.model_pool",
    "Objective": "algorithms.base",
    "Optimizer": "training.optimizers",
    "Partition": "data.partition",
    "Result": "experiment.result",
    "RoundUpdates": "algorithms.base",
    "RuleContext": "algorithms.base",
    "Sampler": "planning.samplers",
    "Schedule": "planning.schedules",
    "ServerRule": "algorithms.base",
    "Split": "data.base",
    "Task": "models.base",
    "TrainedRound": "planning.exchange",
    "SuiteResult": "api.suites",
    "WrittenReport": "api.reports",
    "Observer": "records.observers",
    "resume": "api.runs",
    "run": "api.runs",
    "run_study": "api.studies",
    "run_suite": "api.suites",
    "session": "api.session",
    "write_report": "api.reports",
}
"""The module of each public name. It is imported when the name is first used: `import fedbench` loads nothing."""

__all__ = [
    "ActiveGroups",
    "Algorithm",
    "ArrivalRule",
    "AsyncAlgorithm",
    "Attack",
    "ClientHistory",
    "Compression",
    "ConfigError",
    "DataError",
    "Dataset",
    "Distribution",
    "Exchange",
    "ExperimentConfig",
    "FedbenchError",
    "FederatedData",
    "Feedback",
    "LayerGroup",
    "LearningRate",
    "LocalContext",
    "Model",
    "ModelError",
    "ModelPool",
    "Objective",
    "Observer",
    "Optimizer",
    "Partition",
    "Result",
    "RoundUpdates",
    "RuleContext",
    "Sampler",
    "Schedule",
    "ServerRule",
    "Split",
    "SuiteResult",
    "Task",
    "TrainedRound",
    "WrittenReport",
    "__version__",
    "resume",
    "run",
    "run_study",
    "run_suite",
    "session",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'fedbench' has no attribute {name!r}")
    value = getattr(import_module(f"fedbench.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, those that are not imported yet included."""
    return sorted({*globals(), *__all__})
