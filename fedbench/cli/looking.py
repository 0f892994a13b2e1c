"""Commands that look at configurations, data and recorded runs: `fedbench cost | data | report`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedbench.cli.arguments import Arguments, Json, Trust, load_config, looking_only
from fedbench.cli.json_output import print_json
from fedbench.config.passwords import without_passwords
from fedbench.errors import ConfigError
from fedbench.system.home import expanded


def cost(arguments: Arguments = None, trust: Trust = False, as_json: Json = False) -> None:
    """What a run will cost, in bytes and FLOPs, as measured and as the paper counts, without training."""
    from fedbench.cli.terminal import print_cost
    from fedbench.experiment.estimate import estimate

    typed = [text for text in arguments or [] if "=" in text]
    with looking_only("fedbench cost", typed, trust):
        costs = estimate(load_config(arguments))
    print_json(costs.to_mapping()) if as_json else print_cost(costs)


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

    from fedbench.cli.data_report import parse_parameters, print_data
    from fedbench.data.convert import describe, fetch_or_convert, with_parameters

    source = None if source is None else expanded(source)
    if parameters and source is not None:
        raise ConfigError(f"--source {source}: has no effect with parameters ({parameters[0]}); give one of the two")
    try:
        if parameters:
            component = with_parameters(dataset, parse_parameters(parameters))
            report = describe(component, None if root is None else expanded(root))
        else:
            report = describe(dataset, None) if root is None else fetch_or_convert(dataset, expanded(root), source)
    except ConfigError as error:
        raise ConfigError(str(error).replace("data.root", "--root")) from error
    print_json(asdict(report)) if as_json else print_data(report)


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
