"""What several commands take: arguments and options, the configuration that they name, and trust in its code."""

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import typer

from fedbench.components.named_code import refusing_foreign_code
from fedbench.errors import ConfigError

DEFAULT_PRESET = "quickstart"

Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PRESET|FILE.yaml] [KEY=VALUE]...",
        help="What to run, then dotted overrides, e.g. fedpart-cifar10 data.root=DIR seed=3.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Execute code that the file names by import path, to look at what it builds.")
]


def load_config(arguments: list[str] | None) -> Any:
    """Load the configuration that a command line names."""
    from fedbench.config.experiment import ExperimentConfig

    given = list(arguments or [])
    source = DEFAULT_PRESET if not given or "=" in given[0] else given.pop(0)
    for text in given:
        if "=" not in text:
            raise ConfigError(
                f"{text}: one preset or file at a time ({source} is given); overrides are written key=value"
            )
    return ExperimentConfig.load(source, given)


def looking_only(command: str, typed: list[str], trust: bool) -> AbstractContextManager[None]:
    """Context of a command that only looks at a file: code that the file names is executed only if it is trusted.

    Args:
        command: what the user called.
        typed: the overrides of the command line; import paths in them are imported.
        trust: whether the user trusts the file.
    """
    return nullcontext() if trust else refusing_foreign_code(command, typed)
