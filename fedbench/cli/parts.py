"""Commands about the parts of fedbench: `fedbench new | help | list`."""

from pathlib import Path
from typing import Annotated

import typer

from fedbench.cli.arguments import Json
from fedbench.cli.json_output import print_json
from fedbench.components.suggestions import did_you_mean
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


def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="algorithm, async-algorithm, schedule, exchange, model, dataset, partition, sampler, attack, "
            "optimizer, metric, suite or study.",
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
