"""`fedbench analyze leakage` on tiny real runs: what is attacked is what was sent, and a killed command goes on."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from small import config

from fedbench.analysis.gradient_attack import distance
from fedbench.analysis.leakage import Leakage
from fedbench.analysis.leakage_cases import Case, Cases
from fedbench.analysis.recorded_model import RecordedModel, open_model
from fedbench.analysis.results import silent, write_analysis
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.run import run
from fedbench.records.recorded_analysis import read_analysis

QUICK = {"iterations": 3, "images": 2, "steps": 8}

RUN = (
    "data.clients=3", "data.samples_per_client=5", "local.batch_size=3", "model.width=2", "schedule.cycles=1",
    "rounds=auto", "runtime.executor=inline", "runtime.keep_models=[1-5]", "runtime.keep_messages=[1]",
)  # fmt: skip


@pytest.fixture(scope="session")
def kept_run(flops_counted_once: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one full round and one of each layer group, with what client 1 sent after four steps of Adam."""
    directory = tmp_path_factory.mktemp("leaking") / "run"
    undone = pytest.MonkeyPatch()
    undone.setattr("fedbench.records.plots.save_figures", lambda *arguments: None)
    optimizer = ("local.optimizer=adam", "local.optimizer.lr=0.05", "local.epochs=2")
    run(config(*RUN, *optimizer, f"output.directory={directory}"))
    undone.undo()
    return directory


def cases_of(model: RecordedModel, **options: Any) -> Cases:
    standard: dict[str, Any] = {
        "round_number": None,
        "client": None,
        "groups": "ends",
        "images": 2,
        "guesses_batches": False,
        "most_steps": 100,
        "seed": 0,
        "device": torch.device("cpu"),
    }
    return Cases(model, **standard | options)


def explained(case: Case) -> float:
    """How far the original images are from explaining what was sent."""
    victim = case.victims[0]()
    return float(distance(victim.observe(victim.originals, victim.labels), victim.sent, "dlg").detach())


def test_the_original_images_explain_what_was_really_sent(kept_run: Path) -> None:
    """In a full round, in a partial one, and in all partial rounds together; other images do not."""
    model = open_model(kept_run)
    full = cases_of(model, round_number=1)
    whole, *parts = full.of_message()
    assert whole.visible == "all, round 1"
    for case in (whole, *parts):
        assert explained(case) < 1e-4
    partial = cases_of(model, round_number=3)
    (own,) = partial.of_message()
    assert explained(own) < 1e-4
    (together,) = partial.of_messages()
    assert together.visible == "rounds 2 to 5"
    assert together.parameters == model.layout.size
    assert explained(together) < 1e-3
    victim = together.victims[0]()
    flipped = victim.observe(victim.originals.flip(0), victim.labels)
    assert float(distance(flipped, victim.sent, "dlg").detach()) > 0.1
    guessed = cases_of(model, round_number=1, guesses_batches=True).of_message()[0]
    assert explained(guessed) > 1e-3


def test_gradients_are_seen_as_clipping_leaves_them(kept_run: Path, tmp_path: Path) -> None:
    model = open_model(kept_run)
    cases = cases_of(model)
    sources = [(case.source, case.visible, case.parameters) for case in cases.of_gradient()]
    layout = model.layout
    names, sizes = layout.group_names, [layout.group_size(group) for group in layout.all_groups]
    assert sources == [
        ("gradient", "all", layout.size),
        ("gradient", f"{names[0]} (first)", sizes[0]),
        ("gradient", f"{sizes[0]:,} of all, as many as {names[0]}", sizes[0]),
        ("gradient", f"{names[-1]} (last)", sizes[-1]),
        ("gradient", f"{sizes[-1]:,} of all, as many as {names[-1]}", sizes[-1]),
    ]
    assert all(explained(case) < 1e-8 for case in (*cases.of_gradient(), *cases.of_gradients()))
    again = config(*RUN, "update.clip_norm=0.001", "rounds=1", "runtime.keep_models=[]", "runtime.keep_messages=[]")
    clipped = run(again.model_copy(update={"output": again.output.model_copy(update={"directory": tmp_path / "c"})}))
    plain, *_, as_sent, _, _ = cases_of(open_model(clipped.directory)).of_gradient()
    assert (plain.source, as_sent.source) == ("gradient", "gradient as sent")
    before, after = plain.victims[0]().sent[0], as_sent.victims[0]().sent[0]
    assert float(after.norm()) * again.local.optimizer.lr == pytest.approx(0.001, rel=1e-4)
    assert float(torch.cosine_similarity(before, after, dim=0)) == pytest.approx(1, abs=1e-5)


class Stopped(Exception):
    """Stands for a kill."""


@pytest.mark.slow
def test_a_killed_analysis_goes_on_with_the_next_image(kept_run: Path) -> None:
    model, settings = open_model(kept_run), Leakage(**QUICK, groups="all")
    whole = settings.perform([model], silent)

    def stop(done: int, total: int, text: str) -> None:
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        settings.perform([model], stop)
    items = sorted((kept_run / "analysis").glob(".leakage-*/item-*.safetensors"))
    assert len(items) == 3
    items[1].write_bytes(b"torn")
    written = items[0].stat().st_mtime_ns
    seen: list[int] = []

    def look(done: int, total: int, text: str) -> None:
        seen.append(done)
        if done == 3:
            assert items[0].stat().st_mtime_ns == written
            assert items[1].stat().st_size > 100

    resumed = settings.perform([model], look)
    assert seen == list(range(len(seen)))
    assert resumed.metrics == whole.metrics
    assert not list((kept_run / "analysis").glob(".leakage-*"))


@pytest.mark.slow
def test_everything_is_beside_the_whole_and_the_floors(kept_run: Path) -> None:
    analysis = Leakage(**QUICK).perform([open_model(kept_run)], silent)
    recorded = read_analysis(write_analysis(analysis, kept_run, "leakage").folder)
    labels = [label for label, _ in recorded.tables[0].rows]
    assert labels[0] == "gradient: all"
    assert labels[-2:] == ["nothing: noise", "nothing: mean image"]
    assert {label.split(":")[0] for label in labels} == {
        "gradient", "gradients of the cycle", "message", "messages of the cycle", "nothing"
    }  # fmt: skip
    table = pq.read_table(recorded.folder / "leakage.parquet")
    assert table.num_rows == 2 * 8 + 5 * len([label for label in labels if label.startswith("message")])
    for key in ("gradient/all", "gradient/first", "gradient/as many as last", "gradients of the cycle", "message/all",
                "messages of the cycle", "nothing/noise", "nothing/mean image"):  # fmt: skip
        assert f"psnr/run/{key}" in recorded.metrics
    assert (recorded.folder / "reconstructions.png").read_bytes().startswith(b"\x89PNG")


def test_labels_that_are_unknown_are_looked_for_too(kept_run: Path) -> None:
    options: dict[str, Any] = {"sources": ("gradient",), "groups": "all", "labels": "unknown", "attack": "dlg"}
    settings = Leakage(**QUICK | options | {"iterations": 40})
    analysis = settings.perform([open_model(kept_run)], silent)
    assert "labels unknown" in analysis.intro[0]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "group": (
        {"groups": "conv1,cnov2"},
        r"there is no layer group 'cnov2'; did you mean 'conv2'",
    ),
    "client": ({"client": 3}, "--client 3: run has no such client; 0 to 2"),
    "round": ({"round": 9}, r"has not kept the global model after 8 rounds; kept: .*keep_models=\[8\]"),
    "no message": ({"client": 0, "sources": ("message",)}, r"nothing to attack: .*none of client 0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_attacked_is_refused_in_one_line(what: str, kept_run: Path) -> None:
    options, reason = REFUSED[what]
    with pytest.raises((ConfigError, DataError), match=reason) as caught:
        Leakage(**QUICK | options).perform([open_model(kept_run)], silent)
    assert "\n" not in str(caught.value)


def test_options_without_an_effect_and_wrong_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batches=unknown: has no effect without message"):
        Leakage.checked(batches="unknown", sources=("gradient",))
    with pytest.raises(ConfigError, match=r"--attack"):
        Leakage.checked(attack="guess")
