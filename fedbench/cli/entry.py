"""Runs a command: errors as one line, exit statuses, and streams that cannot end it."""

import atexit
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import typer

from fedbench.cli.streams import unbreakable_streams
from fedbench.components.named_code import look_in
from fedbench.config.passwords import without_passwords
from fedbench.errors import ClientFailure, FedbenchError

FAILED, INTERRUPTED = 1, 130
"""Exit statuses of a run that failed, and after an interrupt that was heeded, as shells report SIGINT."""

# Typer may bring its own copy of click; this is the base of all complaints about usage in either.
UsageError: Any = typer.BadParameter.__base__


def run_command(app: typer.Typer) -> int:
    """Run the command that `sys.argv` names; returns its exit status."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    look_in(Path.cwd())
    with unbreakable_streams() as stdout:
        logging.basicConfig(format="%(message)s", stream=sys.stderr)
        status = exit_status(app, debug)
        stdout.flush()
        if stdout.lost is not None:
            sys.stderr.write(f"error: standard output could not be written: {stdout.lost}\n")
            status = status or 1
    return status


def leave(status: int) -> NoReturn:
    """End the process with an exit status: in order, but without taking the libraries' objects apart.

    Python would free every object of PyTorch, MLflow and Ray one by one, for two seconds of a core. What has to be done
    is done: threads that are waited for end, what is registered with `atexit` is called, the streams are flushed.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads any more
            stream.flush()
    os._exit(status)


def exit_status(app: typer.Typer, debug: bool) -> int:
    """Run the command; errors of fedbench's own are one line, without a traceback unless `debug` is set."""
    try:
        return int(app(standalone_mode=False) or 0)
    except FedbenchError as error:
        if debug:
            sys.stderr.write(without_passwords(traceback.format_exc()))
        elif isinstance(error, ClientFailure):
            sys.stderr.write(error.traceback or "".join(traceback.format_exception(error.__cause__)))
        sys.stderr.write(without_passwords(with_notes(f"error: {error}", error)))
        return error.exit_code
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "fedbench"
        sys.stderr.write(f"error: {without_passwords(error.format_message())} (see: {command} --help)\n")
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        sys.stderr.write(with_notes(_interrupted(error), error))
        return INTERRUPTED


@contextmanager
def interruptible() -> Iterator[None]:
    """Context in which an interrupt says how to go on; Typer would end the command without its notes."""
    try:
        yield
    except KeyboardInterrupt as error:
        sys.stderr.write(with_notes(_interrupted(error), error))
        raise typer.Exit(INTERRUPTED) from None


def _interrupted(error: BaseException) -> str:
    """What an interrupt has ended, in words, where the exception says so."""
    return " ".join(["interrupted", *map(str, error.args)])


def with_notes(line: str, error: BaseException) -> str:
    """A line, and as further lines the notes of an exception and of those in whose handling it was raised."""
    notes: list[str] = []
    raised: BaseException | None = error
    while raised is not None:
        notes += getattr(raised, "__notes__", [])
        raised = raised.__cause__ if raised.__suppress_context__ else raised.__context__
    return "\n".join([line, *dict.fromkeys(notes)]) + "\n"
