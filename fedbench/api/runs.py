"""A single run from Python."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fedbench.api.progress import RunProgress, run_progress, warn
from fedbench.api.session import lent_actors, release_actors
from fedbench.api.surroundings import restored
from fedbench.config.experiment import ExperimentConfig
from fedbench.config.python_values import override_texts
from fedbench.engine.on_ray.lifetime import ray_kept
from fedbench.experiment import run as experiments
from fedbench.experiment.interrupt import delivered_afterwards
from fedbench.experiment.result import Result
from fedbench.experiment.turns import its_turn


def run(
    config: ExperimentConfig | str | Path | Mapping[str, Any],
    *,
    progress: RunProgress = False,
    should_stop: Callable[[], bool] | None = None,
) -> Result:
    """Run an experiment: train, score and record it.

    A first Ctrl-C or SIGTERM ends it at the end of the round, with a checkpoint, and is delivered then: Ctrl-C raises
    KeyboardInterrupt, with a note that says how to go on. A local Ray that it starts is kept to the end of the process.
    In several threads runs take turns; for runs beside each other use processes, a study or a suite.

    Args:
        config: the configuration, or what `ExperimentConfig.load` makes one of: a preset, a file, nested values.
        progress: what is shown of the rounds. False or None: nothing. True: the lines of the command line, on stderr. A
            function: it is called with each round's row, a dict as in `Result.frame()`. An `Observer`: it is told of
            beginning, rounds and end. An exception that these raise ends the run, which can be resumed.
        should_stop: asked at the end of every round; True ends the run there, as interrupted, with a checkpoint.

    Raises:
        FedbenchError: bad configuration, data or model (before anything is recorded), or a run that could not go on
            (recorded as failed).
    """
    checked = config if isinstance(config, ExperimentConfig) else ExperimentConfig.load(config)
    with ExitStack() as context:
        was_signalled = context.enter_context(delivered_afterwards())
        context.enter_context(its_turn(was_signalled))
        context.enter_context(ray_kept())
        context.enter_context(restored())
        observers, announce = context.enter_context(run_progress(progress))
        warm = context.enter_context(lent_actors(checked))
        result = experiments.run(
            checked,
            observers,
            should_stop=lambda: was_signalled() or (should_stop is not None and should_stop()),
            warm=warm,
            announce=announce,
        )
        was_signalled.hint = how_to_go_on(result)
    warn(result.warnings, progress)
    return result


def resume(
    directory: str | Path,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    progress: RunProgress = False,
) -> Result:
    """Go on with a run that was interrupted, failed or killed, from its last checkpoint, or else from its start.

    The result is that of the unbroken run, bit for bit. Signals are heeded as by `run`.

    Args:
        directory: the run directory.
        overrides: of `runtime` and `tracking`: where the rest runs may differ, what it is may not.
        progress: as for `run`.

    Raises:
        FedbenchError: nothing is left to do, another process writes there, or as for `run`.
    """
    texts = override_texts(overrides)
    with ExitStack() as context:
        was_signalled = context.enter_context(delivered_afterwards())
        context.enter_context(its_turn(was_signalled))
        context.enter_context(ray_kept())
        context.enter_context(restored())
        observers, announce = context.enter_context(run_progress(progress))
        release_actors()
        result = experiments.resume(directory, texts, observers, announce=announce)
        was_signalled.hint = how_to_go_on(result)
    warn(result.warnings, progress)
    return result


def how_to_go_on(result: Result) -> str:
    """What to call for the rest of an interrupted run; "" for a finished one."""
    return f"go on with: fedbench.resume({str(result.directory)!r})" if result.summary["status"] != "finished" else ""
