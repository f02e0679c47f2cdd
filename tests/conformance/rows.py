"""Rows: one behaviour each, read from the YAML files in `rows/`.

A row has a sentence and steps; `docs/reference/conformance.md` explains the words. A row with
one step has the step's words beside its sentence. Rows share nothing: `$name` stands for a name
that no other row has, `$ns` for the namespace it works in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conformance.steps import WORDS

Step = dict[str, Any]

DIRECTORY = Path(__file__).parent / "rows"
_ABOUT = ("row", "do", "own-namespace", "differs")


@dataclass(frozen=True, slots=True)
class Row:
    """One behaviour."""

    place: str
    """File and number, for example `claims-12`; part of the names of the row's objects."""
    sentence: str
    steps: tuple[Step, ...]
    own_namespace: bool
    differs: str | None
    """Why the embedded API does otherwise, which docs/limitations.md says too; else None."""


def read() -> list[Row]:
    """Read all rows; ValueError for one that is not understood."""
    return [row for path in sorted(DIRECTORY.glob("*.yaml")) for row in _of_file(path)]


def _of_file(path: Path) -> list[Row]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents = yaml.load(path.read_text(), Loader=loader)
    return [_row(f"{path.stem}-{n}", given) for n, given in enumerate(documents, 1)]


def _row(place: str, given: Step) -> Row:
    steps = given.get("do") or [{k: v for k, v in given.items() if k not in _ABOUT}]
    for step in steps:
        unknown = set(step) - WORDS
        if unknown or not step:
            raise ValueError(f"{place}: unknown words {sorted(unknown)} in {step}")
    return Row(
        place,
        given["row"],
        tuple(steps),
        bool(given.get("own-namespace")),
        given.get("differs"),
    )
