"""`fedbench help`: every key of every section and part is explained, as the checked classes have it."""

import json
import re
from collections.abc import Callable

import pytest
from command_line import Finished
from pydantic import BaseModel

from fedbench.algorithms.crossed import Crossed
from fedbench.algorithms.fedavg import FedAvg
from fedbench.cli.help import KIND_SUMMARIES, SECTIONS, explain_section
from fedbench.components.catalogue import BUILTIN, CONFIG_KEYS, component_class
from fedbench.components.reference import REQUIRED, field_meanings, key_references
from fedbench.errors import ConfigError
from fedbench.studies.file import Objective

Call = Callable[..., Finished]
PARTS = [(kind, name) for kind, names in BUILTIN.items() if kind != "server" for name in names]


def every_class() -> dict[str, type[BaseModel]]:
    """The class of every section and of every built-in part, by the name under which `fedbench help` shows it."""
    return {**SECTIONS, **{f"{kind}.{name}": component_class(kind, name) for kind, name in PARTS}}


def test_every_key_of_every_section_and_part_is_explained() -> None:
    missing = [
        f"{section}.{key}"
        for section, owner in every_class().items()
        for key, meaning in field_meanings(owner).items()
        if not meaning
    ]
    assert missing == []


def test_every_type_and_default_is_in_words() -> None:
    for section, owner in every_class().items():
        for key in key_references(owner):
            assert not re.search(r"<|typing|pydantic|Annotated|\bNone\b|=", f"{key.type} {key.default}"), section


def test_every_section_of_a_configuration_has_a_page() -> None:
    for key, field in SECTIONS["experiment"].model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and key not in KIND_SUMMARIES:
            assert SECTIONS[key] is field.annotation
    assert set(KIND_SUMMARIES) == set(BUILTIN)
    assert all(f"(key: {CONFIG_KEYS[kind]})" in summary for kind, summary in KIND_SUMMARIES.items())


def test_a_key_has_type_default_and_meaning() -> None:
    keys = {key.key: key for key in explain_section("schedule.sequential").keys}
    assert set(keys) == {"warmup_rounds", "cycles", "rounds_per_group", "full_rounds_between_cycles"}
    assert (keys["cycles"].type, keys["cycles"].default) == ("whole number, at least 1", "1")
    (alpha,) = explain_section("data.partition.alpha").keys
    assert alpha.default == REQUIRED
    (executor,) = explain_section("runtime.executor").keys
    assert executor.type == "ray | inline"


@pytest.mark.parametrize("section", ["", *SECTIONS, *KIND_SUMMARIES, *CONFIG_KEYS.values()])
def test_every_page_can_be_shown(section: str, call: Call) -> None:
    finished = call("help", *([section] if section else []))
    assert (finished.status, finished.stderr) == (0, "")
    assert len(finished.stdout.splitlines()) > 2


def test_the_names_under_server_are_those_that_a_configuration_accepts_there() -> None:
    accepted, refused = [], {}
    for name in BUILTIN["server"]:
        parameters = {"smoothness": 1.0} if name == "ormo-da" else {}
        try:
            Crossed.of(FedAvg(), component_class("server", name)(name=name, **parameters))
            accepted.append(name)
        except ConfigError as error:
            refused[name] = str(error)
    assert [name for name, _ in explain_section("server").names] == accepted
    assert set(refused) >= {"fedprox", "moon", "scaffold", "feddyn", "fednova"}
    for name in refused:
        with pytest.raises(
            ConfigError, match=rf"^server\.{name}: {name} is a method of its own, .*; see algorithm\.{name}$"
        ):
            explain_section(f"server.{name}")
    assert "fedmr" not in refused
    assert "moon" not in explain_section("server.server_lr").summary
    with pytest.raises(ConfigError, match=r"^server=mu: no such server"):
        explain_section("server.mu")


def test_a_page_as_json(call: Call) -> None:
    document = json.loads(call("help", "output", "--json").stdout)
    assert document == {
        "section": "output",
        "what it is": "The place where files are written.",
        "keys": [
            {
                "key": "directory",
                "type": "path; or null",
                "default": "null",
                "meaning": "The run directory, which must be empty or not exist. null: runs/NAME-SEED-SHORTID.",
            }
        ],
        "names": [],
    }
    assert {"name": "runtime", "what it is": SECTIONS["runtime"].__doc__.splitlines()[0]} in json.loads(
        call("help", "--json").stdout
    )["names"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("runtme", "runtme: no such section; did you mean 'runtime'?"),
        ("schedule.seqential", "schedule=seqential: no such schedule; did you mean 'sequential'?"),
        ("local.optimiser.sgd", "local.optimiser.sgd: no such section; did you mean 'local.optimizer'?"),
        ("runtime.actor", "runtime.actor: runtime has no such key; did you mean 'actors'?"),
        ("model.torch.nn:Linear", "model.torch.nn:Linear: is a plain class without checked parameters"),
    ],
)
def test_an_unknown_section_is_refused_with_a_suggestion(section: str, message: str, call: Call) -> None:
    finished = call("help", section)
    assert (finished.status, finished.stdout) == (2, "")
    assert re.fullmatch(rf"error: {re.escape(message)}.*\n", finished.stderr), finished.stderr


def test_a_key_of_one_part_is_explained_alone() -> None:
    (key,) = explain_section("algorithm.fedexp.eps").keys
    assert key.key == "eps"
    with pytest.raises(ConfigError, match=r"^algorithm\.fedexp\.epz: fedexp has no such key; did you mean 'eps'"):
        explain_section("algorithm.fedexp.epz")


def test_no_meaning_is_the_end_of_a_sentence_or_names_the_code() -> None:
    fragment = re.compile(r"(of|by|in|for|below|since|up to|performed|which)\b|.*`[A-Z]+`")
    meanings = {
        f"{section}.{key.key}": key.meaning
        for section, owner in SECTIONS.items()
        if section.startswith(("suite", "study"))
        for key in key_references(owner)
    }
    assert [key for key, meaning in meanings.items() if fragment.match(meaning)] == []


def test_what_is_filled_in_where_it_is_left_out_need_not_be_set() -> None:
    (direction,) = explain_section("study.objectives.direction").keys
    assert direction.default == "(as it is better)"
    assert Objective.model_validate("best_perplexity").direction == "minimize"
    assert explain_section("study.name").keys[0].default == "(the file's name)"


def test_models_of_other_libraries_and_their_adapters_have_pages() -> None:
    names = [name for name, _ in explain_section("model").names]
    assert names[-4:] == ["hf:PATH", "torchvision:NAME", "model.peft", "model.peft.lora"]
    assert [key.key for key in explain_section("model.peft.lora").keys] == ["r", "alpha", "dropout", "targets", "head"]
    assert explain_section("model.peft.lora.r").keys[0].default == "8"
    assert explain_section("model.output").summary == "A key of torchvision:NAME."


def test_a_word_that_resembles_no_section_is_answered_shortly() -> None:
    with pytest.raises(ConfigError, match=r"^WRONG: no such section; fedbench help lists all$"):
        explain_section("WRONG")
