"""Commands that train: `fedbench run | resume | suite | sweep`."""

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbench.cli.arguments import Arguments, Json, Trust, load_config, looking_only
from fedbench.cli.entry import FAILED, INTERRUPTED, interruptible
from fedbench.cli.json_output import print_json
from fedbench.config.passwords import without_passwords
from fedbench.errors import ConfigError


def run(
    arguments: Arguments = None,
    as_json: Json = False,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="events.parquet of an asynchronous run, or clients.parquet of one with a round deadline: who arrived "
            "when, or was dropped, is followed again."
        ),
    ] = None,
) -> None:
    """Run an experiment; without arguments, the quickstart."""
    from fedbench.cli.consent import with_consent
    from fedbench.cli.terminal import Progress, console
    from fedbench.experiment.run import run as run_experiment

    given = list(arguments or [])
    config = load_config(given)
    if replay is not None:
        section = "delays" if config.asynchronous else "participation"
        given.append(f"{section}.replay={replay}")

    def start(further: list[str]) -> Any:
        with Progress(console) as progress:
            return run_experiment(load_config([*given, *further]), [progress], announce=progress.announce)

    # Ray tells of lost nodes on stdout, which is the result's.
    with interruptible(), redirect_stdout(sys.stderr):
        result = with_consent(start)
    conclude(result, as_json)


def resume(
    directory: Annotated[Path, typer.Argument(help="The run directory.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Of runtime and tracking, e.g. runtime.actors=2.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was interrupted or killed, from its last checkpoint."""
    from fedbench.cli.consent import with_consent
    from fedbench.cli.terminal import Progress, console
    from fedbench.experiment.run import resume as resume_run

    def start(further: list[str]) -> Any:
        with Progress(console) as progress:
            return resume_run(directory, [*(overrides or []), *further], [progress], announce=progress.announce)

    with interruptible(), redirect_stdout(sys.stderr):
        result = with_consent(start)
    conclude(result, as_json)


def suite(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SUITE|FILE.yaml [KEY=VALUE]...",
            help="Which table, then dotted overrides, e.g. fedpart-table1 data.root=DIR.",
            show_default=False,
        ),
    ],
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2; else the suite's own.", show_default=False)] = None,
    only: Annotated[
        str | None,
        typer.Option(help="ROW/COLUMN, a row or a column; with wildcards, e.g. 'cifar10/FedAvg*'.", show_default=False),
    ] = None,
    scale: Annotated[float, typer.Option(help="Of rounds and data, for a smaller table, which says so.")] = 1.0,
    dry: Annotated[bool, typer.Option("--dry-run", help="What would run, and at which cost.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run everything again, also what is recorded.")] = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """A paper's table: every cell run that is not recorded yet, mean and deviation beside the published figures."""
    from fedbench.cli.suite import carry_out, dry_run, make_plan

    if trust and not dry:
        raise ConfigError("--trust: has no effect without --dry-run: a suite that runs executes the code that it names")
    if dry:
        from fedbench.cli.suite_terminal import print_foreseen

        with looking_only("fedbench suite --dry-run", arguments[1:], trust):
            plan = make_plan(arguments, seeds, only, scale)
            document, foreseen = dry_run(plan, force)
        print_json(document) if as_json else print_foreseen(plan, foreseen)
        return
    plan = make_plan(arguments, seeds, only, scale)
    status, document = carry_out(plan, as_json, force)
    if as_json:
        print_json(document)
    raise typer.Exit(status)


def sweep(
    study: Annotated[str, typer.Argument(help="A study file, or the name of one that comes with fedbench.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Of the base configuration, e.g. data.root=DIR; base=PRESET and name=NAME are the study's own.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many trials in all, earlier ones included.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Trials at a time.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Path of a journal, or a database to share a study: sqlite:///FILE, postgresql://USER@HOST/DATABASE."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search over configurations with Optuna: many trials beside each other, or go on with a study."""
    from fedbench.cli.study_terminal import StudyProgress, print_study, to_document
    from fedbench.cli.terminal import console, print_warnings, results
    from fedbench.studies.file import load_study
    from fedbench.studies.run import sweep as run_study

    file = load_study(study, overrides or [], trials=trials, concurrency=concurrency, storage=storage)
    with redirect_stdout(sys.stderr):
        result = run_study(file, StudyProgress(console))
    print_warnings(result.warnings)
    print_json(to_document(result)) if as_json else print_study(result, results)
    if result.status == "interrupted":
        arguments = sys.argv[sys.argv.index("sweep") + 1 :]
        command = shlex.join(["fedbench", "sweep", *map(without_passwords, arguments)])
        console.print(f"go on with: {command}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if not result.best:
        raise typer.Exit(FAILED)


def conclude(result: Any, as_json: bool) -> None:
    """Show the result of a run; exit with the code for an interrupt if it was interrupted."""
    from fedbench.cli.terminal import console, print_summary, print_warnings

    print_warnings(result.warnings)
    if as_json:
        print_json(result.summary | {"task": result.task, "directory": str(result.directory)})
    else:
        print_summary(result)
    if result.summary["status"] == "interrupted":
        console.print(f"go on with: fedbench resume {result.directory}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
