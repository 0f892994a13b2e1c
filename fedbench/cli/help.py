"""What `fedbench help` shows: every key of a configuration, suite or study, read off the checked classes."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from rich.table import Table

from fedbench.algorithms.base import Algorithm
from fedbench.algorithms.crossed import NO_SERVER_RULE, is_server_rule
from fedbench.cli.terminal import results
from fedbench.components.base import Component
from fedbench.components.catalogue import BROUGHT_MODELS, BUILTIN, CONFIG_KEYS, component_class
from fedbench.components.reference import KeyReference, key_references
from fedbench.components.suggestions import did_you_mean
from fedbench.config.analysis import AnalysisSection
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.runtime import RuntimeSection
from fedbench.config.sections import DataSection, EvaluationSection, LocalSection, OutputSection, UpdateSection
from fedbench.config.tracking import TrackingSection
from fedbench.data.augmentation import Augmentation
from fedbench.errors import ConfigError
from fedbench.models.adapter_keys import Lora, Peft
from fedbench.planning.capacities import CapacitiesSection
from fedbench.planning.delays import DelaysSection
from fedbench.planning.participation import ParticipationSection
from fedbench.planning.profiles import Device, Link, ProfileSection
from fedbench.planning.uplinks import UplinkGroups
from fedbench.studies.file import Budget, Constraint, Named, Objective, StudyFile
from fedbench.studies.run_budget import RunBudget
from fedbench.studies.space import Categorical, Float, Int
from fedbench.suites.analysis_part import AnalysisPart, Statement
from fedbench.suites.cell_values import Measure
from fedbench.suites.file import Column, Figure, Place, Published, Row, SuiteFile, Until

SECTIONS: dict[str, type[BaseModel]] = {
    "experiment": ExperimentConfig,
    "data": DataSection,
    "data.augment": Augmentation,
    "model.peft": Peft,
    "model.peft.lora": Lora,
    "local": LocalSection,
    "update": UpdateSection,
    "participation": ParticipationSection,
    "participation.capacities": CapacitiesSection,
    "delays": DelaysSection,
    "delays.profile": ProfileSection,
    "delays.profile.devices": Device,
    "delays.profile.links": Link,
    "delays.uplink_groups": UplinkGroups,
    "evaluation": EvaluationSection,
    "analysis": AnalysisSection,
    "runtime": RuntimeSection,
    "tracking": TrackingSection,
    "output": OutputSection,
    "suite": SuiteFile,
    "suite.rows": Row,
    "suite.columns": Column,
    "suite.cells": Place,
    "suite.measure": Measure,
    "suite.until": Until,
    "suite.published": Published,
    "suite.published.values": Figure,
    "suite.analyses": AnalysisPart,
    "suite.analyses.statements": Statement,
    "study": StudyFile,
    "study.space.float": Float,
    "study.space.int": Int,
    "study.space.categorical": Categorical,
    "study.objectives": Objective,
    "study.constraints": Constraint,
    "study.sampler": Named,
    "study.pruner": Named,
    "study.budget": Budget,
    "study.run_budget": RunBudget,
}
"""The checked class of each section. The parts that are chosen by name are in the catalogue, kind by kind."""

KIND_SUMMARIES = {
    "dataset": "The data set (key: data.dataset).",
    "partition": "How the training rows are divided over the clients (key: data.partition).",
    "model": "The network (key: model).",
    "schedule": "Which layer groups are trained in which round (key: schedule).",
    "exchange": "Which layer groups are sent and combined in which round (key: exchange).",
    "algorithm": "The federated method (key: algorithm).",
    "server": "Another method's server rule in place of the algorithm's (key: server).",
    "optimizer": "The optimizer of the clients (key: local.optimizer).",
    "lr_schedule": "Factor on the optimizer's learning rate, by round (key: local.lr_schedule).",
    "compression": "How updates are compressed on their way to the server (key: update.compression).",
    "sampler": "How the participants of a round are drawn (key: participation.sampler).",
    "attack": "What Byzantine clients do to harm the run (key: participation.byzantine).",
    "delay": "How service times are distributed in asynchronous runs (key: delays.distribution).",
    "availability": "When clients are on, on the virtual clock (key: delays.availability).",
}

KINDS_BY_KEY = {key: kind for kind, key in CONFIG_KEYS.items()}


@dataclass(frozen=True)
class Explanation:
    """One page of the reference.

    Attributes:
        section: what it is about; "" for the page that lists all sections.
        summary: what that is, in one line.
        keys: the keys of the section.
        names: what else can be asked for, or chosen by name, with one line each.
    """

    section: str
    summary: str
    keys: tuple[KeyReference, ...] = ()
    names: tuple[tuple[str, str], ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """The page as a JSON document."""
        return {
            "section": self.section,
            "what it is": self.summary,
            "keys": [key.to_mapping() for key in self.keys],
            "names": [{"name": name, "what it is": summary} for name, summary in self.names],
        }


def explain_section(section: str) -> Explanation:
    """The page about a section.

    Args:
        section: "" for the list of all; a section ("data"), a kind of part ("schedule" or its key "local.optimizer"),
            a part ("schedule.sequential", "algorithm.mypkg.mod:MyAlgorithm") or a single key ("runtime.actors").

    Raises:
        ConfigError: there is no such section; a near miss is suggested.
    """
    if not section:
        pages = [(name, first_line(owner)) for name, owner in SECTIONS.items()]
        return Explanation("", "Sections and kinds of parts", names=(*pages, *KIND_SUMMARIES.items()))
    if section in SECTIONS:
        keys = tuple(key_references(SECTIONS[section]))
        return Explanation(section, first_line(SECTIONS[section]), keys, _sections_below(section))
    if (kind := KINDS_BY_KEY.get(section, section)) in KIND_SUMMARIES:
        parts = [(name, part.summary()) for name, part in (builtin_parts(kind) | brought_parts(kind)).items()]
        return Explanation(section, KIND_SUMMARIES[kind], names=(*parts, *_sections_below(section)))
    parent, _, leaf = section.rpartition(".")
    if parent in SECTIONS and leaf in SECTIONS[parent].model_fields:
        return _explain_key(section)
    return _explain_part(section) or _explain_key(section)


def _sections_below(section: str) -> tuple[tuple[str, str], ...]:
    """The sections inside a section, with one line each."""
    return tuple((name, first_line(owner)) for name, owner in SECTIONS.items() if name.startswith(f"{section}."))


def builtin_parts(kind: str) -> dict[str, Any]:
    """{name: class} of the built-in parts that can be chosen for a kind; as `server` only methods that are rules."""
    parts = {name: component_class(kind, name) for name in BUILTIN[kind]}
    return {name: part for name, part in parts.items() if kind != "server" or is_server_rule(part)}


def brought_parts(kind: str) -> dict[str, Any]:
    """{name: class} of the parts that a configuration brings from elsewhere by a name of that form."""
    return {name: component_class(kind, name) for name in BROUGHT_MODELS} if kind == "model" else {}


def _explain_part(section: str) -> Explanation | None:
    """The page about a component; None where `section` does not begin with a kind of part, or with its key."""
    prefixes = {**{kind: kind for kind in KIND_SUMMARIES}, **KINDS_BY_KEY}
    for prefix in sorted(prefixes, key=len, reverse=True):
        if not section.startswith(f"{prefix}."):
            continue
        kind, name = prefixes[prefix], section.removeprefix(f"{prefix}.")
        if parts := _parts_with_key(kind, name):
            summary = f"A key of {', '.join(parts)}."
            return Explanation(section, summary, tuple(dict.fromkeys(parts.values())))
        if (page := _explain_key_of_part(section, kind, name)) is not None:
            return page
        part = component_class(kind, name)
        if not (isinstance(part, type) and issubclass(part, Component)):
            raise ConfigError(f"{section}: is a plain class without checked parameters; see its own documentation")
        if kind == "server" and not (issubclass(part, Algorithm) and is_server_rule(part)):
            raise ConfigError(f"{section}: {name} {NO_SERVER_RULE}; see algorithm.{name}")
        keys = tuple(key for key in key_references(part) if key.key != "name")
        return Explanation(section, part.summary(), keys)
    return None


def _explain_key_of_part(section: str, kind: str, name: str) -> Explanation | None:
    """The page about one key of one part ("fedexp.eps"); None where `name` is not of that form.

    Raises:
        ConfigError: the part has no such key.
    """
    part_name, _, key = name.rpartition(".")
    if part_name not in BUILTIN[kind] and ":" not in part_name:
        return None
    part = component_class(kind, part_name)
    if not (isinstance(part, type) and issubclass(part, Component)):
        return None
    references = [reference for reference in key_references(part) if reference.key != "name"]
    chosen = tuple(reference for reference in references if reference.key == key)
    if not chosen:
        known = did_you_mean(key, [reference.key for reference in references])
        raise ConfigError(f"{section}: {part_name} has no such key{known}")
    return Explanation(section, part.summary(), chosen)


def _parts_with_key(kind: str, key: str) -> dict[str, KeyReference]:
    """{name of a built-in part that has the key: what the key means there}."""
    if key == "name":
        return {}
    pages = {name: key_references(part) for name, part in (builtin_parts(kind) | brought_parts(kind)).items()}
    return {part: reference for part, page in pages.items() for reference in page if reference.key == key}


def _explain_key(section: str) -> Explanation:
    """The page about a single key.

    Raises:
        ConfigError: there is no such section, or no such key in it.
    """
    parent, _, leaf = section.rpartition(".")
    owner = parent or "experiment"
    if owner in SECTIONS:
        keys = key_references(SECTIONS[owner])
        chosen = tuple(key for key in keys if key.key == leaf)
        if chosen:
            return Explanation(section, first_line(SECTIONS[owner]), chosen)
        if parent:
            raise ConfigError(f"{section}: {parent} has no such key{did_you_mean(leaf, [key.key for key in keys])}")
    hint = did_you_mean(section, {*SECTIONS, *KIND_SUMMARIES, *KINDS_BY_KEY})
    raise ConfigError(f"{section}: no such section{hint if 'did you mean' in hint else '; fedbench help lists all'}")


def first_line(section: type[BaseModel]) -> str:
    """The first line of a class's docstring."""
    return (section.__doc__ or "").strip().split("\n")[0]


def print_explanation(page: Explanation) -> None:
    """Show a page on stdout."""
    title = f"{page.section}: {page.summary}" if page.section else page.summary
    results.print(title, markup=False, highlight=False, soft_wrap=True)
    if page.keys:
        _print_table(("key", "type", "default", "meaning"), [tuple(key.to_mapping().values()) for key in page.keys])
    elif not page.names:
        results.print("It has no parameters.", markup=False, highlight=False)
    if page.names:
        _print_table(("name", "what it is"), page.names)
    if not page.section:
        hint = "fedbench help SECTION explains the keys; SECTION.NAME a part, such as schedule.sequential"
        results.print(f"\n{hint}", markup=False, highlight=False, soft_wrap=True)


def _print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]] | tuple[tuple[str, ...], ...]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), title="", title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("key", "name"))
    for row in rows:
        table.add_row(*row)
    results.print(table, markup=False, highlight=False)
