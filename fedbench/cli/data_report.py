"""The command `fedbench data`: the parameters that it takes, and what it shows."""

import shlex
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from fedbench.cli.terminal import megabytes, results
from fedbench.config.merge import parse_overrides
from fedbench.data.convert import DataReport
from fedbench.errors import ConfigError

KEY = "data.dataset."


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """The parameters of a data set, each written KEY=VALUE, or data.dataset.KEY=VALUE as a run takes them.

    Raises:
        ConfigError: a key of another part of the configuration.
    """
    own = [text.removeprefix(KEY) for text in texts]
    for text in own:
        key = text.partition("=")[0]
        if key == "data.root":
            raise ConfigError(f"the folder that holds the data sets is given as --root {text.partition('=')[2]}")
        if "." in key:
            raise ConfigError(f"{text}: is no parameter of a data set; fedbench data takes those alone (label=price)")
    return parse_overrides(own)


def print_data(report: DataReport) -> None:
    """Print what a data set holds."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("data set", report.name)
    table.add_row("rows", ", ".join(f"{count:,} {split}" for split, count in report.rows.items()))
    table.add_row("one row", "x".join(map(str, report.shape)))
    what = {"multilabel": "labels", "regression": "targets", "next_token": "tokens"}.get(report.task, "classes")
    # A token may be a space or a line break.
    shown = [repr(name) if report.task == "next_token" else name for name in report.class_names[:10]]
    names = ", ".join(shown) + (", ..." if len(report.class_names) > 10 else "")
    table.add_row("task", report.task.replace("_", " "))
    table.add_row(what, f"{len(report.class_names)}: {names}")
    if report.files:
        table.add_row("on disk", f"{report.files} files, {megabytes(report.bytes)}")
    table.add_row("source", report.source + (" (written just now)" if report.written else ""))
    table.add_row("fingerprint", report.fingerprint)
    for remark in report.remarks:
        table.add_row("note", remark)
    results.print(table, markup=False, highlight=False)
    # In one line, however long, so that it can be copied.
    command = shlex.join(["fedbench", "run", "PRESET", *report.overrides])
    width = max(len(name) for name in ("fingerprint", what))
    results.print(f"{'use it':<{width}}  {command}", markup=False, highlight=False, soft_wrap=True)
