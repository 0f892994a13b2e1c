"""Methods of a comparison that were run on several tasks: whom each is measured against, and how they rank.

A task is data and model, with all their settings. Within a task methods differ in some settings; those, in all tasks,
are what makes a method, and what it is called across tasks.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fedbench.report.methods import FIRST, Flat, Method, differing, labels, short_names, shown
from fedbench.tables.ranks import Ranking, Scores

SECTIONS = ("data.", "model.", "task")
"""Beginnings of the settings that make a task."""

REFERENCES = frozenset({"centralised", "local"})
"""Algorithms that are no rivals of others, but say what could be reached at best and at least."""


def by_task(methods: Sequence[Method]) -> dict[str, list[Method]]:
    """{name of a task: its methods}; one task for all, unless some method is on several and some task has several."""
    tasks: dict[str, list[Method]] = defaultdict(list)
    for method in methods:
        tasks[_text(_of_task(method))].append(method)
    rules = _rules(list(tasks.values()))
    on_several = len(set(rules.values())) < len(methods)
    if len(tasks) < 2 or not on_several or all(len(of_task) < 2 for of_task in tasks.values()):
        return {"": list(methods)}
    flats = [_of_task(of_task[0]) for of_task in tasks.values()]
    keys = [key for key in differing(flats) if len({_text({key: flat[key]}) for flat in flats if key in flat}) > 1]
    names = short_names(keys)
    titles = [", ".join(_setting(key, names[key], flat[key]) for key in keys if key in flat) for flat in flats]
    return dict(zip(titles, tasks.values(), strict=True))


def _rules(tasks: Sequence[Sequence[Method]]) -> dict[str, str]:
    """{letter of a method: its settings beside data and model, of those in which methods of some task differ}."""
    keys = {key for of_task in tasks for key in differing([method.runs[0].settings for method in of_task])} | set(FIRST)
    flats = {method.letter: method.runs[0].settings for of_task in tasks for method in of_task}
    is_one = len(tasks) == 1
    return {
        letter: _text({key: flat[key] for key in flat if key in keys and (is_one or not key.startswith(SECTIONS))})
        for letter, flat in flats.items()
    }


def baselines(methods: Sequence[Method], baseline: Method) -> dict[str, Method | None]:
    """{letter of a method: the method that it is measured against}: the baseline, on the same task.

    Returns:
        None for a method on a task that the baseline was not run on.
    """
    tasks = by_task(methods)
    called = names_across(methods)
    against: dict[str, Method | None] = {}
    for of_task in tasks.values():
        same = [method for method in of_task if called[method.letter] == called[baseline.letter]]
        counterpart = baseline if baseline in of_task else next(iter(same), None)
        against |= {method.letter: counterpart for method in of_task}
    return against


def names_across(methods: Sequence[Method]) -> dict[str, str]:
    """{letter of a method: its name without the task}, the same on every task."""
    rules = _rules(list(by_task(methods).values()))
    distinct = list(dict.fromkeys(rules.values()))
    names = dict(zip(distinct, labels([json.loads(rule) for rule in distinct]), strict=True))
    return {letter: names[rule] for letter, rule in rules.items()}


def scores_of(methods: Sequence[Method]) -> Scores | None:
    """The best values of the methods on each task, for ranks; None where there are no several tasks or methods.

    Args:
        methods: all judged by one metric.
    """
    judged_by, headline = methods[0].headline.best, methods[0].headline.headline
    tasks, called = by_task(methods), names_across(methods)
    rivals = [method for method in methods if not is_reference(method)]
    everywhere = [
        name
        for name in dict.fromkeys(called[method.letter] for method in rivals)
        if all(any(called[method.letter] == name for method in of_task) for of_task in tasks.values())
    ]
    elsewhere = sorted({called[method.letter] for method in rivals} - set(everywhere))
    if len(tasks) < 2 or len(everywhere) + len(elsewhere) < 2:
        return None
    left_out = (f"Not run on every task, and not ranked: {'; '.join(elsewhere)}.",) if elsewhere else ()
    cells = {
        task: {called[method.letter]: method.spread(judged_by) for method in of_task} for task, of_task in tasks.items()
    }
    by_name = {task: tuple(spreads[name].mean for name in everywhere) for task, spreads in cells.items()}
    fewest = min((spreads[name].n for spreads in cells.values() for name in everywhere), default=0)
    return Scores(f"best {headline.words}", tuple(everywhere), by_name, fewest, left_out, headline.higher_is_better)


def ranking_of(methods: Sequence[Method]) -> tuple[Ranking | None, str]:
    """The ranking over tasks, and why there is none, one line; (None, "") where there are no several tasks."""
    scores = scores_of(methods)
    if scores is None:
        return None, ""
    return (None, " ".join([scores.refusal, *scores.left_out])) if scores.refusal else (Ranking(scores), "")


def is_reference(method: Method) -> bool:
    """Whether a method is no rival of others, but says what could be reached."""
    return method.config.get("algorithm", {}).get("name") in REFERENCES


def _of_task(method: Method) -> Flat:
    return {key: value for key, value in method.runs[0].settings.items() if key.startswith(SECTIONS)}


def _setting(key: str, name: str, value: object) -> str:
    return shown(value) if key.endswith(".name") or key == "data.dataset" else f"{name}={shown(value)}"


def _text(flat: Mapping[str, object]) -> str:
    return json.dumps(flat, sort_keys=True, default=str)
