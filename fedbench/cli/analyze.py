"""`fedbench analyze KIND RUN...`: why a method works, on recorded runs."""

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbench.cli.analysis import conclude, perform
from fedbench.cli.entry import interruptible
from fedbench.cli.json_output import print_json
from fedbench.config.passwords import without_passwords
from fedbench.errors import ConfigError
from fedbench.system.home import expanded

analyze = typer.Typer(
    name="analyze",
    help="Why a method works: what recorded runs have learnt, and what their messages tell.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN... [data.root=DIR]",
        help="Run directories, their checkpoints/round-* or kept/model-*; data.root=DIR where the data are now.",
        show_default=False,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="Of the folder in RUN/analysis; else the kind, with -compared for several.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")]


@analyze.callback()
def listing(context: typer.Context, as_json: Json = False) -> None:
    """Why a method works: what recorded runs have learnt, and what their messages tell."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise ConfigError("--json: goes behind the kind of analysis, as in: fedbench analyze kernels RUN --json")
        return
    from fedbench.cli.terminal import print_listing

    rows = [{"name": name, "what it is": summary} for name, summary in kinds().items()]
    print_json(rows) if as_json else print_listing(rows)


def kinds() -> dict[str, str]:
    """{kind of analysis: what it is, in one line}, as the commands say."""
    commands = [command for command in analyze.registered_commands if command.callback is not None]
    return {
        command.name or command.callback.__name__: (command.callback.__doc__ or "").strip().split("\n")[0]
        for command in commands
        if command.callback is not None
    }


@analyze.command()
def kernels(
    runs: Runs,
    layer: Annotated[
        str | None, typer.Option(help="Name of the convolution; else the first that is called.", show_default=False)
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Output channels that are shown, from the first on.")] = 64,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """The kernels of the first convolution as a grid, the same channels side by side over several runs."""
    from fedbench.analysis.kernels import Kernels

    perform(runs, lambda: Kernels.checked(layer=layer, channels=channels).performed, name, as_json)


@analyze.command()
def activations(
    runs: Runs,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Name of a layer; several times for several; else each layer group's.", show_default=False),
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Channels of each layer, from the first on.")] = 8,
    iterations: Annotated[int, typer.Option(min=1, help="Steps of Adam.")] = 1000,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 0.1,
    total_variation: Annotated[float, typer.Option(help="Weight of the total variation.")] = 1.0,
    seed: Seed = 0,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """The images that each layer's channels answer most strongly to, side by side over several runs."""
    from fedbench.analysis.activations import Activations

    options = {
        "layers": tuple(layer or ()),
        "channels": channels,
        "iterations": iterations,
        "lr": lr,
        "total_variation": total_variation,
        "seed": seed,
    }
    perform(runs, lambda: Activations.checked(**options).performed, name, as_json)


@analyze.command()
def mismatch(runs: Runs, name: Name = None, as_json: Json = False) -> None:
    """How local steps jump at aggregations, full beside partial updates, of runs with analysis.step_norms."""
    from fedbench.analysis.mismatch import Mismatch

    perform(runs, lambda: Mismatch.checked().performed, name, as_json)


@analyze.command()
def convergence(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...] [data.root=DIR]",
            help="Runs with analysis.step_norms, whose gradients are looked at; none: problems of known constants.",
            show_default=False,
        ),
    ] = None,
    problems: Annotated[
        str | None, typer.Option(help="Of quadratic,logistic,digits; else all of them.", show_default=False)
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Intervals are over seeds; else 0,1,2,3,4.", show_default=False)
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Factor on all numbers of iterations T, a power of two; else 1.", show_default=False),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="That compute side by side; else one a processor.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The folder to write to without a run; else convergence.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the folder in RUN/analysis, or in OUTPUT/analysis.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """What the theorems of FedAvg, FedPart and OrMo bound, against T: on known problems, or as runs measured it."""
    from fedbench.cli.suite import parse_seeds

    if runs:
        options = {"problems": problems, "seeds": seeds, "scale": scale, "processes": processes, "output": output}
        for option, value in options.items():
            if value is not None:
                raise ConfigError(f"--{option} {value}: has no effect on recorded runs; leave it out")
        from fedbench.analysis.convergence.recorded import RecordedConvergence

        perform(runs, lambda: RecordedConvergence.checked().performed, name, as_json)
        return
    chosen = {
        "problems": None if problems is None else [problem.strip() for problem in problems.split(",")],
        "seeds": None if seeds is None else parse_seeds(seeds),
        "scale": scale,
    }
    given = {option: value for option, value in chosen.items() if value is not None}
    study_convergence(given, processes, output or Path("convergence"), name, as_json)


def study_convergence(
    options: dict[str, Any], processes: int | None, output: Path, name: str | None, as_json: bool
) -> None:
    """Run a convergence study, which needs no recorded run, write it and show it.

    Args:
        options: fields of `Convergence` that are not the default.
        processes: processes that compute side by side; None: one for each processor.
        output: the folder to write to.
        name: of the folder in `output/analysis`; None: the kind of the analysis.
        as_json: whether one JSON document is printed.
    """
    from fedbench.analysis.convergence.known import Convergence
    from fedbench.analysis.results import check_name, write_analysis
    from fedbench.cli.analysis_progress import AnalysisProgress
    from fedbench.cli.terminal import console

    folder = check_name(name or Convergence.kind)
    settings = Convergence.checked(**options)
    command = without_passwords(shlex.join(["fedbench", *sys.argv[1:]]))
    with interruptible(), redirect_stdout(sys.stderr):
        with AnalysisProgress(console) as progress:
            analysis = settings.perform_alone(progress, processes)
        written = write_analysis(analysis, expanded(output), folder, title=analysis.title, command=command)
    conclude(written, (), as_json)


@analyze.command()
def leakage(
    runs: Runs,
    round_: Annotated[
        int | None,
        typer.Option(
            "--round",
            min=1,
            help="Whose start and message are attacked (runtime.keep_models); else the final model, the first message.",
            show_default=False,
        ),
    ] = None,
    groups: Annotated[
        str, typer.Option(help="Layer groups seen alone: names with commas, ends (first and last), each, all.")
    ] = "ends",
    sources: Annotated[
        str,
        typer.Option(help="gradient: of one image; cycle: at all kept rounds; message, messages: as they were kept."),
    ] = "gradient,cycle,message,messages",
    images: Annotated[int, typer.Option(min=1, help="Images that are attacked one by one.")] = 8,
    client: Annotated[
        int | None, typer.Option(min=0, help="Whose images; else the first with a message, or 0.", show_default=False)
    ] = None,
    attack: Annotated[str, typer.Option(help="cosine, or dlg (least squares).")] = "cosine",
    matching: Annotated[
        str | None, typer.Option(help="lbfgs or adam; else lbfgs for dlg, adam for cosine.", show_default=False)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="At most; else 300 of L-BFGS, 3000 of Adam.", show_default=False)
    ] = None,
    total_variation: Annotated[float, typer.Option(min=0, help="Weight of the images' total variation.")] = 0.0,
    labels: Annotated[str, typer.Option(help="given or unknown to the attacker.")] = "given",
    batches: Annotated[
        str, typer.Option(help="Which images were in a minibatch together: given or unknown.")
    ] = "given",
    steps: Annotated[int, typer.Option(min=1, help="Local steps of a message that are simulated, at most.")] = 16,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    name: Name = None,
    as_json: Json = False,
) -> None:
    """The images that an attacker gets back from gradients and from the real messages of clients."""
    from fedbench.analysis.leakage import Leakage

    options = {
        "round": round_,
        "groups": groups,
        "sources": tuple(source.strip() for source in sources.split(",")),
        "images": images,
        "client": client,
        "attack": attack,
        "matching": matching,
        "iterations": iterations,
        "total_variation": total_variation,
        "labels": labels,
        "batches": batches,
        "steps": steps,
        "seed": seed,
        "device": device,
    }
    perform(runs, lambda: Leakage.checked(**options).performed, name, as_json)


@analyze.command()
def landscape(
    runs: Runs,
    round_: Annotated[
        int | None,
        typer.Option(
            "--round",
            min=1,
            help="Of one run that has kept it (runtime.keep_models, keep_messages): client, mean and next mean.",
            show_default=False,
        ),
    ] = None,
    client: Annotated[
        int | None, typer.Option(min=0, help="Whose message in that round; else the first kept.", show_default=False)
    ] = None,
    points: Annotated[int, typer.Option(min=3, help="Places on each line.")] = 21,
    grid: Annotated[int, typer.Option(min=0, help="Places of the plane in each direction; 0: no plane.")] = 15,
    samples: Annotated[int, typer.Option(min=1, help="Rows that are scored.")] = 1000,
    split: Annotated[str, typer.Option(help="Whose rows: train (of all clients) or test.")] = "train",
    statistics: Annotated[
        str, typer.Option(help="BatchNorm's running statistics in between: recalibrated or interpolated.")
    ] = "recalibrated",
    sharpness: Annotated[
        bool, typer.Option("--sharpness/--no-sharpness", help="The largest eigenvalue of the Hessian at each model.")
    ] = True,
    seed: Seed = 0,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """The loss on the line and the plane between models of a run or of several, and how sharp it is at each."""
    from fedbench.analysis.landscape import Landscape

    options = {
        "round": round_,
        "client": client,
        "points": points,
        "grid": grid,
        "samples": samples,
        "split": split,
        "statistics": statistics,
        "sharpness": sharpness,
        "seed": seed,
    }
    perform(runs, lambda: Landscape.checked(**options).performed, name, as_json)
