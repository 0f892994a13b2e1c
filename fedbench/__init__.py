"""fedbench: federated-learning experiments on a Ray cluster, with every byte and FLOP accounted for.

>>> from fedbench import ExperimentConfig, run
>>> result = run(ExperimentConfig.load("quickstart", ["rounds=3"]))  # doctest: +SKIP
>>> result.summary["final_accuracy"]  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fedbench.config.experiment import ExperimentConfig
    from fedbench.experiment.result import Result
    from fedbench.experiment.run import resume, run

__all__ = ["ExperimentConfig", "Result", "__version__", "resume", "run"]


def __getattr__(name: str) -> Any:
    # Resolved when asked for, so that `import fedbench.planning.schedules` in an actor does not load everything.
    if name == "ExperimentConfig":
        from fedbench.config.experiment import ExperimentConfig

        return ExperimentConfig
    if name == "Result":
        from fedbench.experiment.result import Result

        return Result
    if name in ("resume", "run"):
        from fedbench.experiment import run as experiment

        return getattr(experiment, name)
    raise AttributeError(f"module 'fedbench' has no attribute {name!r}")
