"""Whether the data of a recorded run are still those that lie there now."""

from pathlib import Path

from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import FedbenchError
from fedbench.experiment.federation import load_data
from fedbench.records.reader import load_description

SHOWN_DIGITS = 12


class PresentData:
    """The fingerprints of data sets as they are now; each is read once."""

    def __init__(self) -> None:
        self._fingerprints: dict[str, str | None] = {}

    def difference(self, config: ExperimentConfig, directory: Path) -> str:
        """Both fingerprints, where a run was recorded on other data; "" where the data agree, or are not there.

        Args:
            config: of the run.
            directory: where it is recorded.
        """
        try:
            recorded = load_description(directory).dataset_digest
        except FedbenchError:
            return ""
        present = self._fingerprint(config)
        if present is None or present == recorded:
            return ""
        return f"data {recorded[:SHOWN_DIGITS]}, not {present[:SHOWN_DIGITS]}"

    def _fingerprint(self, config: ExperimentConfig) -> str | None:
        section = config.data
        fractions = section.test_fraction, section.validation_fraction
        key = f"{section.dataset!r} {section.root} {fractions} {config.seed}"
        if key not in self._fingerprints:
            try:
                self._fingerprints[key] = load_data(config).fingerprint
            except Exception:  # the data are not needed to show what is recorded, and one's own may raise anything
                self._fingerprints[key] = None
        return self._fingerprints[key]
