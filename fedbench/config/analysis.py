"""The `analysis` section of a configuration."""

from fedbench.components.base import Section


class AnalysisSection(Section):
    """What is measured of the training while it goes on, and recorded in tables of its own; changes no result.

    Attributes:
        step_norms: Whether to record the norms of the clients' local steps: of the change of the trained parameters,
            and of the gradient. `steps.parquet` has mean and quartiles over the clients, whole and by layer group.
        divergence: Whether to record how far the clients' updates of a round point apart, by layer group: the cosine of
            each to the mean update, FedLAMA's discrepancy, and the share that cancels (`divergence.parquet`). The
            server then receives and keeps the single updates of a round.
    """

    step_norms: bool = False
    divergence: bool = False

    def check_asynchronous(self) -> None:
        """Refuse what makes no sense in an asynchronous run.

        Raises:
            ValueError: something is to be measured.
        """
        for name in ("step_norms", "divergence"):
            if getattr(self, name):
                raise ValueError(f"analysis.{name}=true: an asynchronous run has no rounds to compare; leave it out")
