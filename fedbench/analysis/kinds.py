"""The kinds of analysis that can be performed on the models of several runs, by name."""

from importlib import import_module

from fedbench.analysis.settings import AnalysisSettings
from fedbench.components.suggestions import did_you_mean

KINDS = {
    "activations": "fedbench.analysis.activations:Activations",
    "convergence": "fedbench.analysis.convergence.recorded:RecordedConvergence",
    "kernels": "fedbench.analysis.kernels:Kernels",
    "landscape": "fedbench.analysis.landscape:Landscape",
    "leakage": "fedbench.analysis.leakage:Leakage",
    "mismatch": "fedbench.analysis.mismatch:Mismatch",
}
"""{kind: where its options are}; what is not asked for is not imported."""


def settings_class(kind: str) -> type[AnalysisSettings]:
    """The options of a kind of analysis.

    Raises:
        ValueError: there is no such kind; a near miss is suggested.
    """
    if kind not in KINDS:
        raise ValueError(f"no such analysis{did_you_mean(kind, KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    settings: type[AnalysisSettings] = getattr(import_module(module), name)
    return settings
