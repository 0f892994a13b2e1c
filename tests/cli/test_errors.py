"""Bad input: one line that a user can act on, exit code 2, and nothing left behind."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Finished, fedbench, write_broken_data
from small_studies import written

Call = Callable[..., Finished]

INLINE = ("run", "runtime.executor=inline")
CIFAR10 = ("run", "fedpart-cifar10", "runtime.executor=inline", "data.samples_per_client=20", "data.root={root}")

BAD = {
    "unknown key": (("run", "rouns=3"), "rouns: unknown key; did you mean 'rounds'?"),
    "unknown key of a section": (("run", "data.clents=3"), "data.clents: unknown key; did you mean 'clients'?"),
    "unknown parameter": (("run", "schedule.cicles=3"), "schedule.cicles: unknown key"),
    "wrong type": (("run", "data.clients=many"), "data.clients=many: must be a valid integer"),
    "half a round": (("run", "rounds=2.5"), "rounds=2.5: must be a whole number of at least 1, or auto"),
    "no clients": (("run", "data.clients=0"), "data.clients=0: must be greater than or equal to 1"),
    "alpha of zero": (
        ("run", "data.partition=dirichlet", "data.partition.alpha=0"),
        "data.partition.alpha=0: must be greater than 0",
    ),
    "negative alpha": (
        ("run", "data.partition=dirichlet", "data.partition.alpha=-0.5"),
        "data.partition.alpha=-0.5: must be greater than 0",
    ),
    "alpha left out": (("run", "data.partition=dirichlet"), "data.partition.alpha: must be set"),
    "no deviation": (
        ("run", "data.normalize={mean: 0.5, std: 0}"),
        "data.normalize.std=0: must be greater than or equal",
    ),
    "a shift beyond the images": ((*INLINE, "data.augment.crop=9"), "data.augment.crop=9: more than the 8 pixels of"),
    "nobody takes part": (("run", "participation.fraction=0"), "participation.fraction=0: must be greater than 0"),
    "twice everybody": (("run", "participation.fraction=2"), "participation.fraction=2: must be less than or equal"),
    "more participants than clients": (
        ("run", "participation.clients_per_round=11"),
        "participation.clients_per_round=11: more than data.clients=10",
    ),
    "more samples than there are": (
        (*INLINE, "data.samples_per_client=144"),
        "needs 10 x 144 = 1440 distinct rows, the training split has 1438",
    ),
    "more overlapping samples than there are": (
        (*INLINE, "data.samples_per_client=1439", "data.overlap=true"),
        "data.samples_per_client=1439: .*1438",
    ),
    "more clients than rows": ((*INLINE, "data.clients=1439"), "data.clients=1439: .*only 1438 rows"),
    "unknown preset": (("run", "quickstrat"), "quickstrat: no such preset; did you mean 'quickstart'?"),
    "unknown file": (("run", "mine.yaml"), "mine.yaml: no such file"),
    "two presets": (("run", "quickstart", "fedavg-digits"), "fedavg-digits: one preset or file at a time"),
    "unknown data set": (("run", "data.dataset=cifar11"), "data.dataset=cifar11: no such dataset; .*'cifar10'"),
    "no data root": (
        ("run", "fedpart-cifar10", "runtime.executor=inline"),
        "data.root: must be set with data.dataset=cifar10.*fedbench data cifar10 --root DIR",
    ),
    "no such data root": ((*CIFAR10[:-1], "data.root=nowhere"), "data.root=nowhere: no such folder"),
    "data root without the data": (
        (*CIFAR10, "{empty}"),
        "cifar10: not found, looked for {root}/cifar10/.*parquet.*; get it with: fedbench data cifar10 --root {root}",
    ),
    "corrupt Parquet": ((*CIFAR10, "{corrupt}"), "{root}/cifar10/train-.*: not a readable Parquet file"),
    "foreign Parquet": ((*CIFAR10, "{foreign}"), "no image column: expected 'image' or 'img', found age, income"),
    "an image cut short": ((*CIFAR10, "{cut_image}"), "{root}/cifar10/train-.*, row 7: .*truncated"),
    "labels out of range": ((*CIFAR10, "{labels}"), "{root}/cifar10/train-.*, row 1: .*label 10, expected 0..9"),
    "a test share of data with a test split": (
        (*CIFAR10, "{sound}", "data.test_fraction=0.3"),
        "data.test_fraction has no effect: cifar10 has a test split of its own",
    ),
    "overlap without a number": ((*INLINE, "data.overlap=true"), "data.overlap=true: has no effect without"),
    "statistics without BatchNorm": (
        ("run", "fedavg-cifar10", *CIFAR10[2:], "{sound}", "model=cnn", "evaluation.batchnorm=null"),
        "local.batchnorm=local: has no effect, model.name=cnn has no running statistics",
    ),
    "a root for data without one": ((*INLINE, "data.root=."), "data.root=.: has no effect with data.dataset=digits"),
    "actors without Ray": ((*INLINE, "runtime.actors=2"), "actors=2 has no effect with executor=inline"),
    "an address without Ray": ((*INLINE, "runtime.address=auto"), "address=auto has no effect with executor=inline"),
    "an experiment without tracking": (
        (*INLINE, "tracking.enabled=false", "tracking.experiment=mine"),
        "experiment=mine has no effect with enabled=false",
    ),
    "a store without tracking": (
        (*INLINE, "tracking.enabled=false", "tracking.mlflow_uri=sqlite:///mine.db"),
        "mlflow_uri=sqlite:///mine.db has no effect with enabled=false",
    ),
    "a client's statistics where they are averaged": (
        (*INLINE, "evaluation.batchnorm=client0"),
        "evaluation.batchnorm=client0: only with local.batchnorm=local",
    ),
    "averaged statistics where clients keep them": (
        (*INLINE, "local.batchnorm=local", "evaluation.batchnorm=aggregate"),
        "evaluation.batchnorm=aggregate: local.batchnorm=local keeps the statistics with the clients",
    ),
    "epochs and steps": ((*INLINE, "local.steps=3"), "epochs=2 and steps=3: set one of the two"),
    "rounds beyond the schedule": ((*INLINE, "rounds=23"), "rounds=23: the schedule ends after 22 rounds"),
    "a schedule without an end": ((*INLINE, "schedule=full"), "rounds=auto: schedule.name=full has no end"),
    "a model too large for the images": (
        (*INLINE, "model=vgg16"),
        "model.name=vgg16: needs images of at least 32x32, these are 8x8",
    ),
    "an occupied output directory": ((*INLINE, "{occupied}", "output.directory={root}"), "is not empty"),
    "nothing to list": (("list", "nonsense"), "nonsense: nothing to list by that name; allowed: algorithms, "),
    "nothing to count": (("cost", "rounds=abc"), "rounds=abc: must be a whole number"),
    "no such data": (("data", "nonsense"), "nonsense: no such data set; allowed: ag-news, breast-cancer, "),
    "unknown command": (("trane",), "No such command 'trane'"),
    "unknown option": (("run", "--fast"), "No such option: --fast"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = write_broken_data(tmp_path_factory.mktemp("data"))
    occupied = tmp_path_factory.mktemp("occupied")
    (occupied / "thesis.tex").write_text("")
    return roots | {"occupied": occupied}


def spelled(arguments: tuple[str, ...], expected: str, places: dict[str, Path]) -> tuple[list[str], str]:
    """With the folder that an argument like "{corrupt}" names as {root}, and that argument left out."""
    root = next((places[text[1:-1]] for text in arguments if text.startswith("{")), Path())
    given = [text.replace("{root}", str(root)) for text in arguments if not text.startswith("{")]
    return given, re.sub(r"([?()])", r"\\\1", expected).replace("{root}", re.escape(str(root)))


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    what: str, call: Callable[..., Finished], places: dict[str, Path], run_folder: Path
) -> None:
    arguments, expected = spelled(*BAD[what], places)
    finished = call(*arguments)
    assert (finished.status, finished.stdout) == (2, "")
    assert re.fullmatch(rf"error: .*{expected}.*\n", finished.stderr), finished.stderr
    assert list(run_folder.iterdir()) == []


@pytest.mark.parametrize("what", ["unknown key", "nothing to list", "unknown option"])
def test_bad_input_to_a_process_of_its_own(what: str, tmp_path: Path) -> None:
    arguments, expected = BAD[what]
    folder = tmp_path / "here"
    folder.mkdir()
    finished = fedbench(folder, *arguments)
    assert (finished.status, finished.stdout) == (2, "")
    assert re.fullmatch(rf"error: {re.escape(expected)}.*\n", finished.stderr), finished.stderr
    assert list(folder.iterdir()) == []


def test_debug_shows_the_traceback_before_the_line(call: Callable[..., Finished]) -> None:
    finished = call("--debug", "run", "rouns=3")
    assert finished.status == 2
    assert finished.stderr.startswith("Traceback")
    assert finished.stderr.splitlines()[-1].startswith("error: rouns: unknown key")


def test_without_a_command_the_help_names_all(call: Callable[..., Finished]) -> None:
    finished = call()
    assert finished.status == 0
    for command in ("run", "cost", "data", "list"):
        assert re.search(rf"^  {command} ", finished.stdout, re.MULTILINE)


def test_a_study_of_which_no_trial_is_complete_has_failed(call: Call, run_folder: Path) -> None:
    path = written(run_folder, objectives=["rounds_to_target"], target=1.0, budget={"trials": 1})
    finished = call("sweep", str(path))
    assert finished.status == 1
    assert "no trial is complete" in finished.stdout
    assert "rounds_to_target: the accuracy never reached target=1" in finished.stderr
