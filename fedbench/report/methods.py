"""Runs that differ in nothing but their seed are one method; its label is what tells it from the others."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedbench.config.identity import method_settings
from fedbench.records.metrics import METRICS
from fedbench.records.recorded_run import RecordedRun
from fedbench.tables.seed_statistics import Spread

Flat = dict[str, Any]

ABSENT = "absent"
FIRST = ("algorithm.name", "server.name", "schedule.name")
"""What every label begins with, where it is set."""


@dataclass(frozen=True)
class Method:
    """One configuration, run with one or more seeds.

    Attributes:
        letter: A, B, C, ...: by which charts and tables know it.
        label: what tells it from the other methods of the comparison.
        runs: that count, one a seed, by ascending seed.
        asked: the seeds of all its runs, those that do not count included.
    """

    letter: str
    label: str
    runs: tuple[RecordedRun, ...]
    asked: tuple[int, ...]

    @property
    def config(self) -> dict[str, Any]:
        """What its runs have in common, and of the rest the first run's."""
        return self.runs[0].config

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that count."""
        return tuple(run.seed for run in self.runs)

    @property
    def title(self) -> str:
        """Letter and label."""
        return f"{self.letter}: {self.label}"

    @cached_property
    def is_asynchronous(self) -> bool:
        """Whether its runs have arrivals instead of cohorts."""
        return self.runs[0].is_asynchronous

    def summaries(self, name: str) -> dict[int, float]:
        """{seed: value} of a metric of the whole run, for the runs that have it.

        Args:
            name: a key of `METRICS`.
        """
        values = {run.seed: METRICS[name].of_summary(run.summary) for run in self.runs}
        return {seed: value for seed, value in values.items() if value is not None}

    def spread(self, name: str) -> Spread:
        """The values of a metric over the seeds."""
        return Spread.of(self.summaries(name).values())


def identity(config: Mapping[str, Any]) -> str:
    """Equal for two configurations of one method."""
    return json.dumps(method_settings(config), sort_keys=True, default=str)


def grouped(runs: Sequence[RecordedRun]) -> list[list[RecordedRun]]:
    """The runs of each method, methods in the order of their first run."""
    groups: dict[str, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(identity(run.config), []).append(run)
    return list(groups.values())


def differing(flats: Sequence[Flat]) -> list[str]:
    """The keys whose values are not the same in all, in the order of the configuration; a key may be absent."""
    keys = dict.fromkeys(key for flat in flats for key in flat)
    sections = list(dict.fromkeys(key.split(".")[0] for key in keys))
    ordered = sorted(keys, key=lambda key: sections.index(key.split(".")[0]))
    return [key for key in ordered if len({_text(flat.get(key, ABSENT)) for flat in flats}) > 1]


def labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label for each method, all different.

    First the algorithm, another server rule, and the schedule; then, where these are the same for several, what else
    differs among those. Where exchangeable parts differ, their names are told, and their parameters only where the
    names are the same.
    """
    flats = [method_settings(config) for config in configs]
    told: list[list[str]] = [[] for _ in flats]
    for members in _alike(range(len(flats)), flats, FIRST):
        _tell_apart(members, flats, told)
    names = short_names([key for key in dict.fromkeys(key for keys in told for key in keys) if key not in FIRST])
    found = [_label(flat, keys, names) for flat, keys in zip(flats, told, strict=True)]
    counts, numbers = Counter(found), Counter[str]()
    for index, label in enumerate(found):
        if counts[label] > 1:
            numbers[label] += 1
            found[index] = f"{label} ({numbers[label]})"
    return found


def _tell_apart(members: Sequence[int], flats: Sequence[Flat], told: list[list[str]]) -> None:
    """Add to `told` of these methods, so far alike, the keys in which they differ."""
    keys = differing([flats[index] for index in members])
    keys = [key for key in keys if key not in told[members[0]]]
    parts = {key.removesuffix("name") for key in keys if key.endswith(".name")}
    shown_now = [key for key in keys if key.endswith(".name") or not key.startswith(tuple(parts))]
    if not shown_now:
        return
    for index in members:
        told[index] += shown_now
    for same in _alike(members, flats, shown_now):
        if len(same) > 1:
            _tell_apart(same, flats, told)


def _alike(members: Iterable[int], flats: Sequence[Flat], keys: Sequence[str]) -> list[list[int]]:
    """These methods, those with the same values of `keys` together."""
    found: dict[str, list[int]] = defaultdict(list)
    for index in members:
        found[_text([flats[index].get(key, ABSENT) for key in keys])].append(index)
    return list(found.values())


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
    """A setting's value for a person."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _label(flat: Flat, keys: Sequence[str], names: Mapping[str, str]) -> str:
    def own(section: str) -> str:
        pairs = [f"{names[key]}={shown(flat[key])}" for key in keys if key.startswith(section) and key in flat]
        return " ".join(pairs)

    parts = [f"{flat.get('algorithm.name', '?')} {own('algorithm.')}".rstrip()]
    if "server.name" in flat:
        parts.append(f"{flat['server.name']} server {own('server.')}".rstrip())
    parts.append(f"{flat.get('schedule.name', '?')} {own('schedule.')}".rstrip())
    rest = [key for key in keys if not key.startswith(("algorithm.", "server.", "schedule."))]
    parts += [f"{names[key]}={shown(flat[key])}" for key in rest if key in flat]
    return ", ".join(parts)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
