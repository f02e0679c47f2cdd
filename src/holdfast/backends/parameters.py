"""Reads the `parameters` of a StorageClass against a typed list of what is known.

Each backend declares its parameters once, as a tuple of `Parameter`. An unknown
key is an error that names the nearest known key and all others, because a key
that is silently ignored is found out weeks later. Values are checked against
`choices` where there are any; what a value means is the backend's own matter.

Invariant: `read` returns a value for every declared parameter, so a backend
never asks whether a key is present.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.backends import errors
from holdfast.kit import suggest


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: `aliases` are further keys under which it may be written."""

    name: str
    doc: str
    default: str = ""
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def read(given: Mapping[str, str], known: Sequence[Parameter]) -> dict[str, str]:
    """Return every known parameter with its given or default value, by its main name.

    Raises errors.Invalid for an unknown key, a value that is not a choice, and
    two spellings of one parameter that disagree.
    """
    by_key = {key: p for p in known for key in (p.name, *p.aliases)}
    values: dict[str, str] = {}
    for key, value in given.items():
        parameter = by_key.get(key)
        if parameter is None:
            raise _unknown(key, by_key, known)
        _check_choice(key, value, parameter)
        if values.setdefault(parameter.name, value) != value:
            raise errors.Invalid(
                f'"{key}" is "{value}" but the same parameter is also given as '
                f'"{values[parameter.name]}"',
                "StorageClass parameters",
                f"keep only {parameter.name}",
            )
    return {p.name: values.get(p.name, p.default) for p in known}


def _unknown(
    key: str, by_key: Mapping[str, Parameter], known: Sequence[Parameter]
) -> errors.Invalid:
    guess = suggest.nearest(key, by_key)
    hint = f'did you mean "{by_key[guess].name}"? ' if guess else ""
    return errors.Invalid(
        f'unknown parameter "{key}"',
        "StorageClass parameters",
        f"{hint}known parameters: {', '.join(p.name for p in known)}",
    )


def _check_choice(key: str, value: str, parameter: Parameter) -> None:
    if not parameter.choices or value in parameter.choices:
        return
    guess = suggest.nearest(value, parameter.choices)
    hint = f'did you mean "{guess}"? ' if guess else ""
    raise errors.Invalid(
        f'parameter "{key}" cannot be "{value}"',
        "StorageClass parameters",
        f"{hint}possible values: {', '.join(parameter.choices)}",
    )
