"""Labels that the user gives to methods, and methods found by their names."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError
from fedbench.report.methods import Method

Labels = Mapping[str, str] | Sequence[str]
"""{name of a method: text that is shown for it}, or the same as texts NAME=TEXT."""


def named(name: str, methods: Sequence[Method]) -> list[Method]:
    """The methods that a name may mean: those called so in any case, else those whose label begins with it.

    Args:
        name: a label, letter or title, or the beginning of a label.
        methods: the methods to choose from.
    """
    wanted = name.strip().casefold()
    exact = [method for method in methods if wanted in map(str.casefold, method.names)]
    beginning = [method for method in methods if wanted and method.described.casefold().startswith(wanted)]
    return exact or beginning


def the_method(option: str, name: str, methods: Sequence[Method]) -> Method:
    """The one method that a name means.

    Args:
        option: the option that the name was given to, with its value, for the error message.
        name: as for `named`.
        methods: the methods to choose from.

    Raises:
        ConfigError: no such method, or several.
    """
    meant = named(name, methods)
    if len(meant) == 1:
        return meant[0]
    known = [method.label for method in methods]
    near = did_you_mean(name, known).partition("; allowed")[0]
    fault = "is the beginning of several methods" if meant else f"is no method here{near}"
    raise ConfigError(f"{option}: {fault}; there are: {'; '.join(known)}")


def relabelled(methods: Sequence[Method], labels: Labels) -> list[Method]:
    """The methods with the labels that were chosen for them; letters and order stay.

    Raises:
        ConfigError: a label for no method or for several, two for one, an empty one, or one for two methods.
    """
    chosen: dict[str, str] = {}
    for option, method, text in _pairs(methods, labels):
        if not text:
            raise ConfigError(f"{option}: the label is empty; write METHOD=TEXT")
        if method.letter in chosen:
            raise ConfigError(f"{option}: {method.label} is to be called {chosen[method.letter]!r} already; give one")
        chosen[method.letter] = text
    renamed = [replace(method, label=chosen.get(method.letter, method.label)) for method in methods]
    twice = [label for label, count in Counter(method.label for method in renamed).items() if count > 1]
    if twice:
        letters = ", ".join(method.letter for method in renamed if method.label == twice[0])
        raise ConfigError(f"--label: {letters} would all be called {twice[0]!r}; give each method a label of its own")
    return renamed


def _pairs(methods: Sequence[Method], labels: Labels) -> Iterator[tuple[str, Method, str]]:
    """(option for messages, method, text) of each label."""
    if isinstance(labels, Mapping):
        for name, text in labels.items():
            option = f"--label {name}={text}"
            yield option, the_method(option, name, methods), " ".join(text.split())
        return
    for given in labels:
        option = f"--label {given}"
        if "=" not in given:
            raise ConfigError(f"{option}: write METHOD=TEXT, such as --label fedprox='FedProx (ours)'")
        name, text = _parted(given, methods)
        yield option, the_method(option, name, methods), " ".join(text.split())


def _parted(given: str, methods: Sequence[Method]) -> tuple[str, str]:
    """NAME and TEXT of NAME=TEXT; both may hold equals signs, so the longest NAME that means a method is taken."""
    places = [place for place, letter in enumerate(given) if letter == "="]
    meant = [place for place in places if len(named(given[:place], methods)) == 1]
    place = meant[-1] if meant else places[0]
    return given[:place], given[place + 1 :]
