"""What a person sees of runs on MLflow's pages: descriptions, names, and addresses that open on charts."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from fedbench.records.headline import ACCURACY
from fedbench.tasks.kinds import Headline

NOTE = "mlflow.note.content"
"""The tag that MLflow's pages show as the description of a run or an experiment."""

ABOUT_THE_EXPERIMENT = """\
Federated-learning experiments of fedbench.

Each run is one experiment; a suite or a study is a run with its runs nested below. By round: `test/accuracy` (0..1),
`validation/accuracy` where there is such a split (`best/accuracy` is then the test accuracy of the round that is best
on it, else the largest test accuracy; tasks that are judged by another metric have `test/perplexity`, `best/mae` and so
on, of which the best may be the smallest), `comm/uplink_mb` and `comm/downlink_mb` (cumulative, all clients),
`compute/tflop` (cumulative, all clients), `paper/*` as the FedPart paper counts, `time/round_s`. `schedule/group` is
the number of the one layer group that a round trained, by the list in the run's tag `layer_groups`; -1: all or several.
Every run's configuration and tables are among its artifacts, with plots of that metric against rounds, MB and TFLOP;
`plots/timeline.png` shows who received, computed, sent and waited when, in runs that have a clock.

Tags tell what a run is: `algorithm`, `schedule`, `dataset`, `task`, `model`, `partition`, and `suite` or `study`. To
see some runs only, search for `tags.algorithm = 'fedprox' and tags.partition = 'dirichlet'`; to average over seeds,
group by a tag.
"""
"""What MLflow shows above an experiment's runs, where nobody wrote anything else there."""

ALL_UPDATES_FULL = "full"
"""The schedule that goes without saying."""


def name_of_run(tags: Mapping[str, str], directory: Path) -> str:
    """The name of a run on its own: its method, where the directory does not say it, and its directory.

    A preset's name and a hash do not tell two runs apart that differ in an override.

    >>> name_of_run({"algorithm": "fedprox", "schedule": "sequential"}, Path("runs/quickstart-0-7b529257"))
    'fedprox sequential quickstart-0-7b529257'
    >>> name_of_run({"algorithm": "fedavg", "schedule": "full"}, Path("runs/fedavg-digits-0-235cb957"))
    'fedavg-digits-0-235cb957'
    """
    method = [tags.get("algorithm", ""), tags.get("schedule", "")]
    words = [word for word in method if word not in ("", ALL_UPDATES_FULL) and word not in directory.name]
    return " ".join([*words, directory.name])


def charts_fragment(experiment_id: str | None, parent_run_id: str | None = None, headline: Headline = ACCURACY) -> str:
    """What follows the address of MLflow's pages: runs as charts, in the mode of model training.

    Args:
        experiment_id: MLflow's; None: all experiments.
        parent_run_id: only the runs nested below this one, the best first.
        headline: the metric that says which of them is the best.
    """
    if experiment_id is None:
        return "#/experiments"
    address = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    if parent_run_id is None:
        return address
    # Sorted by time, MLflow would fold the runs into their parent, and chart that one alone.
    below, order = f"tags.`mlflow.parentRunId` = '{parent_run_id}'", f"metrics.`best/{headline.name}`"
    ascending = "false" if headline.higher_is_better else "true"
    return f"{address}&searchFilter={_quoted(below)}&orderByKey={_quoted(order)}&orderByAsc={ascending}"


def note_of_parent(note: str, experiment_id: str, run_id: str, headline: Headline = ACCURACY) -> str:
    """A note with a link to the charts of the nested runs, below its first paragraph: MLflow folds what is long."""
    title, _, rest = note.partition("\n\n")
    link = f"[Charts of the runs below this one]({charts_fragment(experiment_id, run_id, headline)})"
    return "\n\n".join(part for part in (title, link, rest) if part)


def _quoted(text: str) -> str:
    return quote(text, safe="")
