"""Seconds from the command to the first round and from the last round to the prompt, by parts, and what they cost.

Each command is a process of its own with a Ray of its own, observed from outside. Judges nothing:

    pytest tests/benchmarks/test_start_and_end.py -m benchmark -s

Measured on 2 cores that others used, too (load 2.6 to 5.7): the second benchmark's commands with MLflow, to which a
process of its own talks, and without it in turns, five each. Of each kind the three in which no round took more than
0.8 s; in the others somebody else had a core:

    MLflow    rounds 2 to 5 / 6 to 12    command to end of round 1    last round to prompt    seconds of a core
    on        1.00  1.02  1.18           6.7  6.8  8.5 s              1.5  1.6  1.6 s         21.1  21.2  21.7
    off       0.97  1.01  1.11           6.4  6.6  7.6 s              1.2  1.5  1.5 s         19.0  19.1  19.7

On two slower cores that nobody else used, where importing Ray and `ray.init` take 5.0 s (4.3 to 6.1), the first
benchmark's commands, min median max of three:

    PyTorch is imported           to "starting ..."        command to end of round 1    last round to prompt
    to read the configuration     3.42  3.49  3.64 s        9.42   9.84  10.20 s        1.76  1.99  2.15 s
    beside the start of Ray       0.92  1.13  1.18 s        8.60   8.66   9.64 s        1.67  2.02  2.28 s

On two cores that nobody else used, where `ray.init` without a dashboard takes 4.1 to 4.5 s after an import of 0.5 s,
min median max of three:

    actors asked for, server is      command to end of round 1   last round to prompt   seconds of a core
    after PyTorch's import, actor    7.47  7.69  7.87 s          1.91  2.13  2.34 s     15.2  16.5  16.5
    before it, in the driver         5.62  5.80  6.63 s          1.44  1.56  1.76 s     12.8  13.1  13.4
"""

import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from process_times import Observed, observe

from fedbench.records.reader import load_run

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

REPEATS = 3
HERE = Path(__file__).parent


def command(folder: Path, *overrides: str) -> Observed:
    """Run `fedbench run OVERRIDES` on two actors of a Ray of its own."""
    folder.mkdir()
    outside = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in outside}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment["FEDBENCH_CACHE"] = str(folder.parent / "cache")
    arguments = ["run", *overrides, "runtime.actors=2", "output.directory=run"]
    return observe([sys.executable, "-m", "fedbench", *arguments], folder, environment)


def parts(seen: Observed, rounds: int) -> dict[str, float]:
    """Seconds of each part of a command; the parts follow each other."""
    moments = {
        "interpreter, configuration, first look at the data": seen.when("starting "),
        "import of Ray": seen.first_seen["Ray's daemons"],
        "Ray's daemons and the actors' imports, data, model": seen.first_seen["ClientActor"],
        "actors made ready": seen.when(f"{rounds} rounds, "),
        "first round": seen.when(f"round 1/{rounds}"),
        "rounds after the first": seen.when(f"round {rounds}/{rounds}"),
        "last round to result: model, plots, MLflow, Ray's end": seen.when("files  "),
        "result to prompt": seen.seconds,
    }
    began = [0.0, *moments.values()]
    return {name: moment - before for (name, moment), before in zip(moments.items(), began, strict=False)}


def spread(values: Sequence[float]) -> str:
    return f"{min(values):6.2f} {statistics.median(values):6.2f} {max(values):6.2f}"


def test_start_and_end_of_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = [command(tmp_path / str(repeat), "rounds=3") for repeat in range(REPEATS)]
    by_part = [parts(one, 3) for one in seen]
    with capsys.disabled():
        print(f"\nfedbench run rounds=3 on 2 actors, {REPEATS} commands: seconds, min median max")
        for name in by_part[0]:
            print(f"  {name:<55} {spread([one[name] for one in by_part])}")
        print(f"  {'command to the end of the first round':<55} {spread([one.when('round 1/3') for one in seen])}")
        last = [one.seconds - one.when("round 3/3") for one in seen]
        print(f"  {'end of the last round to the prompt':<55} {spread(last)}")
        print("seconds of a core, min median max")
        for kind in seen[0].processor:
            print(f"  {kind:<55} {spread([one.processor.get(kind, 0.0) for one in seen])}")
        print(f"  {'all':<55} {spread([sum(one.processor.values()) for one in seen])}")
        print(f"processes that outlived their command: {[one.left for one in seen if one.left] or 'none'}")


def test_rounds_2_to_5_against_later_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While they run, MLflow is imported and its store is made in the background."""
    ratios = []
    with capsys.disabled():
        print("\n50 clients x 50 images, batch 10, 2 actors, MLflow with a new store: seconds of rounds 1 to 12")
        for repeat in range(REPEATS):
            folder = tmp_path / str(repeat)
            command(
                folder, "quickstart", "rounds=12", "schedule=full",
                "data.dataset=random_images:RandomImages", "data.dataset.rows=2500", "data.clients=50",
                "data.partition=iid", "model=plain_networks:StridedCnn", "local.batch_size=10", "local.epochs=1",
            )  # fmt: skip
            seconds = load_run(folder / "run")[1].column("wall_seconds").to_pylist()
            ratios.append(statistics.mean(seconds[1:5]) / statistics.mean(seconds[5:]))
            print("  " + " ".join(f"{value:.2f}" for value in seconds))
        print(f"  rounds 2 to 5 / rounds 6 to 12, of means: {spread(ratios)}")
