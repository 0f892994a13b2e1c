"""What each run of a study may spend, so that none is the best only because it is the longest."""

from collections.abc import Iterable, Sequence
from typing import Self

from pydantic import Field, model_validator

from fedbench.components.base import Section
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.studies.metrics import OBJECTIVES, SUCCESSES

ANY_GROUPS = 10
"""A number of layer groups, to compare the lengths of schedules before a model is built."""


class RunBudget(Section):
    """What each run of a study spends; it has as many rounds as that buys, in place of `rounds`.

    Attributes:
        rounds: Rounds; set one of the three.
        mb: MB (10^6 bytes) that all clients send and receive together; set one of the three.
        tflop: Client work of all clients in 10^12 FLOP; set one of the three.
    """

    rounds: int | None = Field(default=None, ge=1)
    mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tflop: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if sum(value is not None for value in (self.rounds, self.mb, self.tflop)) != 1:
            raise ValueError(f"rounds={self.rounds}, mb={self.mb}, tflop={self.tflop}: set one of the three")
        return self

    def applied(self, config: ExperimentConfig) -> ExperimentConfig:
        """The experiment with the rounds that the budget buys.

        Raises:
            FedbenchError: it buys none, or the schedule ends before it is spent, or the experiment cannot be built.
        """
        if self.rounds is not None:
            return config.model_copy(update={"rounds": self.rounds})
        from fedbench.experiment.affordable import affordable_rounds

        most_bytes = None if self.mb is None else self.mb * 1e6
        most_flops = None if self.tflop is None else self.tflop * 1e12
        rounds = affordable_rounds(config, total_bytes=most_bytes, client_flops=most_flops)
        return config.model_copy(update={"rounds": rounds})


def check_equal_lengths(configs: Iterable[ExperimentConfig], sought: Sequence[str], metrics: Sequence[str]) -> None:
    """Refuse a study for the best score in which trials differ in length, and nothing bounds what they spend.

    Args:
        configs: an experiment of every kind of trial, without a run budget.
        sought: the metrics of the objectives.
        metrics: those of objectives and constraints.

    Raises:
        ConfigError: the longest trials would be the best.
    """
    if not set(sought) & set(SUCCESSES) or any(OBJECTIVES[name].grows for name in metrics):
        return
    for kind in ("rounds", "arrivals"):
        lengths = [length for config in configs if (length := _length(config, kind)) is not None]
        if lengths and min(lengths) < max(lengths):
            raise ConfigError(
                f"space: trials would have {min(lengths):g} to {max(lengths):g} {kind}, and the longest would be the "
                "best; fix what each spends (run_budget: {rounds: N}, {mb: N} or {tflop: N}), or add an objective or a "
                "constraint on a cost"
            )


def _length(config: ExperimentConfig, kind: str) -> float | None:
    """The rounds of a synchronous experiment, or the arrivals of an asynchronous one; None for the other kind."""
    if (kind == "arrivals") != (config.asynchronous is not None):
        return None
    rounds = config.rounds if config.rounds != "auto" else config.schedule.length(ANY_GROUPS)
    if kind == "rounds" or rounds is None or config.delays.seconds_per_round is not None:
        return rounds
    return rounds * (config.delays.arrivals_per_round or config.slots())
