"""Runs of small transformers with low-rank adapters, by command line, to the records that they leave."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import TEST, TRAIN, Finished
from model_folders import TEXTS, add_tokenizer, bert, gpt, pretrained_bert
from safetensors.numpy import load_file
from warm_pools import WarmPools

from fedbench import ExperimentConfig, resume, run

Call = Callable[..., Finished]

COMMON = (
    "data.dataset=ag-news",
    "data.root=data",
    "data.dataset.max_tokens=8",
    "data.clients=4",
    "data.samples_per_client=16",
    "local.batch_size=8",
    "local.optimizer.lr=0.05",
    "model=hf:bert",
    "tracking.enabled=false",
    "runtime.device=cpu",
    "runtime.executor=inline",
)
LORA = ("model.peft.lora.r=2",)
FEDPART = (*LORA, "schedule=sequential", "schedule.warmup_rounds=1", "schedule.rounds_per_group=1", "rounds=4")
ORMO = (
    *LORA,
    "algorithm=ormo",
    "schedule=full",
    "local.optimizer=sgd",
    "local.optimizer.lr=0.05",
    "rounds=3",
    "delays.arrivals_per_round=4",
)
OF_BLOCK, OF_HEAD = 2 * 2 * (32 + 32), 4 * 32 + 4
"""Values of a block's adapters (query and value with r=2, at a width of 32), and of the classifier for four classes."""


@pytest.fixture
def folder(run_folder: Path) -> Path:
    """A working directory with a BERT, its tokenizer and a small AG News in Parquet."""
    bert(run_folder / "bert")
    add_tokenizer(run_folder / "bert")
    place = run_folder / "data" / "ag-news"
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, rows in ((TRAIN, 96), (TEST, 24)):
        labels = np.arange(rows) % 4
        words = [TEXTS[label].split() for label in labels]
        texts = [" ".join(rng.permutation(line)) for line in words]
        pq.write_table(pa.table({"text": texts, "label": labels}), place / name)
    return run_folder


def summary_of(directory: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return summary


def finished(call: Call, name: str, *overrides: str) -> dict[str, Any]:
    """The summary of a run in the folder `name`."""
    ended = call("run", *COMMON, *overrides, f"output.directory={name}")
    assert ended.status == 0, ended.stderr
    return summary_of(Path(name))


@pytest.mark.slow
@pytest.mark.parametrize("method", [FEDPART, ORMO], ids=["FedPart", "OrMo"])
def test_adapters_train_to_the_same_bits_inline_on_two_actors_and_resumed(
    method: tuple[str, ...], call: Call, folder: Path, warm_pools: WarmPools
) -> None:
    inline = finished(call, "inline", *method)
    two_actors = ["runtime.executor=ray", "runtime.actors=2", "output.directory=actors"]
    on_actors = warm_pools.run(ExperimentConfig.load("inline/config.yaml", two_actors)).summary
    assert on_actors["model_sha256"] == inline["model_sha256"]
    assert on_actors["uplink_bytes"] == inline["uplink_bytes"]
    assert on_actors["base_sha256"] == inline["base_sha256"]
    config = ExperimentConfig.load("inline/config.yaml", ["output.directory=stopped"])
    assert run(config, should_stop=lambda: True).summary["status"] == "interrupted"
    assert resume("stopped").summary["model_sha256"] == inline["model_sha256"]


def test_the_bytes_of_a_message_are_those_of_its_adapters(call: Call, folder: Path) -> None:
    summary = finished(call, "run", *FEDPART)
    rounds = pq.read_table(folder / "run" / "rounds.parquet")
    # A full round, then each block's adapters and the classifier alone; four bytes a value, four clients.
    values = [2 * OF_BLOCK + OF_HEAD, OF_BLOCK, OF_BLOCK, OF_HEAD]
    assert rounds["uplink_bytes"].to_pylist() == [4 * 4 * count for count in values]
    assert (summary["parameters"], summary["layer_groups"]) == (2 * OF_BLOCK + OF_HEAD, 3)
    description = json.loads((folder / "run" / "description.json").read_text())
    assert description["group_names"] == ["layer.0", "layer.1", "classifier"]
    saved = load_file(folder / "run" / "model.safetensors")
    assert sum(tensor.size for tensor in saved.values()) == summary["parameters"]
    assert all("lora_" in name or "classifier" in name for name in saved)
    largest = max(path.stat().st_size for path in (folder / "run").rglob("*.safetensors"))
    assert largest < 4 * summary["base_parameters"]


def test_what_a_run_will_cost_is_what_it_counts(call: Call, folder: Path) -> None:
    foreseen = call("cost", *COMMON, *FEDPART, "--json")
    assert foreseen.status == 0, foreseen.stderr
    total = json.loads(foreseen.stdout)["total"]
    summary = finished(call, "run", *FEDPART)
    for name in ("uplink_bytes", "downlink_bytes", "client_flops"):
        assert total[name] == summary[name]


def test_a_run_over_another_base_is_not_resumed(call: Call, folder: Path) -> None:
    pretrained_bert(folder / "bert")
    add_tokenizer(folder / "bert")
    settings = [*COMMON, *FEDPART, f"data.dataset.tokenizer=hf:{folder / 'bert'}", "output.directory=stopped"]
    assert run(ExperimentConfig.load(None, settings), should_stop=lambda: True).summary["status"] == "interrupted"
    shutil.copytree(folder / "bert", folder / "as-it-was")
    pretrained_bert(folder / "bert")
    refused = call("resume", "stopped")
    assert refused.status == 2
    assert refused.stderr.count("\n") == 1
    assert "no longer what the run began with (hf:" in refused.stderr
    shutil.rmtree(folder / "bert")
    shutil.move(folder / "as-it-was", folder / "bert")
    assert call("resume", "stopped").status == 0


def test_fedmr_recombines_adapters(call: Call, folder: Path) -> None:
    summary = finished(call, "run", *LORA, "algorithm=fedmr", "algorithm.first_stage_rounds=1", "rounds=3")
    assert summary["uplink_bytes"] == 3 * 4 * 4 * (2 * OF_BLOCK + OF_HEAD)


def test_a_text_is_continued_over_adapters(call: Call, folder: Path) -> None:
    gpt(folder / "gpt")
    summary = finished(
        call, "run", *LORA, "model=hf:gpt", "data.dataset.tokenizer=hf:bert", "task=next_token", "rounds=3",
        "local.optimizer=adam", "local.optimizer.lr=0.02",
    )  # fmt: skip
    perplexities = pq.read_table(folder / "run" / "rounds.parquet")["test_perplexity"].to_pylist()
    assert 1 < perplexities[-1] < perplexities[0] < 120
    assert summary["best_perplexity"] == min(perplexities)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=hf:no/such/folder",), "model.name=hf:no/such/folder: there is no folder no/such/folder"),
        (("model.peft.lora.targets=[qurey]",), "did you mean 'query'?"),
        (("model.peft.lora.r=0",), "model.peft.lora.r=0: must be greater than or equal to 1"),
        (("data.dataset.tokenizer=hf:absent",), "(with its model: model=hf:absent model.download=true)"),
        (("data.dataset.tokenizer=hf:data",), "data.dataset.tokenizer=hf:data: data has no tokenizer"),
        (("data.dataset.max_tokens=80",), "takes texts of up to 64 tokens, those of the data have 80"),
    ],
)
def test_what_cannot_be_run_is_one_line(overrides: tuple[str, ...], message: str, call: Call, folder: Path) -> None:
    refused = call("run", *COMMON, *overrides, "output.directory=none")
    assert (refused.status, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert message in refused.stderr
    assert not Path("none").exists()
