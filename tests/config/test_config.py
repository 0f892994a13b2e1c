"""Configuration: what is merged, what is refused and in which words."""

from pathlib import Path

import pytest
import yaml

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.merge import preset_names
from fedbench.errors import ConfigError


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_survives_being_written_out(name: str) -> None:
    config = ExperimentConfig.load(name)
    assert config.name == name
    again = ExperimentConfig.from_mapping(yaml.safe_load(config.to_yaml()))
    assert again.to_mapping() == config.to_mapping()
    assert again.digest() == config.digest()


def test_the_papers_settings() -> None:
    config = ExperimentConfig.load("fedpart-cifar10")
    assert (config.data.clients, config.data.samples_per_client, config.data.overlap) == (40, 500, True)
    assert (config.local.epochs, config.local.batch_size) == (8, 32)
    assert config.local.optimizer.model_dump()["lr"] == 1e-3
    assert (config.local.batchnorm, config.evaluation.batchnorm) == ("local", "client0")
    assert config.schedule.length(10) == 100


def test_layers_are_merged_in_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 5\nrounds: 7\ndata: {clients: 4, dataset: digits}\n")
    config = ExperimentConfig.load(file, ["data.clients=6", "local.optimizer.lr=1e-2"])
    assert (config.name, config.seed, config.rounds, config.data.clients) == ("mine", 5, 7, 6)
    assert config.local.optimizer.lr == 0.01
    assert config.local.batch_size == 32


def test_replacing_a_component_keeps_what_both_know_and_drops_the_rest() -> None:
    reverse = ExperimentConfig.load("quickstart", ["schedule=reverse"])
    assert reverse.schedule.model_dump()["cycles"] == 2
    full = ExperimentConfig.load("quickstart", ["schedule=full", "rounds=3"])
    assert full.schedule.model_dump() == {"name": "full"}
    sgd = ExperimentConfig.load("quickstart", ["local.optimizer.name=sgd", "local.optimizer.momentum=0.9"])
    assert sgd.local.optimizer.model_dump()["lr"] == 0.002


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["data.clents=3"], ["data.clents", "unknown key", "'clients'"]),
        (["data.clients=0"], ["data.clients=0", "greater than or equal to 1"]),
        (["data.clients=abc"], ["data.clients=abc", "integer"]),
        (["rounds=0"], ["rounds=0", "at least 1", "auto"]),
        (["rounds=x"], ["rounds=x", "auto"]),
        (["seed=-1"], ["seed=-1"]),
        (["data.partition=dirichlet", "data.partition.alpha=0"], ["data.partition.alpha=0", "greater than 0"]),
        (["data.partition=dirichlet", "data.partition.alfa=1"], ["data.partition.alfa", "'alpha'"]),
        (["data.partition=dirichlet"], ["data.partition.alpha", "must be set"]),
        (["participation.fraction=0"], ["participation.fraction=0", "greater than 0"]),
        (["participation.fraction=2"], ["participation.fraction=2", "less than or equal to 1"]),
        (["participation.fraction=0.5", "participation.clients_per_round=5"], ["set one of the two"]),
        (["participation.clients_per_round=11"], ["participation.clients_per_round=11", "data.clients=10"]),
        (["data.dataset=cifar11"], ["data.dataset=cifar11", "'cifar10'"]),
        (["model=resnet9"], ["model=resnet9", "'resnet8'"]),
        (["model=nowhere.mod:Net"], ["nowhere.mod"]),
        (
            ["algorithm=fedbench.planning.schedules:Full"],
            ["algorithm=fedbench.planning.schedules:Full", "is no Algorithm; derive the class from fedbench.Algorithm"],
        ),
        (["schedule=full", "schedule.cycles=3", "rounds=2"], ["schedule.cycles", "unknown key", "full"]),
        (["local.optimizer.momentum=0.9"], ["local.optimizer.momentum", "unknown key", "adam"]),
        (["local.optimizer=sgd", "local.optimizer.nesterov=true"], ["nesterov=true has no effect with momentum=0"]),
        (["local.optimizer.betas=[0.9,1.0]"], ["betas", "[0, 1)"]),
        (["local.steps=3"], ["epochs=2 and steps=3"]),
        (["evaluation.batchnorm=client0"], ["evaluation.batchnorm=client0", "local.batchnorm=local"]),
        (["evaluation.batchnorm=aggregate", "local.batchnorm=local"], ["client0 or recalibrate"]),
        (["runtime.actors=20"], ["runtime.actors=20", "10 clients"]),
        (["runtime.actors=2", "runtime.clients_per_actor=2"], ["set one of the two"]),
        (["runtime.executor=inline", "runtime.actors=2"], ["actors=2 has no effect with executor=inline"]),
        (["tracking.enabled=false", "tracking.mlflow_uri=sqlite:///x.db"], ["mlflow_uri=sqlite:///x.db has no effect"]),
        (["tracking.experiment=a/b"], ["tracking.experiment=a/b"]),
        (["name=a/b"], ["name=a/b"]),
        (["seed"], ["section.key=value"]),
        (["=3"], ["section.key=value"]),
        (["data=3"], ["data"]),
    ],
)
def test_bad_values_are_refused_in_one_line_that_names_them(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.load("quickstart", overrides)
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("content", "part"),
    [("- 1\n", "mapping"), ("a: [1\n", "YAML"), ("", "mapping"), ("model: 3\n", "model=3")],
)
def test_files_that_are_no_configuration(tmp_path: Path, content: str, part: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=part) as caught:
        ExperimentConfig.load(file)
    assert "\n" not in str(caught.value)


def test_unknown_presets_and_files() -> None:
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        ExperimentConfig.load("quickstrat")
    with pytest.raises(ConfigError, match="no such file"):
        ExperimentConfig.load("nowhere.yaml")


def test_the_digest_is_of_what_can_change_the_result() -> None:
    def digest(*overrides: str) -> str:
        return ExperimentConfig.load("quickstart", overrides).digest()

    plain = digest()
    assert digest("name=other", "runtime.actors=2", "tracking.experiment=x", "output.directory=y") == plain
    for change in ("seed=1", "local.epochs=3", "schedule.cycles=1", "model.width=8", "evaluation.every=2"):
        assert digest(change) != plain


def test_fedpart_is_fedavg_with_the_sequential_schedule(tmp_path: Path) -> None:
    meant = ExperimentConfig.load("fedavg-digits", ["schedule=sequential", "schedule.cycles=2"])
    file = tmp_path / "own.yaml"
    file.write_text("algorithm: fedpart\nschedule: {cycles: 2}\n")
    assert ExperimentConfig.load("fedavg-digits", ["algorithm=fedpart", "schedule.cycles=2"]).digest() == meant.digest()
    assert ExperimentConfig.load("fedpart-digits").digest() == ExperimentConfig.load("quickstart").digest()
    for config in (ExperimentConfig.load(file), ExperimentConfig.from_mapping({"algorithm": "fedpart"})):
        assert (config.algorithm.name, config.schedule.name) == ("fedavg", "sequential")
    with pytest.raises(ConfigError, match=r"algorithm=fedpart with schedule=full: .*name algorithm=fedavg"):
        ExperimentConfig.load("fedavg-digits", ["algorithm=fedpart", "schedule=full"])


def test_compiled_steps_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"^local.compile=true: steps are not compiled: torch.compile took .*; leave"):
        ExperimentConfig.load(None, ["local.compile=true"])
    assert "compile" not in ExperimentConfig.load(None, ["local.compile=false"]).to_mapping()["local"]


def test_a_wrong_value_in_a_list_is_told_where_a_single_number_would_do() -> None:
    with pytest.raises(ConfigError, match=r"^data\.normalize\.std\.1=2\.0: must be less than or equal to 1$"):
        ExperimentConfig.load(None, ["data.normalize={mean: [0, 0], std: [1.0, 2.0]}"])
