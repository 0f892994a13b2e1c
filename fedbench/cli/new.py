"""What `fedbench new` writes: a part of an experiment that runs as it stands, and its test."""

import ast
import keyword
import re
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template

from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError

TEMPLATES = Path(__file__).parent / "templates"

INLINE = "runtime.executor=inline"
"""Runs in this process, without Ray, and stops with the traceback of the part that fails."""

RUNS = {
    "algorithm": f"run quickstart algorithm={{part}} rounds=6 {INLINE}",
    "async-algorithm": f"run ormo-digits algorithm={{part}} local.optimizer.lr=0.05 rounds=6 {INLINE}",
    "schedule": f"run quickstart schedule={{part}} {INLINE}",
    "exchange": f"run fedavg-digits exchange={{part}} rounds=6 {INLINE}",
    "model": f"run quickstart model={{part}} rounds=6 {INLINE}",
    "dataset": f"run quickstart data.dataset={{part}} rounds=6 {INLINE}",
    "partition": f"run quickstart data.partition={{part}} rounds=6 {INLINE}",
    "sampler": f"run quickstart participation.sampler={{part}} participation.fraction=0.5 rounds=6 {INLINE}",
    "attack": f"run quickstart participation.byzantine={{part}} participation.byzantine.share=0.5 rounds=6 {INLINE}",
    "optimizer": f"run quickstart local.optimizer={{part}} rounds=6 {INLINE}",
    "metric": f"run quickstart 'evaluation.metrics=[{{part}}]' rounds=6 {INLINE}",
    "suite": f"suite {{file}} {INLINE}",
    "study": f"sweep {{file}} {INLINE}",
}
"""For each kind, the `fedbench` command that runs what was written, in seconds."""

FILE_CHECKS = {"suite": "suite {file} --dry-run", "study": f"sweep {{file}} {INLINE} --trials 1"}
"""For kinds that are YAML files, the `fedbench` command that tries the file out."""

KINDS = tuple(RUNS)


@dataclass(frozen=True)
class NewPart:
    """What was written.

    Attributes:
        kind: one of `KINDS`.
        name: as given.
        files: the written files, the part itself first.
        directory: the folder that they are in, from which the commands are run.
        run: the command that runs the part.
        test: the command that tests it.
    """

    kind: str
    name: str
    files: tuple[Path, ...]
    directory: Path
    run: str
    test: str

    def to_mapping(self) -> dict[str, object]:
        """The fields as a JSON document."""
        return {
            "kind": self.kind,
            "name": self.name,
            "files": [str(file) for file in self.files],
            "directory": str(self.directory),
            "run": self.run,
            "test": self.test,
        }

    def lines(self) -> list[str]:
        """The fields as lines for a person."""
        written = " and ".join(str(file) for file in self.files)
        enter = [] if self.directory == Path() else [f"then:  cd {shlex.quote(str(self.directory))}"]
        return [f"wrote: {written}", *enter, f"run:   {self.run}", f"test:  {self.test}"]


def create(kind: str, name: str, directory: Path) -> NewPart:
    """Write a template under a new name.

    Args:
        kind: one of `KINDS`.
        name: a module's name in snake case; of a suite or study, a file's name without its ending.
        directory: the folder to write to; made where there is none.

    Raises:
        ConfigError: an unknown kind, an unfit name, or a file that exists already; nothing is written then.
    """
    if kind not in KINDS:
        raise ConfigError(f"{kind}: no such kind of part{did_you_mean(kind, KINDS)}")
    texts = written_files(kind, name) if kind in FILE_CHECKS else python_files(kind, name)
    for file in texts:
        if (directory / file).exists():
            raise ConfigError(f"{directory / file}: exists already and is left as it is; choose another name")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (directory / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written to ({error.strerror})") from None
    main, *tests = texts
    filled = {"part": f"{name}:{class_name(name)}", "file": main}
    test = f"pytest {tests[0]}" if tests else f"fedbench {FILE_CHECKS[kind].format(**filled)}"
    files = tuple(directory / file for file in texts)
    return NewPart(kind, name, files, directory, f"fedbench {RUNS[kind].format(**filled)}", test)


def written_files(kind: str, name: str) -> dict[str, str]:
    """The text of a suite's or study's file, by file name.

    Raises:
        ConfigError: the name is not safe as a file's name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ConfigError(f"{name}: not a name for a {kind}; use letters, digits, - and _ (such as my_table)")
    return {f"{name}.yaml": (TEMPLATES / f"{kind}.yaml.tmpl").read_text(encoding="utf-8")}


def python_files(kind: str, name: str) -> dict[str, str]:
    """The texts of a module and its test, by file name.

    Raises:
        ConfigError: the name is no module's name in snake case, or means something else already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ConfigError(f"{name}: not a name for a Python module; use snake case, such as half_step")
    module, test = (
        Template((TEMPLATES / f"{file}.py.tmpl").read_text(encoding="utf-8")) for file in (kind, f"test_{kind}")
    )
    part = class_name(name)
    if part in names_used(module) | names_used(test):
        raise ConfigError(f"{name}: its class would be called {part}, which means something else in it; choose another")
    if name.startswith("test_") or name == "conftest" or _is_installed(name):
        raise ConfigError(f"{name}: a module of that name is there already, and would be imported; choose another name")
    words = {"module": name, "Class": part}
    return {f"{name}.py": module.substitute(words), f"test_{name}.py": test.substitute(words)}


def names_used(template: Template) -> set[str]:
    """The names that a template of Python code imports or uses, those that it is written for left out."""
    nodes = list(ast.walk(ast.parse(template.substitute(module="_module", Class="_Class"))))
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return imported | {node.id for node in nodes if isinstance(node, ast.Name)}


def class_name(name: str) -> str:
    """The class's name in CamelCase.

    >>> class_name("half_step")
    'HalfStep'
    """
    return "".join(word.capitalize() for word in name.split("_"))


def _is_installed(name: str) -> bool:
    """Whether Python finds a module of that name elsewhere than in the current folder, where new parts are written."""
    spec = find_spec(name)
    return spec is not None and (spec.origin is None or Path(spec.origin).parent != Path.cwd())
