"""Whole jobs whose time on a GPU is known of others, run by fedbench: how many steps a second, how long the whole.

    python tests/benchmarks/gpu/gpu_jobs.py fedpart --slots 16
    python tests/benchmarks/gpu/gpu_jobs.py pfl --slots 16 --rounds 100            # extrapolated to 1,500 rounds
    python tests/benchmarks/gpu/gpu_jobs.py blazefl-cnn --actors 1 4 8 16

Without `--root` the images are random; their shape and number are CIFAR-10's.
"""

import argparse
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

HERE = Path(__file__).resolve()
PLACES = [str(HERE.parents[1]), str(HERE.parents[2] / "support")]
sys.path[:0] = PLACES

from fedbench import ExperimentConfig, run  # noqa: E402
from fedbench.experiment.result import Result  # noqa: E402
from fedbench.planning.schedules import Feedback  # noqa: E402

WARM_UP = 2
"""First rounds that are left out of the steps a second where there are more: they load libraries."""


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        preset: the preset that it starts from; None: none.
        overrides: what it changes.
        rounds: rounds of the whole job.
        goal: seconds that the whole may take, and whose figure that is.
    """

    preset: str | None
    overrides: tuple[str, ...]
    rounds: int
    goal: str


BLAZEFL = (
    "data.clients=100",
    "data.partition=shards",
    "data.partition.shards_per_client=2",
    "data.augment.flip=true",
    "data.augment.crop=4",
    "local.epochs=5",
    "local.batch_size=50",
    "local.optimizer=sgd",
    "local.optimizer.lr=0.1",
    "schedule=full",
    "evaluation.every=5",
)

JOBS = {
    "fedpart": Job("fedpart-cifar10", ("schedule.cycles=5",), 125, "180 s on an H200, fedbench's own goal"),
    "pfl": Job(
        None,
        (
            "model=pfl_network:PflCnn",
            "data.clients=1000",
            "participation.clients_per_round=50",
            "local.epochs=1",
            "local.batch_size=10",
            "local.optimizer=sgd",
            "local.optimizer.lr=0.1",
            "schedule=full",
            "evaluation.every=10",
        ),
        1500,
        "100 s on an H200, fedbench's own goal",
    ),
    "blazefl-cnn": Job(None, ("model=cnn", *BLAZEFL), 5, "29.6 s, BlazeFL's own figure on an H100"),
    "blazefl-resnet18": Job(None, ("model=resnet18", *BLAZEFL), 5, "115 s, BlazeFL's own figure on an H100"),
}

TINY = (
    "data.clients=4",
    "data.dataset.rows=200",
    "data.samples_per_client=null",
    "data.overlap=false",
    "participation.clients_per_round=null",
    "local.epochs=1",
)
"""The same code in seconds on a CPU: what it prints then says nothing about the job."""


def configuration(
    job: Job, *, rounds: int, device: str, actors: int | None, slots: int, root: Path | None, tiny: bool
) -> ExperimentConfig:
    """The configuration of a job.

    Args:
        rounds: rounds to run.
        device: `runtime.device`.
        actors: client actors that share the GPU; None: this process alone, without Ray.
        slots: clients that train at a time in each process.
        root: where CIFAR-10 lies; None: random images.
        tiny: whether to run it small, to see that it runs.
    """
    images = ["data.dataset=random_images:RandomImages", "data.dataset.rows=50000"]
    data = images if root is None else ["data.dataset=cifar10", f"data.root={root}"]
    place = ["runtime.executor=inline"] if actors is None else [f"runtime.actors={actors}"]
    if actors is not None and device != "cpu":
        place.append("runtime.cpus_per_client=0.5")
    return ExperimentConfig.load(
        job.preset,
        [
            *data,
            *job.overrides,
            *(TINY if tiny else ()),
            *place,
            f"rounds={rounds}",
            f"runtime.device={device}",
            f"runtime.slots={slots}",
            "tracking.enabled=false",
        ],
    )


def figures(job: Job, result: Result) -> dict[str, float]:
    """Steps a second and the seconds of the whole job, from the rounds that were run."""
    rows = result.history.to_pylist()
    clients = pq.read_table(result.directory / "clients.parquet").to_pylist()
    measured = rows[WARM_UP:] if len(rows) > 2 * WARM_UP else rows
    seconds = sum(row["wall_seconds"] for row in measured)
    of_measured = {row["round"] for row in measured}
    steps = sum(client["steps"] for client in clients if client["round"] in of_measured)
    whole = whole_seconds(rows, phases_of(job, result.summary["layer_groups"]))
    return {"steps_per_second": steps / seconds, "whole_seconds": whole, "run_seconds": result.summary["wall_seconds"]}


def whole_seconds(rows: list[dict[str, Any]], phases: list[str]) -> float:
    """The seconds of a whole job, from the rounds of it that were run.

    The first round that trains a layer group, in which its steps are captured, counts as it was. The others of a phase
    (full, partial) take the median of those that were run; where none was, the median of all.

    Args:
        rows: the phase, the group and the wall_seconds of each round that was run.
        phases: the phase of each round of the whole job.
    """
    if len(rows) == len(phases):
        return sum(row["wall_seconds"] for row in rows)
    firsts = {(row["phase"], row["group"]): row for row in reversed(rows)}.values()
    by_phase: dict[str, list[float]] = {}
    for row in rows:
        if not any(row is first for first in firsts):
            by_phase.setdefault(row["phase"], []).append(row["wall_seconds"])
    of_any = statistics.median(row["wall_seconds"] for row in rows)
    usual = {phase: statistics.median(by_phase.get(phase, [of_any])) for phase in phases}
    return sum(usual[phase] for phase in phases) + sum(row["wall_seconds"] - usual[row["phase"]] for row in firsts)


def phases_of(job: Job, groups: int) -> list[str]:
    """The phase of each round of a whole job, full or partial.

    Args:
        groups: layer groups of its network.
    """
    config = configuration(job, rounds=job.rounds, device="auto", actors=None, slots=1, root=None, tiny=False)
    nothing_yet = Feedback(None, (1,) * groups, (0,) * groups)
    actives = (config.schedule.active(index, groups, config.seed, nothing_yet) for index in range(job.rounds))
    return ["partial" if active.partial else "full" for active in actives]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run a job for each number of actors and slots, and print a line for each; returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--rounds", type=int, help="rounds to run, from which the whole is extrapolated")
    parser.add_argument("--actors", type=int, nargs="*", default=[], help="client actors; none: one process, no Ray")
    parser.add_argument("--slots", type=int, nargs="*", default=[1], help="clients at a time in each process")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu", "auto"])
    parser.add_argument("--root", type=Path, help="where CIFAR-10 lies; without it, random images")
    parser.add_argument("--tiny", action="store_true", help="a few images, to see that it runs")
    chosen = parser.parse_args(arguments)
    os.environ["PYTHONPATH"] = os.pathsep.join([*PLACES, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    job, lines = JOBS[chosen.job], []
    for actors in chosen.actors or [None]:
        for slots in chosen.slots:
            rounds = chosen.rounds or job.rounds
            result = run(
                configuration(
                    job,
                    rounds=rounds,
                    device=chosen.device,
                    actors=actors,
                    slots=slots,
                    root=chosen.root,
                    tiny=chosen.tiny,
                )
            )
            line = {"job": chosen.job, "actors": actors or 0, "slots": slots, "rounds": rounds, **figures(job, result)}
            line["device"] = result.summary["devices"][0]["name"]
            lines.append(line)
            kind = "measured" if rounds == job.rounds else f"extrapolated from {rounds} rounds"
            print(
                f"{chosen.job}: {actors or 'no'} actors, {slots} slots on {line['device']}: "
                f"{line['steps_per_second']:.0f} steps/s, {job.rounds} rounds in "
                f"{line['whole_seconds']:.0f} s ({kind}); goal: {job.goal}"
            )
    return lines


if __name__ == "__main__":
    main()
