"""Suggestions for mistyped names."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """A suffix for an error message: the nearest allowed word, or all of them when none is near.

    >>> did_you_mean("clents", ["clients", "root"])
    "; did you mean 'clients'?"
    >>> did_you_mean("zzz", ["clients", "root"])
    '; allowed: clients, root'
    """
    words = sorted(allowed)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; allowed: {', '.join(words)}" if words else ""
