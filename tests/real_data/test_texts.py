"""Adapters of small transformers learn from real news and plays, and recurrent networks from real plays.

The transformers are built from a configuration, without weights. Runs are started by the command line; each is the same
on two actors, and sends the bytes of its tensors.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import TEST, TRAIN, Finished
from model_folders import bert, gpt
from safetensors.numpy import load_file
from warm_pools import WarmPools

from fedbench.config.experiment import ExperimentConfig

pytestmark = pytest.mark.slow

Call = Callable[..., Finished]

ROWS = {"ag_news": (1600, 400), "tinyshakespeare": (800, 100)}
"""Rows of the training and of the test split that are taken of each data set: the first ones."""

COMMON = (
    "data.root=data",
    "schedule=full",
    "local.batch_size=16",
    "tracking.enabled=false",
    "runtime.device=cpu",
    "runtime.executor=inline",
)
NEWS = (
    "data.dataset=ag-news",
    "data.dataset.max_tokens=24",
    "data.clients=4",
    "model.config.initializer_range=0.1",
    "model.peft.lora.r=2",
)
TOPICS = (
    *NEWS,
    "data.dataset.min_frequency=2",
    "model=hf:bert",
    "model.peft.lora.head=[word_embeddings,pooler,classifier]",
    "local.epochs=1",
    "local.optimizer.lr=0.01",
)
WORDS = (
    *NEWS,
    "data.dataset.min_frequency=8",
    "model=hf:gpt",
    "model.peft.lora.head=[wte]",
    "task=next_token",
    "algorithm=ormo",
    "local.epochs=null",
    "local.steps=1",
    "local.optimizer=sgd",
    "local.optimizer.lr=0.02",
    "delays.arrivals_per_round=30",
)
PLAYS = (
    "data.dataset=shakespeare",
    "data.dataset.length=40",
    "data.partition=natural",
    "data.clients=10",
    "local.optimizer.lr=0.02",
    "local.epochs=null",
    "local.steps=10",
)
RECURRENT = (*PLAYS, "model=lstm", "model.layers=1", "model.hidden=32")
TRANSFORMER = (
    *PLAYS,
    "task=next_token",
    "model=hf:gpt",
    "model.config.initializer_range=0.1",
    "model.peft.lora.r=2",
    "model.peft.lora.head=[wte]",
)
FEDPART = (
    "schedule=sequential",
    "schedule.warmup_rounds=2",
    "schedule.rounds_per_group=1",
    "schedule.cycles=1",
    "schedule.full_rounds_between_cycles=0",
    "rounds=auto",
)


@dataclass(frozen=True)
class Case:
    """A run on real text.

    Attributes:
        data: the folder of the data set among the real data.
        overrides: what to type to run it.
        reached: the accuracy that the last round is above, or the perplexity that it is below.
    """

    data: str
    overrides: tuple[str, ...]
    reached: float


CASES = {
    "adapters with FedAvg": Case("ag_news", (*TOPICS, "rounds=2"), 0.5),
    "adapters with FedPart": Case("ag_news", (*TOPICS, *FEDPART), 0.6),
    "adapters with OrMo": Case("ag_news", (*WORDS, "rounds=3"), 250),
    "plays with FedAvg": Case("tinyshakespeare", (*RECURRENT, "rounds=4"), 20),
    "plays with FedPart": Case("tinyshakespeare", (*RECURRENT, *FEDPART), 20),
    "adapters on plays with FedAvg": Case("tinyshakespeare", (*TRANSFORMER, "rounds=6"), 22),
}
"""Guessing a class has the accuracy 0.25, guessing one of the 1,257 words the perplexity 1,257; the frequencies of the
characters of the training rows have the perplexity 23.5 on the test rows."""


def copied(real_data: Path, data: str, root: Path) -> None:
    """The first rows of both splits of a data set."""
    if not (real_data / data).is_dir():
        pytest.skip(f"no {data} under {real_data}")
    (root / data).mkdir(parents=True)
    for name, rows in zip((TRAIN, TEST), ROWS[data], strict=True):
        pq.write_table(pq.read_table(real_data / data / name).slice(0, rows), root / data / name)


@pytest.mark.parametrize("name", CASES)
def test_real_text_is_learned_to_the_same_model_on_two_actors(
    name: str, call: Call, real_data: Path, run_folder: Path, warm_pools: WarmPools
) -> None:
    case = CASES[name]
    copied(real_data, case.data, run_folder / "data")
    bert(run_folder / "bert", vocabulary=8000)
    gpt(run_folder / "gpt", vocabulary=2000)
    ended = call("run", "--json", *COMMON, *case.overrides, "output.directory=inline")
    assert ended.status == 0, ended.stderr
    summary = json.loads(ended.stdout)
    rounds = pq.read_table("inline/rounds.parquet")
    if summary.get("task") == "next_token":
        assert rounds["test_perplexity"][-1].as_py() < case.reached
    else:
        assert rounds["test_accuracy"][-1].as_py() > case.reached
    check_bytes(rounds, summary, "adapters" in name)
    two_actors = ["runtime.executor=ray", "runtime.actors=2", "output.directory=actors"]
    on_actors = warm_pools.run(ExperimentConfig.load("inline/config.yaml", two_actors)).summary
    assert on_actors["model_sha256"] == summary["model_sha256"]
    assert on_actors["uplink_bytes"] == summary["uplink_bytes"]


def check_bytes(rounds: pa.Table, summary: dict, only_adapters: bool) -> None:
    """Each message has the bytes of the tensors of its layer group, or of all, as the final model is saved."""
    # A tied tensor is saved under each of its names; the pooler is in the classifier's layer group.
    saved = {values.tobytes(): (f".{name}.", values) for name, values in load_file("inline/model.safetensors").items()}
    tensors = {name.replace("pooler", "classifier"): values.nbytes for name, values in saved.values()}
    assert sum(tensors.values()) == 4 * summary["parameters"]
    if only_adapters:
        sent = ("lora_", "word_embeddings", "wte", "lm_head", "classifier")
        assert all(any(part in name for part in sent) for name in tensors)
        assert summary["base_parameters"] > 0
    groups = json.loads(Path("inline/description.json").read_text())["group_names"]
    assert not rounds["group"].null_count
    for row in rounds.to_pylist():
        part = "." if row["group"] == -1 else f".{groups[row['group']]}."
        message = sum(size for name, size in tensors.items() if part in name)
        assert row["uplink_bytes"] == row["clients"] * message > 0
