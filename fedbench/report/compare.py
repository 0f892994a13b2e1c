"""Recorded runs side by side: which count, as which methods, and what is wrong with the rest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbench.config.experiment import ExperimentConfig
from fedbench.config.merge import preset_names
from fedbench.errors import DataError
from fedbench.records.metrics import headline_figures
from fedbench.records.recorded_run import RecordedRun, Unusable, read_run
from fedbench.records.run_lock import is_at_work
from fedbench.report.caveats import Caveat, left_out, note, warn
from fedbench.report.chosen_labels import Labels, relabelled, the_method
from fedbench.report.fairness import remarks
from fedbench.report.methods import Method, grouped, identity, letters
from fedbench.report.methods import labels as descriptions


@dataclass(frozen=True)
class Comparison:
    """Recorded runs, grouped into methods that are compared.

    Attributes:
        methods: the methods with at least one run that counts.
        caveats: what a reader must know before believing a figure; the worst first.
        found: the number of runs that were looked at.
    """

    methods: tuple[Method, ...]
    caveats: tuple[Caveat, ...]
    found: int

    @property
    def runs(self) -> tuple[RecordedRun, ...]:
        """All runs that count."""
        return tuple(run for method in self.methods for run in method.runs)

    def baseline(self, label: str | None) -> Method:
        """The method that others are measured against.

        Args:
            label: its label or letter in any case, or the beginning of one label only; None: FedAvg with full updates
                if it is there, else the first.

        Raises:
            ConfigError: no such method, or several.
        """
        if label is None:
            return plain_fedavg(self.methods)
        return the_method(f"--baseline {label}", label, self.methods)


def load(directories: Sequence[Path], sources: Sequence[str] | None = None) -> list[RecordedRun | Unusable]:
    """The runs in these directories; those that cannot be read as `Unusable`.

    Args:
        directories: run directories.
        sources: how each is shown; None: their paths.
    """
    runs: list[RecordedRun | Unusable] = []
    for directory, source in zip(directories, sources or map(str, directories), strict=True):
        try:
            runs.append(read_run(directory, source))
        except DataError as error:
            runs.append(Unusable(source, f"cannot be read: {error}"))
    return runs


def compare(
    runs: Sequence[RecordedRun | Unusable], labels: Labels = (), titles: Mapping[str, str] | None = None
) -> Comparison:
    """Group runs into methods; whatever cannot be averaged is left out and said.

    Args:
        runs: runs in any order, several seeds of several configurations.
        labels: what methods are called instead of what tells them apart.
        titles: {digest of a run: what it is called}; None or lacking: what the suite called it that made it.

    Raises:
        ConfigError: a label that cannot be given.
        DataError: no run counts.
    """
    caveats = [left_out(f"{run.source}: {run.reason}") for run in runs if isinstance(run, Unusable)]
    readable = [run for run in runs if isinstance(run, RecordedRun)]
    groups = grouped(readable)
    methods: list[Method] = []
    kept: list[tuple[tuple[RecordedRun, ...], tuple[int, ...]]] = []
    for group in groups:
        finished, excluded = _finished(group)
        counted, doubles = _one_a_seed(finished)
        caveats += excluded + doubles
        if counted:
            kept.append((counted, tuple(sorted({run.seed for run in group}))))
    if not kept:
        reasons = "; ".join(caveat.text for caveat in caveats[:3])
        raise DataError(f"none of the {len(runs)} runs can be compared: {reasons}")
    kept.sort(key=lambda method: identity(method[0][0]))  # wherever the runs were read from
    described = descriptions([counted[0].settings for counted, _ in kept])
    names = _titled([counted for counted, _ in kept], described, titles or {})
    by_label = sorted(zip(names, kept, strict=True), key=lambda method: method[0].casefold())
    for letter, (label, (counted, asked)) in zip(letters(), by_label, strict=False):
        methods.append(Method(letter, label, counted, asked, label))
    methods = relabelled(methods, labels)
    caveats += remarks(methods, readable)
    return Comparison(tuple(methods), tuple(sorted(caveats, key=lambda caveat: caveat.rank)), len(runs))


def _titled(methods: Sequence[Sequence[RecordedRun]], described: Sequence[str], titles: Mapping[str, str]) -> list[str]:
    """The labels of methods: the name that was given to all runs of a method and to no other, else the description.

    Args:
        methods: the runs of each method.
        described: a label for each, made of its settings.
        titles: {digest of a run: its name}, where it is not the one that the run was recorded with.
    """
    not_given = {*preset_names(), ExperimentConfig.model_fields["name"].default}
    names = [{titles.get(run.digest) or run.description.label or run.name for run in runs} for runs in methods]
    uses = Counter(name for own in names for name in own)
    labels_shown = []
    for own, text in zip(names, described, strict=True):
        name = next(iter(own))
        is_title = len(own) == 1 and uses[name] == 1 and name not in not_given
        labels_shown.append(name if is_title and name not in described else text)
    return labels_shown


def _finished(group: Sequence[RecordedRun]) -> tuple[list[RecordedRun], list[Caveat]]:
    """The runs that came to their end with what they are judged by, and why the others do not count."""
    kept, caveats = [], []
    for run in group:
        reason = _why_not(run)
        if reason is None:
            kept.append(run)
        else:
            caveats.append(left_out(f"{run.source} (seed {run.seed}): {reason}"))
    return kept, caveats


def _why_not(run: RecordedRun) -> str | None:
    done = f"after {run.rounds.num_rows} of {run.description.rounds} rounds"
    if run.status == "failed":
        error = " ".join(str(run.summary.get("error", "no reason recorded")).split())
        return f"failed {done}: {error}"
    if run.status == "interrupted":
        return f"was interrupted {done}{_go_on(run)}"
    if run.status == "running":
        if is_at_work(run.directory):
            return f"is still running, {done}"
        return f"was killed, or runs on another machine, {done}{_go_on(run)}"
    if run.status != "finished":
        return f"has the status {run.status}"
    if run.rounds.num_rows < run.description.rounds:
        return f"says that it finished {done}"
    if run.summary.get(headline_figures(run.headline)[0]) is None:
        return "was never evaluated"
    return None


def _go_on(run: RecordedRun) -> str:
    """The command that goes on with the run, as a clause; "" where only copies of its files are here."""
    return f"; fedbench resume {run.directory} goes on with it" if run.source == str(run.directory) else ""


def _one_a_seed(finished: Sequence[RecordedRun]) -> tuple[tuple[RecordedRun, ...], list[Caveat]]:
    """One run for each seed; a seed whose runs came to different models has none."""
    kept, caveats = [], []
    for seed in sorted({run.seed for run in finished}):
        same = [run for run in finished if run.seed == seed]
        places = ", ".join(run.source for run in same)
        models = Counter(run.model_sha256 for run in same)
        if len(models) == 1:
            kept.append(same[0])
            if len(same) > 1:
                caveats.append(
                    note(f"seed {seed} was run {len(same)} times with the same model: counts once ({places})")
                )
            continue
        caveats.append(warn(_contradicting(seed, same)))
    return tuple(kept), caveats


def _contradicting(seed: int, same: Sequence[RecordedRun]) -> str:
    """The warning on runs that should have come to one model and did not."""
    why = "they ran with different versions or machines" if _other_versions(same) else "they should be equal"
    if any(run.summary.get("clock") == "wall" for run in same):
        why = "on the wall clock the order of arrivals differs from run to run"
    hashes = ", ".join(f"{run.source} has {run.model_sha256[:12] or 'none'}" for run in same)
    return (
        f"seed {seed} was run {len(same)} times and came to different models ({hashes}; {why}): it is left out; "
        "name only one of these runs to count it"
    )


def _other_versions(runs: Sequence[RecordedRun]) -> bool:
    return len({str(run.summary.get("versions")) for run in runs}) > 1


def plain_fedavg(methods: Sequence[Method]) -> Method:
    """FedAvg with full updates if it is among the methods, else the first."""
    return ([method for method in methods if _is_plain_fedavg(method)] or list(methods))[0]


def _is_plain_fedavg(method: Method) -> bool:
    config = method.config
    names = [(config.get(section) or {}).get("name") for section in ("algorithm", "schedule", "server")]
    return names == ["fedavg", "full", None]
