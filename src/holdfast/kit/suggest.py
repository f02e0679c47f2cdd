"""Guesses what a misspelt word was meant to be.

Used wherever the user names something from a closed set (configuration keys,
backends, parameters): the error then names the nearest known word. A bad guess
is worse than none, so only close matches count.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

CLOSE_ENOUGH = 0.6


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word closest to `word`, ignoring case, or None."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=CLOSE_ENOUGH)
    return by_folded[found[0]] if found else None


def hint(word: str, known: Collection[str]) -> str:
    """Return what to tell who wrote an unknown word: the nearest known one, else all of them."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near else f"known here: {', '.join(known) or 'none'}"
