"""The command line: `fedbench run | resume | suite | sweep | cost | data | report | analyze | new | help | list`."""

from typing import Annotated

import typer

from fedbench import __version__
from fedbench.cli.analyze import analyze
from fedbench.cli.entry import leave, run_command
from fedbench.cli.looking import cost, data, report
from fedbench.cli.parts import help_, list_, new
from fedbench.cli.running import resume, run, suite, sweep

app = typer.Typer(
    name="fedbench",
    help="Federated-learning experiments on a Ray cluster, with every byte and FLOP accounted for.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(analyze)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"fedbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """Federated-learning experiments on a Ray cluster, with every byte and FLOP accounted for."""


for command in (run, resume, suite, sweep, cost, data, report, new):
    app.command()(command)
app.command(name="help")(help_)
app.command(name="list")(list_)


def main() -> None:
    """Entry point: run the command that `sys.argv` names, and end the process with its status."""
    leave(run_command(app))
