"""Runs that differ in nothing but their seed are one method; its label is what tells it from the others."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedbench.components.catalogue import BUILTIN
from fedbench.records.own_metrics import figure
from fedbench.records.recorded_run import RecordedRun
from fedbench.report.shown_headline import ShownHeadline
from fedbench.tables.seed_statistics import Spread
from fedbench.tasks.kinds import TaskName

Flat = dict[str, Any]

ABSENT = "absent"
FIRST = ("algorithm.name", "server.name", "schedule.name")
"""The settings that every label begins with, where they are set."""


@dataclass(frozen=True)
class Method:
    """One configuration, run with one or more seeds.

    Attributes:
        letter: A, B, C, ...; names the method in charts and tables.
        label: what it is called: what tells it from the other methods of the comparison, or what the user chose.
        runs: the runs that count, one a seed, by ascending seed.
        asked: the seeds of all its runs, also of those that do not count.
        described: its label before the user chose another.
    """

    letter: str
    label: str
    runs: tuple[RecordedRun, ...]
    asked: tuple[int, ...]
    described: str

    @property
    def names(self) -> tuple[str, ...]:
        """What options may call it."""
        return self.letter, self.label, self.title, self.described, f"{self.letter}: {self.described}"

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of its first run; the others differ in the seed and in what does not change results."""
        return self.runs[0].config

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds whose runs count."""
        return tuple(run.seed for run in self.runs)

    @property
    def title(self) -> str:
        """Letter and label of the method."""
        return f"{self.letter}: {self.label}"

    @property
    def task(self) -> TaskName:
        """What its models were trained for."""
        return self.runs[0].task

    @property
    def headline(self) -> ShownHeadline:
        """The metric by which its task is judged."""
        return ShownHeadline(self.runs[0].headline)

    @cached_property
    def is_asynchronous(self) -> bool:
        """Whether the method has arrivals instead of cohorts."""
        return self.runs[0].is_asynchronous

    def summaries(self, name: str) -> dict[int, float]:
        """{seed: value} of a metric of the whole run, for the runs that have it; none where it is not defined.

        Args:
            name: a key of `METRICS`, or own:NAME.
        """
        metric = figure(name)
        values = {run.seed: metric.of_summary(run.summary) for run in self.runs}
        return {seed: value for seed, value in values.items() if value is not None}

    def spread(self, name: str) -> Spread:
        """The values of a metric over the seeds."""
        return Spread.of(self.summaries(name).values())


def identity(run: RecordedRun) -> str:
    """A text that is equal for two runs of one method."""
    return json.dumps(run.settings, sort_keys=True, default=str)


def grouped(runs: Sequence[RecordedRun]) -> list[list[RecordedRun]]:
    """The runs of each method, methods in the order of their first run."""
    groups: dict[str, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(identity(run), []).append(run)
    return list(groups.values())


def differing(flats: Sequence[Flat]) -> list[str]:
    """The keys whose values are not the same in all, in the order of the configuration; a key may be absent."""
    keys = dict.fromkeys(key for flat in flats for key in flat)
    sections = list(dict.fromkeys(key.split(".")[0] for key in keys))
    ordered = sorted(keys, key=lambda key: sections.index(key.split(".")[0]))
    return [key for key in ordered if len({_text(flat.get(key, ABSENT)) for flat in flats}) > 1]


def labels(flats: Sequence[Flat]) -> list[str]:
    """A label for each method, all different.

    First the algorithm, another server rule, and the schedule, where the sequential one is FedPart; then, where these
    are the same for several, what else differs among those. Where exchangeable parts differ, their names are given, and
    their parameters only where the names are the same.

    Args:
        flats: the settings of each method, as `method_settings` gives them.
    """
    keys_given: list[list[str]] = [[] for _ in flats]
    for members in _alike(range(len(flats)), flats, FIRST):
        _tell_apart(members, flats, keys_given)
    given = dict.fromkeys(key for keys in keys_given for key in keys)
    names = short_names([key for key in given if key not in FIRST])
    texts = [_label(flat, keys, names) for flat, keys in zip(flats, keys_given, strict=True)]
    counts, numbers = Counter(texts), Counter[str]()
    for index, label in enumerate(texts):
        if counts[label] > 1:
            numbers[label] += 1
            texts[index] = f"{label} ({numbers[label]})"
    return texts


def _tell_apart(members: Sequence[int], flats: Sequence[Flat], keys_given: list[list[str]]) -> None:
    """Add to `keys_given` of these methods, so far alike, the keys in which they differ."""
    keys = differing([flats[index] for index in members])
    keys = [key for key in keys if key not in keys_given[members[0]]]
    parts = {key.removesuffix("name") for key in keys if key.endswith(".name")}
    shown_now = [key for key in keys if key.endswith(".name") or not key.startswith(tuple(parts))]
    if not shown_now:
        return
    for index in members:
        keys_given[index] += shown_now
    for same in _alike(members, flats, shown_now):
        if len(same) > 1:
            _tell_apart(same, flats, keys_given)


def _alike(members: Iterable[int], flats: Sequence[Flat], keys: Sequence[str]) -> list[list[int]]:
    """Group methods that have the same values of `keys`."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index in members:
        groups[_text([flats[index].get(key, ABSENT) for key in keys])].append(index)
    return list(groups.values())


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, or as many as it takes to tell them apart.

    >>> short_names(["local.optimizer.lr", "data.partition.name", "delays.work", "local.work"])
    {'local.optimizer.lr': 'lr', 'data.partition.name': 'partition', 'delays.work': 'delays.work', 'local.work': 'local.work'}
    """  # noqa: E501
    parts = {key: key.removesuffix(".name").split(".") for key in keys}
    length = dict.fromkeys(keys, 1)
    while True:
        names = {key: ".".join(parts[key][-length[key] :]) for key in keys}
        counts = Counter(names.values())
        clashing = [key for key in keys if counts[names[key]] > 1 and length[key] < len(parts[key])]
        if not clashing:
            return names
        for key in clashing:
            length[key] += 1


def letters() -> Iterator[str]:
    """A, B, ..., Z, A2, B2, ..."""
    turn = 1
    while True:
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
            yield letter if turn == 1 else f"{letter}{turn}"
        turn += 1


def shown(value: Any) -> str:
    """A setting's value as it is shown."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def proper_name(algorithm: str) -> str:
    """The name of a method as its class is called; that of one's own method as it is configured.

    >>> proper_name("fedprox"), proper_name("mine:Step")
    ('FedProx', 'mine:Step')
    """
    return BUILTIN["algorithm"].get(algorithm, algorithm).rpartition(":")[2] if ":" not in algorithm else algorithm


def _label(flat: Flat, keys: Sequence[str], names: Mapping[str, str]) -> str:
    def settings_of(section: str) -> str:
        pairs = [f"{names[key]}={shown(flat[key])}" for key in keys if key.startswith(section) and key in flat]
        return " ".join(pairs)

    algorithm, schedule = str(flat.get("algorithm.name", "?")), flat.get("schedule.name", "?")
    is_fedpart = schedule == "sequential"
    if is_fedpart:
        algorithm = "FedPart" if algorithm == "fedavg" else f"FedPart x {proper_name(algorithm)}"
    parts = [f"{algorithm} {settings_of('algorithm.')}".rstrip()]
    if "server.name" in flat:
        parts.append(f"{flat['server.name']} server {settings_of('server.')}".rstrip())
    if not is_fedpart:
        parts.append(f"{schedule} {settings_of('schedule.')}".rstrip())
    elif settings := settings_of("schedule."):
        parts[0] += f" {settings}"
    rest = [key for key in keys if not key.startswith(("algorithm.", "server.", "schedule."))]
    parts += [f"{names[key]}={shown(flat[key])}" for key in rest if key in flat]
    return ", ".join(parts)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
