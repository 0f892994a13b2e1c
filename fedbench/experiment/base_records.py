"""What a run records of the frozen base of its network, and how a run that goes on is held to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbench.checkpoints.files import Checkpoint
from fedbench.errors import ConfigError

if TYPE_CHECKING:
    from fedbench.experiment.setup import Problem


def base_entries(problem: "Problem") -> dict[str, Any]:
    """The number of parameters in the frozen base of the network and their SHA-256, where it has such a base."""
    base = problem.spec.base
    return {"base_parameters": base.parameters, "base_sha256": base.sha256} if base and base.values else {}


def base_in_words(problem: "Problem") -> str:
    """A clause on the frozen base of the network; "" where it has none."""
    base = problem.spec.base
    return f", beside {base.parameters:,} frozen ones (SHA-256 {base.sha256})" if base and base.values else ""


def check_base(path: Path, problem: "Problem", newest: Checkpoint | None) -> None:
    """Refuse to go on over another frozen base than the one that the run was on when the checkpoint was written.

    Raises:
        ConfigError: it is another one.
    """
    recorded = newest.state.get("base_sha256") if newest else None
    base = base_entries(problem).get("base_sha256")
    if newest is not None and recorded != base:
        raise ConfigError(
            f"{path}: the frozen base of model.name={problem.config.model.name} is no longer the one that the run "
            f"began with (SHA-256 was {recorded}, is {base}); bring that back, or run it anew"
        )
