"""What a resumed run finds in its directory: tables and configurations that were changed since, and nothing is lost."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from broken_runs import SMALL, BreakAfter, Broken, load, tables

from fedbench import resume
from fedbench.checkpoints.files import ARRAYS, MANIFEST, STATE
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.run import run
from fedbench.records.reader import load_run
from fedbench.records.recorded_run import read_run

Damage = Callable[[Path], None]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("run_folder", "flops_counted_once", "no_figures")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole run, and the same run broken off after round 5 of 6 (checkpoints before rounds 2, 4)."""
    folder = tmp_path_factory.mktemp("recorded")
    run(load("rounds=6", f"output.directory={folder / 'whole'}"))
    with pytest.raises(Broken):
        run(load("rounds=6", f"output.directory={folder / 'broken'}"), [BreakAfter(4)])
    return folder


@pytest.fixture
def broken(recorded: Path, run_folder: Path) -> Path:
    return shutil.copytree(recorded / "broken", run_folder / "broken")


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def foreign_row(file: Path) -> None:
    table = pq.read_table(file)
    changed = pc.if_else(pc.equal(table["round"], 1), 0.99, table["test_accuracy"])
    place = table.column_names.index("test_accuracy")
    pq.write_table(table.set_column(place, "test_accuracy", changed), file)


def shorter(file: Path) -> None:
    pq.write_table(pq.read_table(file).slice(0, 1), file)


def flipped(file: Path) -> None:
    """Flip a bit of the first page."""
    content = bytearray(file.read_bytes())
    content[50] ^= 16
    file.write_bytes(content)


def missing(file: Path) -> None:
    file.unlink()


def named_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("damage", [foreign_row, shorter, flipped, missing, named_pipe])
def test_tables_are_taken_from_the_checkpoint_and_what_differs_is_kept_aside(
    damage: Damage, broken: Path, recorded: Path
) -> None:
    damage(broken / "rounds.parquet")
    resumed = resume("broken")
    assert tables(resumed.directory) == tables(recorded / "whole")
    (warning,) = (text for text in resumed.warnings if "rounds.parquet" in text)
    assert "not what the checkpoint was written with" in warning
    assert (broken / "set-aside-1" / "rounds.parquet").exists() == (damage is not missing)


def test_an_untouched_run_sets_nothing_aside(broken: Path, recorded: Path) -> None:
    resumed = resume("broken")
    assert tables(resumed.directory) == tables(recorded / "whole")
    assert not list(broken.glob("set-aside*"))
    assert not any("set-aside" in text for text in resumed.warnings)


@pytest.mark.parametrize("checkpoints", [True, False], ids=["with checkpoints", "without"])
def test_an_edited_configuration_is_refused_and_nothing_is_lost(broken: Path, checkpoints: bool) -> None:
    if not checkpoints:
        shutil.rmtree(broken / "checkpoints")
    file = broken / "config.yaml"
    file.write_text(file.read_text().replace("batch_size: 10\n", "batch_size: 5\n"))
    before = files_of(broken)
    with pytest.raises(ConfigError, match=r"config\.yaml: was edited since the run was started") as refused:
        resume("broken")
    assert ("local.batch_size was 10, is 5" in str(refused.value)) == checkpoints
    assert "undo the edit to go on, or start a new run with: fedbench run" in str(refused.value)
    assert files_of(broken) == before


def test_places_and_comments_in_the_configuration_may_change(broken: Path) -> None:
    file = broken / "config.yaml"
    file.write_text("# moved\n" + file.read_text().replace("name: experiment\n", "name: renamed\n"))
    assert resume("broken").summary["status"] == "finished"


def test_without_a_usable_checkpoint_a_run_is_refused_and_nothing_is_lost(broken: Path) -> None:
    for path in broken.glob("checkpoints/round-*"):
        (path / STATE).write_text("{}")
    before = files_of(broken)
    with pytest.raises(DataError, match=r"none of the checkpoints can be used, and nothing was changed: .*round-000"):
        resume("broken")
    assert files_of(broken) == before


def test_records_without_a_checkpoint_are_set_aside_when_the_run_begins_again(broken: Path, recorded: Path) -> None:
    shutil.rmtree(broken / "checkpoints")
    before = files_of(broken)
    resumed = resume("broken")
    assert tables(resumed.directory) == tables(recorded / "whole")
    kept = files_of(broken / "set-aside-1")
    assert kept == {name: before[name] for name in ("rounds.parquet", "clients.parquet")}
    assert any("ran again from the first round" in text for text in resumed.warnings)


def rewritten(checkpoint: Path, **changes: object) -> None:
    """Change a manifest, and have it vouch for the files as they are."""
    import hashlib

    file = checkpoint / MANIFEST
    manifest = json.loads(file.read_text())
    names = [name for name in manifest["sha256"] if (checkpoint / name).is_file()]
    manifest["sha256"] = {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in names}
    file.write_text(json.dumps(manifest | changes))


def other_shape(checkpoint: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({name: array[:-1] for name, array in load_file(checkpoint / ARRAYS).items()}, checkpoint / ARRAYS)
    rewritten(checkpoint)


def in_state(change: Callable[[str], str]) -> Damage:
    def damage(checkpoint: Path) -> None:
        file = checkpoint / STATE
        file.write_text(change(file.read_text()))
        rewritten(checkpoint)

    return damage


def header_bomb(checkpoint: Path) -> None:
    (checkpoint / ARRAYS).write_bytes((2**62).to_bytes(8, "little") + b"{" * 100)
    rewritten(checkpoint)


def linked(checkpoint: Path) -> None:
    checkpoint.rename(checkpoint.parent / "elsewhere")
    checkpoint.symlink_to("elsewhere")


def with_manifest(text: str) -> Damage:
    def damage(checkpoint: Path) -> None:
        (checkpoint / MANIFEST).write_text(text)

    return damage


def in_place_of(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(checkpoint: Path) -> None:
        file = checkpoint / name
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        make(file)

    return damage


DAMAGES: dict[str, Damage] = {
    "manifest of a list": with_manifest("[]"),
    "manifest of deep JSON": with_manifest("[" * 100_000),
    "manifest without an end": lambda path: os.truncate(path / MANIFEST, 2**40),
    "a negative round": lambda path: rewritten(path, next_round=-4),
    "a round too large": lambda path: rewritten(path, next_round=10**300),
    "a round as a text": lambda path: rewritten(path, next_round="4"),
    "checksums of another type": lambda path: rewritten(path, sha256=[1, 2]),
    "no checksums": lambda path: rewritten(path, sha256={}),
    "a file elsewhere": lambda path: rewritten(path, sha256={"../../summary.json": "0", ARRAYS: "0", STATE: "0"}),
    "another shape": other_shape,
    "a header bomb": header_bomb,
    "deep JSON": in_state(lambda text: "[" * 100_000 + "]" * 100_000),
    "an empty state": in_state(lambda text: '{"$dict": []}'),
    "a number for a mapping": in_state(lambda text: "7"),
    "an unknown type": in_state(lambda text: text.replace('"$type": "Costs"', '"$type": "Cost"')),
    "another round within": in_state(lambda text: text.replace('["next_round", 4]', '["next_round", -4]')),
    "a pipe for the manifest": in_place_of(MANIFEST, os.mkfifo),
    "a pipe for the arrays": in_place_of(ARRAYS, os.mkfifo),
    "a device for the state": in_place_of(STATE, lambda path: path.symlink_to("/dev/zero")),
    "a link in a loop": in_place_of(STATE, lambda path: path.symlink_to(path.name)),
    "a folder for the state": in_place_of(STATE, Path.mkdir),
    "a checkpoint that is a link": linked,
    "a table that is missing": lambda path: (path / "rounds.parquet").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_line_and_the_one_before_it_is_used(
    damage: str, broken: Path, recorded: Path
) -> None:
    DAMAGES[damage](broken / "checkpoints" / "round-00000004")
    resumed = resume("broken")
    assert (
        resumed.summary["model_sha256"] == json.loads((recorded / "whole" / "summary.json").read_text())["model_sha256"]
    )
    assert tables(resumed.directory) == tables(recorded / "whole")
    (warning,) = (text for text in resumed.warnings if text.startswith("refused a checkpoint"))
    replaced = broken / "checkpoints" / "round-00000004"
    assert not replaced.is_symlink()
    assert json.loads((replaced / MANIFEST).read_text())["next_round"] == 4
    assert "round-00000004" in warning
    assert "\n" not in warning
    assert len(warning) < 600


def test_a_finished_runs_files_are_vouched_for_by_its_summary(recorded: Path, run_folder: Path) -> None:
    for name in ("rounds.parquet", "clients.parquet", "summary.json"):
        copied = shutil.copytree(recorded / "whole", run_folder / f"copy-{name}")
        load_run(copied)
        flipped(copied / name)
        with pytest.raises(DataError, match=rf"{name}: (is not as the run wrote it|cannot be read|holds no)"):
            load_run(copied)


@pytest.mark.parametrize("name", ["rounds.parquet", "clients.parquet", "partition.parquet", "description.json"])
def test_a_whole_file_of_another_run_is_no_file_of_this_one(name: str, recorded: Path, run_folder: Path) -> None:
    copied = shutil.copytree(recorded / "whole", run_folder / "copy")
    shutil.copy(recorded / "broken" / name, copied / name)
    if name == "description.json":
        (copied / name).write_text((copied / name).read_text().replace("digits", "letters"))
    elif name == "partition.parquet":
        pq.write_table(pq.read_table(copied / name).slice(1), copied / name)
    with pytest.raises(DataError, match=rf"{name}: is not as the run wrote it .* or repeat the run with: fedbench run"):
        read_run(copied)


def test_a_figure_that_was_edited_in_a_summary_is_not_shown(recorded: Path, run_folder: Path) -> None:
    copied = shutil.copytree(recorded / "whole", run_folder / "copy")
    file = copied / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"best_accuracy": 0.99}))
    with pytest.raises(DataError, match=r"summary\.json: is not as the run wrote it .* repeat the run with"):
        read_run(copied)


def test_a_run_without_a_usable_summary_goes_on_where_a_checkpoint_vouches_for_it(
    broken: Path, recorded: Path, run_folder: Path
) -> None:
    other = json.loads((recorded / "whole" / "summary.json").read_text()) | {"config_hash": "0" * 16, "checksum": None}
    for damage in ("flipped", "missing", "another run's", "a folder"):
        directory = shutil.copytree(recorded / "broken", run_folder / damage)
        file = directory / "summary.json"
        file.unlink() if damage in ("missing", "a folder") else flipped(file)
        if damage == "another run's":
            file.write_text(json.dumps(other))
        elif damage == "a folder":
            file.mkdir()
        before = files_of(directory)
        resumed = resume(directory)
        assert tables(directory) == tables(recorded / "whole")
        assert read_run(directory).model_sha256 == read_run(recorded / "whole").model_sha256
        (warning,) = (text for text in resumed.warnings if "summary.json was missing, damaged or another" in text)
        assert str(directory / "set-aside-") in warning
        kept = {Path(name).name: content for name, content in files_of(directory).items() if "set-aside" in name}
        assert all(kept[name] == before[name] for name in ("rounds.parquet", "clients.parquet"))


def test_a_finished_run_whose_summary_is_damaged_is_finished_again_from_its_checkpoint(
    recorded: Path, run_folder: Path
) -> None:
    copied = shutil.copytree(recorded / "whole", run_folder / "whole")
    flipped(copied / "summary.json")
    before = files_of(copied)
    resume(copied)
    assert read_run(copied).status == "finished"
    assert tables(copied) == tables(recorded / "whole")
    kept = files_of(copied / "set-aside-1")
    assert kept == {name: before[name] for name in kept}
    assert kept.keys() == {"summary.json", "rounds.parquet", "clients.parquet", "model.safetensors"}


def test_a_damaged_summary_without_a_checkpoint_is_refused_and_says_what_to_do(broken: Path) -> None:
    shutil.rmtree(broken / "checkpoints")
    flipped(broken / "summary.json")
    before = files_of(broken)
    with pytest.raises(DataError, match=r"summary\.json: .*; bring it back .* or repeat the run with: fedbench run"):
        resume("broken")
    assert files_of(broken) == before


@pytest.mark.parametrize("name", ["description.json", "partition.parquet"])
def test_what_describes_a_run_is_written_anew_when_it_goes_on(name: str, broken: Path, recorded: Path) -> None:
    (broken / name).unlink()
    (broken / name).mkdir()
    assert resume("broken").summary["status"] == "finished"
    assert tables(broken) == tables(recorded / "whole")
    assert read_run(broken).description.class_names == read_run(recorded / "whole").description.class_names


def test_a_run_that_is_in_the_way_is_never_written_over(recorded: Path, run_folder: Path) -> None:
    before = files_of(shutil.copytree(recorded / "whole", run_folder / "whole"))
    with pytest.raises(ConfigError, match="is not empty"):
        run(ExperimentConfig.load(None, [*SMALL, "output.directory=whole"]))
    with pytest.raises(ConfigError, match="is finished"):
        resume("whole")
    assert files_of(run_folder / "whole") == before
