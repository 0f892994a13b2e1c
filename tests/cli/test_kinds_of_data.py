"""Runs on tables, series, texts and masks by command line, from files to what is learned and recorded."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Finished
from kinds_of_data import KINDS, SMALL, overrides_of, write_seasons, write_survey
from warm_pools import WarmPools

from fedbench.config.experiment import ExperimentConfig
from fedbench.tasks.kinds import headline_of

Call = Callable[..., Finished]

INLINE = "runtime.executor=inline"
OWNED = ("data.dataset.owner=news",)


def rounds_of(finished: Finished) -> tuple[dict, dict]:
    """The summary of a run, and its table of rounds as columns."""
    assert finished.status == 0, finished.stderr
    summary = json.loads(finished.stdout)
    return summary, pq.read_table(Path(summary["directory"]) / "rounds.parquet").to_pydict()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_data_is_learned_to_the_same_model_on_two_actors(
    kind: str, call: Call, tmp_path: Path, warm_pools: WarmPools
) -> None:
    expected = KINDS[kind]
    overrides = overrides_of(kind, tmp_path / "data")
    summary, rounds = rounds_of(call("run", "--json", INLINE, *overrides))
    assert summary.get("task", "classification") == expected.task
    headline = headline_of(expected.task)
    scores = rounds[f"test_{headline.name}"]
    assert all(math.isfinite(value) for value in (*scores, *rounds["test_loss"]))
    assert summary[f"best_{headline.name}"] in scores
    if expected.guess is not None:
        assert headline.better(scores[-1], expected.guess), scores
    actors = ("runtime.actors=2", "runtime.cpus_per_client=0.1")
    on_ray = warm_pools.run(ExperimentConfig.load("quickstart", [*overrides, *actors]))
    assert on_ray.summary["model_sha256"] == summary["model_sha256"]


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
        (
            ("data.dataset=csv", "data.dataset.label=lable"),
            "no column 'lable' (data.dataset.label); found selfLR, ClinLR",
        ),
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
    write_survey(tmp_path / "data")
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
    write_seasons(tmp_path)
    finished = call("data", "parquet", "inputs=[level, change]", "--root", str(tmp_path))
    assert finished.status == 0, finished.stderr
    for expected in (
        "124 train, 32 test",
        "2x13",
        "classification",
        "4: autumn, spring",
        "inputs level, change; label label",
    ):
        assert expected in finished.stdout
    report = json.loads(call("data", "parquet", "inputs=level", "--root", str(tmp_path), "--json").stdout)
    assert (report["task"], report["shape"]) == ("classification", [13])
    assert "data.dataset.inputs=level" in report["overrides"]
    refused = call("data", "parquet", "input=level", "--root", str(tmp_path))
    assert (refused.status, refused.stdout) == (2, "")
    assert "data.dataset.input: unknown key with data.dataset.name=parquet; did you mean 'inputs'?" in refused.stderr
