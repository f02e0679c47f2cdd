"""Values as Go prints them, for the few messages in which Kubernetes shows one that way.

A patch that spoils an object is quoted in the answer as Go's `%+v` of the decoded patch:
`map[spec:map[capacity:map[storage:10GB]]]`, keys in order, lists in brackets without commas.
"""

from __future__ import annotations

from typing import Any


def not_an_integer(text: str) -> str:
    """What Go says of a text that should have been a whole number."""
    return f'strconv.ParseInt: parsing "{text}": invalid syntax'


def printed(value: Any) -> str:
    """The text Go's `%+v` gives for decoded JSON."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{printed(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(printed, value))}]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
