"""The command line: `fedbench run | resume | suite | sweep | cost | data | report | analyze | new | help | list`."""

import shlex
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbench import __version__
from fedbench.cli.analyze import analyze
from fedbench.cli.entry import INTERRUPTED, interruptible, leave, run_command
from fedbench.cli.json_output import print_json
from fedbench.components.named_code import refusing_foreign_code
from fedbench.components.suggestions import did_you_mean
from fedbench.config.passwords import without_passwords
from fedbench.errors import ConfigError
from fedbench.system.home import expanded

LISTINGS = (
    "presets",
    "suites",
    "studies",
    "algorithms",
    "schedules",
    "exchanges",
    "models",
    "datasets",
    "partitions",
    "optimizers",
    "samplers",
    "attacks",
    "compressions",
    "delays",
    "availabilities",
    "devices",
    "links",
)
DEFAULT_PRESET = "quickstart"

app = typer.Typer(
    name="fedbench",
    help="Federated-learning experiments on a Ray cluster, with every byte and FLOP accounted for.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(analyze)

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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def cost(arguments: Arguments = None, trust: Trust = False, as_json: Json = False) -> None:
    """What a run will cost, in bytes and FLOPs, as measured and as the paper counts, without training."""
    from fedbench.cli.terminal import print_cost
    from fedbench.experiment.estimate import estimate

    typed = [text for text in arguments or [] if "=" in text]
    with looking_only("fedbench cost", typed, trust):
        costs = estimate(load_config(arguments))
    print_json(costs.to_mapping()) if as_json else print_cost(costs)


@app.command()
def data(
    dataset: Annotated[str, typer.Argument(help="Name of a data set (see: fedbench list datasets).")],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Its parameters, e.g. label=price (see: fedbench help dataset.NAME).",
            show_default=False,
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder that holds, or will hold, the data sets.")] = None,
    source: Annotated[
        Path | None, typer.Option(help="An image tree (train/CLASS/*, test/CLASS/*) or torchvision root to convert.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch or convert a data set to Parquet, check it, and say what is there."""
    from dataclasses import asdict

    from fedbench.cli.terminal import print_data
    from fedbench.config.merge import parse_overrides
    from fedbench.data.convert import describe, fetch_or_convert, with_parameters

    source = None if source is None else expanded(source)
    if parameters and source is not None:
        raise ConfigError(f"--source {source}: has no effect with parameters ({parameters[0]}); give one of the two")
    try:
        if parameters:
            component = with_parameters(dataset, parse_overrides(parameters))
            report = describe(component, None if root is None else expanded(root))
        else:
            report = describe(dataset, None) if root is None else fetch_or_convert(dataset, expanded(root), source)
    except ConfigError as error:
        raise ConfigError(str(error).replace("data.root", "--root")) from error
    print_json(asdict(report)) if as_json else print_data(report)


@app.command()
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN_DIR",
            help="Run directories, or folders that hold some; without any, and without --experiment: runs.",
            show_default=False,
        ),
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="An MLflow experiment whose runs are read, too.")] = None,
    mlflow_uri: Annotated[str | None, typer.Option("--mlflow-uri", help="Where that experiment is.")] = None,
    target: Annotated[
        float | None,
        typer.Option(
            help="Accuracy (0..1), or perplexity, MAE, ..., to be reached; else a tenth worse than the worst method's.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Label of the method that others are measured against; else plain FedAvg.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Of the main table, by the names of --json, e.g. best_accuracy,total_bytes.", show_default=False
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD=TEXT",
            help="What a method is called everywhere, e.g. fedprox='FedProx (ours)'; may be given several times.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the report; else report.", show_default=False)] = None,
    upload: Annotated[
        bool, typer.Option("--upload", help="No report: send to MLflow what it lacks of these runs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare recorded runs: tables, charts, differences seed by seed, and what cannot be compared."""
    from fedbench.cli.report_terminal import print_report, print_uploaded
    from fedbench.report.make import Wanted, report_on, upload_all
    from fedbench.report.markdown import document

    if upload:
        options = {"target": target, "baseline": baseline, "columns": columns, "output": output}
        for name, value in (options | {"label": label[0] if label else None}).items():
            if value is not None:
                raise ConfigError(f"--{name} {value}: has no effect with --upload; leave it out")
        if not runs:
            raise ConfigError("--upload: name the run directories to send")
        sent = upload_all(runs, mlflow_uri, experiment)
        print_json(sent) if as_json else print_uploaded(sent)
        return
    if mlflow_uri is not None and experiment is None:
        raise ConfigError(f"--mlflow-uri {mlflow_uri}: has no effect without --experiment or --upload")
    paths = tuple(runs or ()) or ((default_runs(),) if experiment is None else ())
    command = without_passwords(shlex.join(["fedbench", *sys.argv[1:]]))
    names = () if columns is None else tuple(name.strip() for name in columns.split(","))
    wanted = Wanted(
        paths,
        experiment=experiment,
        mlflow_uri=mlflow_uri,
        target=target,
        baseline=baseline,
        labels=tuple(label or ()),
        columns=names,
        command=command,
    )
    comparison_report, files = report_on(wanted, output or Path("report"))
    if as_json:
        print_json(document(comparison_report) | {"files": files})
    else:
        print_report(comparison_report, files)


def default_runs() -> Path:
    """The folder of runs whose configuration names no directory."""
    from fedbench.records.run_directory import runs_root

    return runs_root()


@app.command()
def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="algorithm, async-algorithm, schedule, exchange, model, dataset, partition, sampler, attack, "
            "optimizer, suite or study.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str, typer.Argument(help="Of the module, in snake case; of a suite's or study's file.", show_default=False)
    ],
    directory: Annotated[
        Path, typer.Option(help="The folder to write to; else the current one.", show_default=False)
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Write a small part of your own that runs as it stands, with its test: a place to start from."""
    from fedbench.cli.new import create

    part = create(kind, name, expanded(directory))
    print_json(part.to_mapping()) if as_json else typer.echo("\n".join(part.lines()))


@app.command(name="help")
def help_(
    section: Annotated[
        str | None,
        typer.Argument(
            metavar="[SECTION]",
            help="Such as data, runtime, schedule, algorithm.fedprox, suite or study; none: what there is.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Explain the keys of configurations, suites and studies: type, default and meaning."""
    from fedbench.cli.help import explain_section, print_explanation

    explanation = explain_section(section or "")
    print_json(explanation.to_mapping()) if as_json else print_explanation(explanation)


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(metavar="|".join(LISTINGS), show_default=False)], as_json: Json = False
) -> None:
    """The built-in presets, suites, studies, algorithms, models, data sets and other parts that go by name."""
    from fedbench.cli.listing import listing
    from fedbench.cli.terminal import print_listing

    if what not in LISTINGS:
        raise ConfigError(f"{what}: nothing to list by that name{did_you_mean(what, LISTINGS)}")
    rows = listing(what)
    print_json(rows) if as_json else print_listing(rows)


def conclude(result: Any, as_json: bool) -> None:
    """Show the result of a run; exit with the code for an interrupt if it was interrupted."""
    from fedbench.cli.terminal import console, print_summary, print_warnings

    print_warnings(result.warnings)
    if as_json:
        print_json(result.summary | {"directory": str(result.directory)})
    else:
        print_summary(result)
    if result.summary["status"] == "interrupted":
        console.print(f"go on with: fedbench resume {result.directory}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED)


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


def main() -> None:
    """Entry point: run the command that `sys.argv` names, and end the process with its status."""
    leave(run_command(app))
