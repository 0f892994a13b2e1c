"""Runs on tables, series, texts and masks by command line, from files to the records that they leave."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Finished
from kinds_of_data import KINDS, SMALL, overrides_of, write_series, write_table
from warm_pools import WarmPools

from fedbench.config.experiment import ExperimentConfig

Call = Callable[..., Finished]

INLINE = "runtime.executor=inline"
OWNED = ("data.dataset.owner=clinic",)


def rounds_of(finished: Finished) -> tuple[dict, dict]:
    """The summary of a run, and its table of rounds as columns."""
    assert finished.status == 0, finished.stderr
    summary = json.loads(finished.stdout)
    return summary, pq.read_table(Path(summary["directory"]) / "rounds.parquet").to_pydict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_each_kind_of_data_is_the_same_on_two_actors(
    kind: str, call: Call, tmp_path: Path, warm_pools: WarmPools
) -> None:
    _, _, task, metric = KINDS[kind]
    overrides = overrides_of(kind, tmp_path / "data")
    summary, rounds = rounds_of(call("run", "--json", INLINE, *overrides))
    assert summary.get("task", "classification") == task
    assert all(math.isfinite(value) for name in (f"test_{metric}", "test_loss") for value in rounds[name])
    assert summary[f"best_{metric}"] in rounds[f"test_{metric}"]
    actors = ("runtime.actors=2", "runtime.cpus_per_client=0.1")
    on_ray = warm_pools.run(ExperimentConfig.load("quickstart", [*overrides, *actors]))
    assert on_ray.summary["model_sha256"] == summary["model_sha256"]


def test_a_table_and_a_series_are_learned(call: Call, tmp_path: Path) -> None:
    longer = ("rounds=12", "local.steps=10", "local.optimizer.lr=0.05", INLINE)
    for kind in ("table", "series"):
        summary, _ = rounds_of(call("run", "--json", *overrides_of(kind, tmp_path / kind), *longer))
        assert summary["best_accuracy"] > 0.9, kind


@pytest.mark.slow
def test_shakespeare_is_learned_better_than_the_frequencies_of_its_characters(call: Call, real_data: Path) -> None:
    """Perplexity 23.6 is that of the frequencies of the training split's characters on the test split."""
    if not (real_data / "tinyshakespeare").is_dir():
        pytest.skip("no tinyshakespeare among the real data")
    data = (f"data.root={real_data}", "data.dataset=shakespeare", "data.partition=natural", "data.clients=5")
    model = ("model=lstm", "model.layers=1", "model.hidden=32")
    local = ("local.optimizer=adam", "local.optimizer.lr=0.02", "local.epochs=null", "local.steps=10")
    rest = ("rounds=3", "evaluation.every=3", "schedule=full", "local.batch_size=16", "tracking.enabled=false", INLINE)
    summary, rounds = rounds_of(call("run", "--json", *data, *model, *local, *rest))
    assert rounds["test_perplexity"][-1] < 20
    assert summary["task"] == "next_token"


def test_the_same_rows_have_the_same_cost_as_foreseen(call: Call, tmp_path: Path) -> None:
    overrides = overrides_of("series", tmp_path / "data")
    summary, _ = rounds_of(call("run", "--json", INLINE, *overrides))
    foreseen = call("cost", "--json", *overrides)
    assert foreseen.status == 0, foreseen.stderr
    cost = json.loads(foreseen.stdout)
    assert {key: cost["total"][key] for key in ("uplink_bytes", "downlink_bytes", "client_flops")} == {
        key: summary[key] for key in ("uplink_bytes", "downlink_bytes", "client_flops")
    }


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("data.dataset=csv", "data.dataset.label=lable"), "no column 'lable' (data.dataset.label); found age, weight"),
        (("data.dataset=csv", "model=cnn-bn"), "model.name=cnn-bn: needs images"),
        (("data.dataset=csv", "task=segmentation"), "task=segmentation: csv is array data with labels for"),
        (("data.dataset=csv", "data.dataset.lable=x"), "data.dataset.lable: unknown key with data.dataset.name=csv"),
        (("data.dataset=parquet",), "parquet: not found, looked for"),
        (("data.dataset=hf:./none",), "no such folder"),
        (("data.dataset=california-housing", "data.root=null"), "not in scikit-learn's cache"),
        (("data.dataset=csv", "data.normalize={mean: 0.5, std: 0.5}"), "data.normalize"),
        (
            ("data.dataset=csv", "data.augment.flip=true"),
            "data.augment: changes images, and the rows of csv are arrays",
        ),
    ],
)
def test_wrong_inputs_are_one_line(
    overrides: tuple[str, ...], line: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    (tmp_path / "data").mkdir()
    write_table(tmp_path / "data")
    finished = call(
        "run",
        INLINE,
        *SMALL,
        "model=mlp",
        f"data.root={tmp_path / 'data'}",
        *overrides,
        *(OWNED if "data.dataset=csv" in overrides else ()),
    )
    assert (finished.status, finished.stdout) == (2, "")
    assert finished.stderr.count("\n") == 1
    assert line in finished.stderr


def test_data_says_what_the_columns_are_taken_for(call: Call, tmp_path: Path) -> None:
    write_series(tmp_path)
    finished = call("data", "parquet", "inputs=[left, right]", "--root", str(tmp_path))
    assert finished.status == 0, finished.stderr
    for expected in ("64 train, 16 test", "2x24", "classification", "2: 0, 1", "inputs left, right; label label"):
        assert expected in finished.stdout
    report = json.loads(call("data", "parquet", "inputs=left", "--root", str(tmp_path), "--json").stdout)
    assert (report["task"], report["shape"]) == ("classification", [24])
    assert "data.dataset.inputs=left" in report["overrides"]
    refused = call("data", "parquet", "input=left", "--root", str(tmp_path))
    assert (refused.status, refused.stdout) == (2, "")
    assert "data.dataset.input: unknown key with data.dataset.name=parquet; did you mean 'inputs'?" in refused.stderr
