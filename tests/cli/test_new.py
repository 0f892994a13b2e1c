"""`fedbench new`: what it writes runs as it stands, passes its own test, and can be run again as recorded."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Finished

from fedbench.cli.new import FILE_CHECKS, KINDS, TEMPLATES, class_name

pytestmark = pytest.mark.slow

Call = Callable[..., Finished]
CHECKOUT = Path(__file__).parents[2]
PYTHON_KINDS = [kind for kind in KINDS if kind not in FILE_CHECKS]
UNTRACKED = "tracking.enabled=false"
ALL_ROWS = ("rounds=2", "data.clients=2", UNTRACKED)
SMALL = (*ALL_ROWS, "data.samples_per_client=60")


def write(call: Call, kind: str, name: str, *options: str) -> dict[str, str]:
    """The JSON document of `fedbench new`."""
    finished = call("new", kind, name, "--json", *options)
    assert (finished.status, finished.stderr) == (0, "")
    document: dict[str, str] = json.loads(finished.stdout)
    return document


def carry_out(call: Call, command: str, *further: str) -> Finished:
    """A printed `fedbench` command, with further arguments."""
    program, *arguments = shlex.split(command)
    assert program == "fedbench"
    finished = call(*arguments, *further)
    assert finished.status == 0, finished.stderr
    return finished


def in_process_of_its_own(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A Python module run as a command in a folder."""
    path = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def forgotten() -> None:
    """Modules that a test writes are imported anew by the next test."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("my_", "test_my_")):
            del sys.modules[name]


@pytest.mark.parametrize("kind", PYTHON_KINDS)
def test_a_part_runs_and_its_recorded_configuration_runs_again(
    kind: str, call: Call, run_folder: Path, forgotten: None
) -> None:
    name = f"my_{kind.replace('-', '_')}"
    document = write(call, kind, name)
    assert document["files"] == [f"{name}.py", f"test_{name}.py"]
    small = ALL_ROWS if kind == "partition" else SMALL  # a partition says itself how many rows a client has
    first = json.loads(carry_out(call, document["run"], *small, "--json").stdout)
    assert first["status"] == "finished"
    config = Path(first["directory"]) / "config.yaml"
    assert f"{name}:{class_name(name)}" in config.read_text()
    again = json.loads(carry_out(call, "fedbench run", str(config), "output.directory=again", "--json").stdout)
    assert again["model_sha256"] == first["model_sha256"]


def test_the_parts_pass_their_own_tests(
    call: Call,
    run_folder: Path,
    forgotten: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    documents = [write(call, kind, f"my_{kind.replace('-', '_')}") for kind in PYTHON_KINDS]
    tests = [shlex.split(document["test"])[1] for document in documents]
    assert tests == [document["files"][1] for document in documents]
    monkeypatch.setenv("PYTEST_ADDOPTS", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    # In this process, and so with what FLOPs are known already: counting them takes longer than the tests.
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={run_folder}", *tests])
    stdout = capfd.readouterr().out
    assert status == 0, stdout
    assert re.fullmatch(r"\d\d passed in .*", stdout.splitlines()[-1])


def test_a_suite_runs(call: Call, run_folder: Path) -> None:
    document = write(call, "suite", "my-table")
    assert document["files"] == ["my-table.yaml"]
    foreseen = json.loads(carry_out(call, document["test"], "--json").stdout)
    assert foreseen["to_run"] == 8
    few_rows = (*ALL_ROWS, "data.test_fraction=0.75", "model.width=4")
    table = json.loads(carry_out(call, document["run"], *few_rows, "--json").stdout)
    assert table["status"] == "finished"
    assert [len(cell["values"]) for cell in table["cells"]] == [2] * 6


def test_a_study_goes_on_from_its_first_trial(call: Call, run_folder: Path) -> None:
    document = write(call, "study", "my-study")
    for command, trials in ((document["test"], 1), (document["run"], 4)):
        study = json.loads(carry_out(call, command, *SMALL, "--concurrency", "1", "--json").stdout)
        assert len(study["trials"]) == trials


def test_the_python_files_are_formatted_and_typed(call: Call, run_folder: Path) -> None:
    pytest.importorskip("ruff")
    pytest.importorskip("mypy")
    for kind in PYTHON_KINDS:
        write(call, kind, f"my_{kind.replace('-', '_')}")
    settings = run_folder / "ruff.toml"
    settings.write_text('line-length = 120\nlint.select = ["E", "F", "W", "I", "UP", "B", "SIM", "C4", "RUF", "PT"]\n')
    for command in (["check"], ["format", "--check"]):
        finished = in_process_of_its_own(run_folder, "ruff", *command, "--no-cache", ".")
        assert finished.returncode == 0, finished.stdout + finished.stderr
    # As fedbench's own files are checked: where that was done before, mypy knows all that the files import.
    files = map(str, sorted(run_folder.glob("*.py")))
    finished = in_process_of_its_own(CHECKOUT, "mypy", "--config-file=pyproject.toml", *files)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_person_reads_what_was_written_and_what_to_do(call: Call, run_folder: Path) -> None:
    finished = call("new", "schedule", "my_order", "--directory", "parts/of mine")
    assert finished.stdout.splitlines() == [
        "wrote: parts/of mine/my_order.py and parts/of mine/test_my_order.py",
        "then:  cd 'parts/of mine'",
        "run:   fedbench run quickstart schedule=my_order:MyOrder runtime.executor=inline",
        "test:  pytest test_my_order.py",
    ]
    assert {file.name for file in (run_folder / "parts/of mine").iterdir()} == {"my_order.py", "test_my_order.py"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scheduel", "mine"), "scheduel: no such kind of part; did you mean 'schedule'?"),
        (("model", "HalfStep"), "HalfStep: not a name for a Python module; use snake case, such as half_step"),
        (("model", "half-step"), "half-step: not a name for a Python module"),
        (("model", "class"), "class: not a name for a Python module"),
        (("model", "model"), "model: its class would be called Model, which means something else in it"),
        (("optimizer", "random"), "random: a module of that name is there already"),
        (("suite", "../mine"), "../mine: not a name for a suite; use letters, digits, - and _"),
        (("model", "my_net", "--directory", "a_file"), "a_file: cannot be written to (File exists)"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(
    arguments: tuple[str, ...], message: str, call: Call, run_folder: Path
) -> None:
    (run_folder / "a_file").touch()
    finished = call("new", *arguments)
    assert (finished.status, finished.stdout) == (2, "")
    assert re.fullmatch(rf"error: {re.escape(message)}.*\n", finished.stderr), finished.stderr
    assert [file.name for file in run_folder.iterdir()] == ["a_file"]


def test_a_class_may_have_any_name_that_the_template_does_not_use(call: Call, run_folder: Path) -> None:
    for name in ("one", "leave", "half_step", "resnet_8"):
        assert write(call, "model", name)["files"] == [f"{name}.py", f"test_{name}.py"]


@pytest.mark.parametrize("existing", ["my_net.py", "test_my_net.py"])
def test_an_existing_file_is_left_as_it_is(existing: str, call: Call, run_folder: Path) -> None:
    (run_folder / existing).write_text("precious")
    finished = call("new", "model", "my_net")
    assert finished.status == 2
    assert finished.stderr.startswith(f"error: {existing}: exists already and is left as it is")
    assert [(file.name, file.read_text()) for file in run_folder.iterdir()] == [(existing, "precious")]


def test_every_kind_has_its_templates() -> None:
    expected = {f"{prefix}{kind}.py.tmpl" for kind in PYTHON_KINDS for prefix in ("", "test_")}
    expected |= {f"{kind}.yaml.tmpl" for kind in FILE_CHECKS}
    assert {file.name for file in TEMPLATES.iterdir()} == expected


def test_every_kind_is_named_by_the_help(call: Call) -> None:
    shown = " ".join(call("new", "--help").stdout.split())
    assert [kind for kind in KINDS if not re.search(rf"(?<!-)\b{kind}\b", shown)] == []
