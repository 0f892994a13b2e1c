"""The options of an analysis: checked when they are read, from a command line or from a suite's file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import ValidationError

from fedbench.components.base import Section, explain
from fedbench.errors import ConfigError

if TYPE_CHECKING:
    from fedbench.analysis.recorded_model import RecordedModel
    from fedbench.analysis.results import Analysis, Progress


class AnalysisOptions(Section):
    """The options of one kind of analysis."""

    kind: ClassVar[str]

    @classmethod
    def checked(cls, **options: Any) -> Self:
        """The options of a command line, checked.

        Raises:
            ConfigError: one line with the option, the value and what is allowed.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise ConfigError(f"--{explain(error, '', list(cls.model_fields))}") from None


class AnalysisSettings(AnalysisOptions, ABC):
    """The options of one kind of analysis, which can be performed on models."""

    def performed(self, models: "Sequence[RecordedModel]", progress: "Progress") -> "Analysis":
        """What `perform` finds, computed by one thread.

        Two threads of PyTorch are many times slower than one where anything else wants a core, and sum in another
        order.
        """
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.perform(models, progress)
        finally:
            torch.set_num_threads(threads)

    @abstractmethod
    def perform(self, models: "Sequence[RecordedModel]", progress: "Progress") -> "Analysis":
        """Look into the models.

        Args:
            models: at least one.
            progress: told how far it is.

        Raises:
            FedbenchError: the models do not fit the analysis, or each other.
        """
