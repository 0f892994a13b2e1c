"""The `analysis` section of a configuration."""

from typing import Self

from pydantic import Field, model_validator

from fedbench.components.base import Section
from fedbench.config.runtime import Rounds


class AnalysisSection(Section):
    """What is measured of the training while it goes on, and recorded in tables of its own; changes no result.

    Attributes:
        step_norms: Whether to record the norms of the clients' local steps: of the change of the trained parameters,
            and of the gradient. `steps.parquet` has mean and quartiles over the clients, whole and by layer group.
        divergence: Whether to record how far the clients' updates of a round point apart, by layer group: the cosine of
            each to the mean update, FedLAMA's discrepancy, and the share that cancels (`divergence.parquet`). The
            server then receives and keeps the single updates of a round.
        cka: Rounds, counted from 1, after which every client's model is compared with the new global model by the
            linear CKA of each layer group's features (`cka.parquet`): a list of numbers and of ranges, such as
            [1, 6-25].
        barrier: Rounds after which the loss on the line from every client's model to the new global model is looked at,
            for the whole model and for one layer group at a time (`barrier.parquet`).
        samples: Rows of the test split, drawn by the seed, on which cka and barrier are measured.
        points: Models on each line of barrier, its two ends included.
    """

    step_norms: bool = False
    divergence: bool = False
    cka: Rounds = ()
    barrier: Rounds = ()
    samples: int = Field(default=256, ge=4)
    points: int = Field(default=5, ge=3)

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        defaults = type(self).model_fields
        if self.samples != defaults["samples"].default and not (self.cka or self.barrier):
            raise ValueError(f"samples={self.samples}: has no effect without cka or barrier; leave it out")
        if self.points != defaults["points"].default and not self.barrier:
            raise ValueError(f"points={self.points}: has no effect without barrier; leave it out")
        return self

    def check_asynchronous(self) -> None:
        """Refuse what makes no sense in an asynchronous run.

        Raises:
            ValueError: something is to be measured.
        """
        for name in ("step_norms", "divergence"):
            if getattr(self, name):
                raise ValueError(f"analysis.{name}=true: an asynchronous run has no rounds to compare; leave it out")
        for name in ("cka", "barrier"):
            if rounds := getattr(self, name):
                raise ValueError(
                    f"analysis.{name}={list(rounds)}: an asynchronous run has no mean of a round's models; leave it out"
                )
