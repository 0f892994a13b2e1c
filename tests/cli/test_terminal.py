import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from samples import a_description, a_round, an_asynchronous_round, client_rows

from fedbench.cli import terminal as console
from fedbench.cli.terminal import Progress, print_summary
from fedbench.experiment.run import Result
from fedbench.records.schema import ROUND_SCHEMA, ClientRecord, RoundRecord

COSTS = {"uplink_bytes": 4_000_000, "downlink_bytes": 4_000_000, "client_flops": 10**12}
SYNCHRONOUS = COSTS | {
    "full_updates": COSTS,
    "best_accuracy": 0.9123,
    "final_accuracy": 0.9,
    "best_round": 7,
    "chosen_on": "test",
    "wall_seconds": 75.0,
    "rounds": 30,
    "status": "finished",
}
ASYNCHRONOUS = SYNCHRONOUS | {
    "virtual_seconds": 123.4321,
    "clock": "virtual",
    "arrivals": 4800,
    "lost_updates": 3,
    "staleness_mean": 14.8123,
    "staleness_max": 31,
    "epochs": 9.5,
}


def lines(
    monkeypatch: pytest.MonkeyPatch, *rounds: RoundRecord, clients: Sequence[ClientRecord] = (), rows: int = 30
) -> list[str]:
    """What a log file gets of these rounds, each four seconds after the one before."""
    now = iter(range(0, 1000, 4))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    out = io.StringIO()
    with Progress(Console(file=out, width=40)) as progress:
        progress.run_started(replace(a_description(Path("run")), rounds=rows))
        for record in rounds:
            progress.round_finished(record, clients)
        progress.run_finished({})
    return out.getvalue().splitlines()[1:]


@pytest.mark.parametrize("tflop", [None, 99.0, 1234.5])
def test_a_run_that_needs_much_work_says_so_before_its_first_round(tflop: float | None) -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=40)) as progress:
        progress.run_started(replace(a_description(Path("run")), client_tflop=tflop))
    said = [line for line in out.getvalue().splitlines() if "TFLOP" in line]
    much = "the clients' work will be about 1,234 TFLOP in all (see: fedbench cost)"
    assert said == ([much] if tflop == 1234.5 else [])


def last_frame(record: RoundRecord, width: int) -> str:
    """What a terminal shows of a round."""
    out = io.StringIO()
    with Progress(Console(file=out, width=width, force_terminal=True, color_system=None)) as progress:
        progress.run_started(a_description(Path("run")))
        progress.round_finished(record, [])
    return next(line for line in reversed(out.getvalue().splitlines()) if "loss" in line)


def summary_lines(monkeypatch: pytest.MonkeyPatch, summary: dict[str, Any]) -> dict[str, str]:
    out = io.StringIO()
    monkeypatch.setattr(console, "results", Console(file=out, width=40))
    print_summary(Result(summary, ROUND_SCHEMA.empty_table(), Path("run"), (), None))
    return {line[:17].rstrip(): line[17:] for line in out.getvalue().splitlines()}


def test_a_line_of_an_asynchronous_round_tells_arrivals_clock_and_staleness(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [an_asynchronous_round(index, arrivals=144) for index in range(3)]
    assert lines(monkeypatch, *rounds) == [
        "round 1/30  144 arrivals  accuracy 0.1000  loss 2.0000  4.00 MB  t=2.5 s  staleness 1.2",
        "round 2/30  144 arrivals  accuracy 0.5500  loss 1.0000  8.00 MB  t=5.0 s  staleness 2.2  1:52 left",
        "round 3/30  144 arrivals  accuracy 0.7000  loss 0.6667  12.00 MB  t=7.5 s  staleness 3.2  1:48 left",
    ]


def test_the_group_that_all_arrivals_trained_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [an_asynchronous_round(index, arrivals=1200, group=group) for index, group in enumerate((0, 2))]
    first, second = lines(monkeypatch, *rounds)
    assert first.startswith("round 1/30  1,200 arrivals  group 1  accuracy 0.1000  loss 2.0000  ")
    assert second.startswith("round 2/30  1,200 arrivals  group 3  accuracy 0.5500  loss 1.0000  ")


def test_layer_groups_are_told_by_their_names_and_several_as_such() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=40)) as progress:
        progress.run_started(replace(a_description(Path("run")), group_names=("stem", "body", "fc")))
        progress.round_finished(a_round(0, group=2), [])
        progress.round_finished(replace(a_round(1, group=0), group=-1), [])
    _, single, several = out.getvalue().splitlines()
    assert single.split("  ")[1] == "fc"
    assert several.split("  ")[1] == "several groups", "a run of an earlier version, which did not record them"


@pytest.mark.parametrize(
    ("phase", "counts", "words"),
    [
        ("partial", (2, 0, 1, 0, 0), "stem, fc"),
        ("partial", (0, 1, 1, 0, 0), "a group with a long name, fc"),
        ("partial", (0, 1, 1, 1, 0), "3 of 5 groups"),
        ("partial", (1, 1, 1, 1, 1), "5 of 5 groups"),
        ("full", (2, 2, 2, 2, 2), "full update"),
        ("async", (2, 0, 0, 0, 0), "2 arrivals  stem"),
        ("async", (1, 0, 1, 0, 0), "2 arrivals  stem, fc"),
        ("async", (2, 2, 2, 2, 2), "2 arrivals"),
        ("async", (1, 1, 1, 1, 1), "2 arrivals  5 of 5 groups"),
        ("async", (0, 0, 0, 0, 0), "2 arrivals"),
    ],
)
def test_several_layer_groups_are_listed_or_counted(phase: str, counts: tuple[int, ...], words: str) -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=40)) as progress:
        names = ("stem", "a group with a long name", "fc", "another one", "last")
        progress.run_started(replace(a_description(Path("run")), group_names=names))
        progress.round_finished(replace(a_round(0), phase=phase, group_clients=counts), [])
    assert f"round 1/10  {words:<11}  accuracy" in out.getvalue()


def test_rounds_of_one_arrival_and_of_none_are_told_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [an_asynchronous_round(index, evaluated=False, arrivals=1 - index) for index in range(2)]
    rounds[1] = replace(rounds[1], virtual_seconds=12345.678)
    assert lines(monkeypatch, *rounds, rows=2) == [
        "round 1/2  1 arrival    loss 2.0000  4.00 MB  t=2.5 s  staleness 1.2",
        "round 2/2  0 arrivals   loss 1.0000  8.00 MB  t=12,345.7 s  0 s left",
    ]


def test_lines_of_synchronous_rounds_have_neither_clock_nor_staleness(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(monkeypatch, a_round(0), a_round(1, group=3), a_round(2, evaluated=False)) == [
        "round 1/30  full update  accuracy 0.1000  loss 2.0000  4.00 MB",
        "round 2/30  group 4      accuracy 0.5500  loss 1.0000  8.00 MB  1:52 left",
        "round 3/30  full update  accuracy 0.5500  loss 0.6667  12.00 MB  1:48 left",
    ]


def test_rejected_arrivals_are_named_as_in_synchronous_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [replace(row, client=7 + row.client, status="rejected") for row in client_rows(0)]
    record = replace(an_asynchronous_round(0), rejected_clients=2)
    assert lines(monkeypatch, record, clients=clients)[0] == (
        "round 1/30: rejected updates (not finite, too large or of the wrong shape) of clients [7, 8]"
    )


def test_a_narrow_terminal_keeps_the_bar_and_the_count() -> None:
    narrow, wide = (last_frame(an_asynchronous_round(0, arrivals=144), width) for width in (80, 120))
    assert "144 arrivals  accuracy 0.1000  loss 2.0000  4.00 MB" in narrow
    assert "144 arrivals  accuracy 0.1000  loss 2.0000  4.00 MB  t=2.5 s  staleness 1.2" in wide
    assert narrow.rstrip().endswith(" 1/10")
    assert wide.rstrip().endswith(" 1/10")


def test_the_summary_of_an_asynchronous_run_tells_its_clock_and_staleness(monkeypatch: pytest.MonkeyPatch) -> None:
    told = summary_lines(monkeypatch, ASYNCHRONOUS)
    assert list(told) == [
        "accuracy", "sent up / down", "client work", "as full updates", "time", "clock", "staleness", "files",
    ]  # fmt: skip
    assert told["clock"] == "virtual 123.4 s, 4,800 arrivals, 3 lost"
    assert told["staleness"] == "14.8 mean, 31 max"
    assert summary_lines(monkeypatch, ASYNCHRONOUS | {"clock": "wall", "virtual_seconds": 4321.06})["clock"] == (
        "wall 4,321.1 s, 4,800 arrivals, 3 lost"
    )


def test_the_summary_of_a_run_in_which_nothing_arrived_has_no_staleness(monkeypatch: pytest.MonkeyPatch) -> None:
    told = summary_lines(monkeypatch, ASYNCHRONOUS | {"arrivals": 0, "staleness_mean": None, "staleness_max": None})
    assert told["clock"] == "virtual 123.4 s, 0 arrivals, 3 lost"
    assert "staleness" not in told


def test_the_summary_of_a_synchronous_run_has_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(summary_lines(monkeypatch, SYNCHRONOUS)) == [
        "accuracy", "sent up / down", "client work", "as full updates", "time", "files",
    ]  # fmt: skip


def test_the_summary_says_on_which_split_the_best_round_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    on_test = summary_lines(monkeypatch, SYNCHRONOUS)["accuracy"]
    assert on_test == "91.23% best (round 7, chosen on the test split), 90.00% final"
    validated = SYNCHRONOUS | {"chosen_on": "validation", "best_validation_accuracy": 0.95}
    on_validation = summary_lines(monkeypatch, validated)["accuracy"]
    assert on_validation == "91.23% in round 7, the best on validation (95.00%), 90.00% final"


def test_a_round_shows_its_validation_accuracy_beside_that_of_the_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = lines(monkeypatch, replace(a_round(0), validation_accuracy=0.25), rows=1)
    assert "accuracy 0.1000  validation 0.2500  loss" in line


PERPLEXITIES = {"best_perplexity": 9.8765, "final_perplexity": 12.0, "best_validation_perplexity": None}


def test_a_run_of_another_task_shows_the_metric_that_it_is_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = {name: value for name, value in SYNCHRONOUS.items() if "accuracy" not in name}
    shown = summary_lines(monkeypatch, summary | PERPLEXITIES | {"task": "next_token"})
    assert shown["perplexity"] == "9.877 best (round 7, chosen on the test split), 12 final"
    assert "accuracy" not in shown
    validated = {"chosen_on": "validation", "best_validation_perplexity": 9.5, "task": "next_token"}
    on_validation = summary_lines(monkeypatch, summary | PERPLEXITIES | validated)["perplexity"]
    assert on_validation == "9.877 in round 7, the best on validation (9.5), 12 final"


@pytest.mark.parametrize(
    ("task", "words"),
    [("classification", "accuracy"), ("regression", "MAE"), ("segmentation", "mean IoU"), ("multilabel", "macro F1")],
)
def test_a_run_that_was_not_evaluated_says_so_by_the_name_of_its_metric(
    monkeypatch: pytest.MonkeyPatch, task: str, words: str
) -> None:
    summary = {name: value for name, value in SYNCHRONOUS.items() if "accuracy" not in name} | {"best_round": None}
    assert summary_lines(monkeypatch, summary | {"task": task})[words] == "not evaluated"


def test_a_result_is_shown_with_the_metric_of_its_task() -> None:
    summary = {name: value for name, value in SYNCHRONOUS.items() if "accuracy" not in name} | PERPLEXITIES
    result = Result(summary | {"task": "next_token"}, ROUND_SCHEMA.empty_table(), Path("run"), (), None)
    assert repr(result) == "<Result: finished, 30 rounds, best perplexity 9.877, run>"
    classified = Result(SYNCHRONOUS, ROUND_SCHEMA.empty_table(), Path("run"), (), None)
    assert (result.task, classified.task) == ("next_token", "classification")
    assert repr(classified) == "<Result: finished, 30 rounds, best accuracy 0.9123, run>"


def test_a_round_shows_the_metric_of_its_task_and_its_validation_beside_it() -> None:
    out = io.StringIO()
    record = replace(a_round(0), test_accuracy=None, test_mae=12.3456, validation_mae=0.5)
    with Progress(Console(file=out, width=40)) as progress:
        progress.run_started(replace(a_description(Path("run")), task="regression"))
        progress.round_finished(record, ())
    assert "  MAE 12.35  validation 0.5  loss" in out.getvalue()
    assert "accuracy" not in out.getvalue()
