"""Caveats on methods that differ in more than what they are: data, partitions, lengths, seeds, versions."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from fedbench.records.recorded_run import RecordedRun
from fedbench.report.caveats import Caveat, note, warn
from fedbench.report.methods import Method
from fedbench.tables.seed_statistics import FEWEST_SEEDS

T = TypeVar("T", int, str)


def remarks(methods: Sequence[Method], readable: Sequence[RecordedRun]) -> list[Caveat]:
    """What makes a comparison of these methods less than fair.

    Args:
        methods: the methods, with the runs that count.
        readable: all runs that could be read, also those that do not count.
    """
    by_task: dict[str, list[Method]] = defaultdict(list)
    for method in methods:
        by_task[method.task].append(method)
    return [
        *_mixed_up(readable),
        *_other_tasks(by_task),
        *(caveat for same in by_task.values() for caveat in _within_a_task(same)),
        *_missing_seeds(methods),
        *_other_versions(methods),
        *_rejected(methods),
    ]


def _other_tasks(by_task: Mapping[str, Sequence[Method]]) -> Iterable[Caveat]:
    if len(by_task) > 1:
        sides = "; ".join(f"{task.replace('_', ' ')}: {_letters(same)}" for task, same in by_task.items())
        yield note(f"the methods were run on different tasks, each judged by its own metric and shown apart ({sides})")


def _within_a_task(methods: Sequence[Method]) -> Iterable[Caveat]:
    """Caveats on methods that were run on one task, and so are compared."""
    yield from _other_data(methods)
    yield from _other_partitions(methods)
    yield from _chosen_differently(methods)
    yield from _other_lengths(methods)


def _mixed_up(readable: Sequence[RecordedRun]) -> Iterable[Caveat]:
    """Caveats on different data under one name.

    Another seed may draw another partition, so partitions are compared by seed.
    """
    for name, runs in _by(readable, lambda run: run.name).items():
        if len(data := different_data(runs)) > 1:
            places = "; ".join(f"{_data(same[0])}: {_places(same)}" for same in data)
            yield warn(f"runs named {name} are mixed up: they were run on different data ({places})")
            continue
        for seed, same in _by(runs, lambda run: run.seed).items():
            divided = _by([run for run in same if not run.pools_rows], lambda run: run.partition_digest)
            if len(divided) > 1:
                places = "; ".join(_places(alike) for alike in divided.values())
                ways = f"with seed {seed} the data was divided in {len(divided)} ways"
                yield warn(f"runs named {name} are mixed up: {ways} ({places})")


def _other_data(methods: Sequence[Method]) -> Iterable[Caveat]:
    for method in methods:
        if len(different_data(method.runs)) > 1:
            yield warn(f"{method.title}: its seeds were run on different data, so its mean says little")
    data = different_data([run for method in methods for run in method.runs])
    if len(data) > 1:
        scores = methods[0].headline.plural
        sides = "; ".join(
            f"{_data(same[0])}: {_letters(method for method in methods if set(_each(method.runs)) & set(_each(same)))}"
            for same in data
        )
        yield warn(f"the methods were run on different data, so their {scores} cannot be compared ({sides})")


def different_data(runs: Sequence[RecordedRun]) -> list[list[RecordedRun]]:
    """Runs on different data, those on the same together; one list where all agree.

    A split that the seed draws differs from seed to seed by design: there, runs are compared by seed, and the
    first seed at which they disagree is returned.
    """
    by_set = _by(runs, lambda run: run.description.dataset_name)
    if len(by_set) > 1:
        return list(by_set.values())
    by_seed = any(run.description.held_out_by_seed for run in runs)
    pools = _by(runs, lambda run: run.seed).values() if by_seed else [list(runs)]
    for pool in pools:
        by_digest = _by(pool, lambda run: run.description.dataset_digest)
        if len(by_digest) > 1:
            return list(by_digest.values())
    return [list(runs)]


def _other_partitions(methods: Sequence[Method]) -> Iterable[Caveat]:
    """Caveats on methods that with the same seed did not see the same clients."""
    differing: dict[int, list[list[Method]]] = {}
    for seed in sorted({seed for method in methods for seed in method.seeds}):
        divided: dict[str, list[Method]] = defaultdict(list)
        for method in methods:
            for run in method.runs:
                if run.seed == seed and not run.pools_rows:
                    divided[f"{run.description.dataset_digest} {run.partition_digest}"].append(method)
        if len(divided) > 1:
            differing[seed] = list(divided.values())
    if differing:
        seed, sides = next(iter(differing.items()))
        seeds = ", ".join(map(str, differing))
        yield warn(
            "the data was not divided among clients in the same way for all methods "
            f"(seed{'s' if len(differing) > 1 else ''} {seeds}; with seed {seed}: {' | '.join(map(_letters, sides))})"
        )


def _chosen_differently(methods: Sequence[Method]) -> Iterable[Caveat]:
    """Caveats on best values that were chosen on the test split, for all methods or for some."""
    on_test = [method for method in methods if any(run.chosen_on == "test" for run in method.runs)]
    others = [method for method in methods if method not in on_test]
    shown = methods[0].headline
    extreme, bias = ("largest", "high") if shown.headline.higher_is_better else ("smallest", "low")
    if on_test and others:
        yield warn(
            "the best rounds of some methods were chosen on the test split, those of others on a validation split, so "
            f"their best {shown.plural} cannot be compared (test: {_letters(on_test)}; validation: {_letters(others)})"
        )
    elif on_test:
        yield note(
            f"best {shown.plural} are the {extreme} on the test split itself, and by that somewhat too {bias}; "
            "data.validation_fraction holds out training rows to choose on"
        )


def _other_lengths(methods: Sequence[Method]) -> Iterable[Caveat]:
    cohorts = [method for method in methods if not method.is_asynchronous]
    arrivals = [method for method in methods if method.is_asynchronous]
    for comparable in (cohorts, arrivals):
        by_rounds: dict[int, list[Method]] = defaultdict(list)
        for method in comparable:
            by_rounds[method.runs[0].rounds.num_rows].append(method)
        if len(by_rounds) > 1:
            sides = "; ".join(f"{rounds} rounds: {_letters(same)}" for rounds, same in sorted(by_rounds.items()))
            yield note(f"the methods did not run equally long ({sides})")
    if cohorts and arrivals:
        yield note(
            "a round of an asynchronous method is a stretch of arrivals, not a cohort: compare by bytes, FLOPs or "
            f"time, not by rounds (asynchronous: {_letters(arrivals)})"
        )


def _missing_seeds(methods: Sequence[Method]) -> Iterable[Caveat]:
    every = sorted({seed for method in methods for seed in method.asked})
    lacking: dict[tuple[int, ...], list[Method]] = defaultdict(list)
    for method in methods:
        lacking[tuple(seed for seed in every if seed not in method.seeds)].append(method)
    sentences = [
        f"{_letters(same)} lack{'s' if len(same) == 1 else ''} {', '.join(map(str, seeds))}"
        for seeds, same in lacking.items()
        if seeds
    ]
    if sentences:
        yield note(
            f"not every method has every seed ({'; '.join(sentences)}); means are over the seeds that each has, paired "
            "differences over those that both have"
        )
    most = max(len(method.seeds) for method in methods)
    if most < FEWEST_SEEDS:
        count = "one seed only" if most == 1 else f"{most} seeds at most"
        yield note(f"every method has {count}: nothing can be said about what is chance")


def _other_versions(methods: Sequence[Method]) -> Iterable[Caveat]:
    by_version: dict[str, list[RecordedRun]] = defaultdict(list)
    for method in methods:
        for run in method.runs:
            by_version[versions(run)].append(run)
    if len(by_version) > 1:
        sides = "; ".join(f"{version}: {len(runs)} runs" for version, runs in by_version.items())
        yield note(f"the runs were made with different versions or machines ({sides})")


def _rejected(methods: Sequence[Method]) -> Iterable[Caveat]:
    for method in methods:
        counts = {run.seed: run.summary.get("rejected_clients") or 0 for run in method.runs}
        if any(counts.values()):
            numbers = ", ".join(f"{count} with seed {seed}" for seed, count in counts.items() if count)
            yield note(f"{method.title}: clients' updates were rejected as not finite or too large ({numbers})")


def versions(run: RecordedRun) -> str:
    """The library versions that the result of a run depends on, in one line."""
    return ", ".join(f"{name} {version}" for name, version in (run.summary.get("versions") or {}).items())


def _by(runs: Sequence[RecordedRun], key: Callable[[RecordedRun], T]) -> dict[T, list[RecordedRun]]:
    groups: dict[T, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _data(run: RecordedRun) -> str:
    return f"{run.description.dataset_name} {run.description.dataset_digest[:8]}"


def _places(runs: Iterable[RecordedRun]) -> str:
    return ", ".join(_each(runs))


def _each(runs: Iterable[RecordedRun]) -> list[str]:
    return [run.source for run in runs]


def _letters(methods: Iterable[Method]) -> str:
    return ", ".join(method.letter for method in methods)
