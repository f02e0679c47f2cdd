"""Compare what a server said with what a row expects, and say where the two part.

`differences` gives sentences, none when all is as expected. A mapping is compared by the
fields the row names, a list by all its elements, and three patterns stand for more than
themselves: `<any>`, `<absent>` and `<re:...>`. In a text `…` stands for anything: it is where
the reference prints a structure of Go, which no client can rely on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

ABSENT = "<absent>"
ANY = "<any>"
_REASONS = {
    "Required value": "FieldValueRequired",
    "Invalid value": "FieldValueInvalid",
    "Unsupported value": "FieldValueNotSupported",
    "Forbidden": "FieldValueForbidden",
    "Duplicate value": "FieldValueDuplicate",
    "Too long": "FieldValueTooLong",
    "Too many": "FieldValueTooMany",
    "Not found": "FieldValueNotFound",
    "Internal error": "InternalError",
}


def differences(expected: Any, found: Any, at: str = "") -> list[str]:
    """Compare one value with what is expected of it."""
    if isinstance(expected, dict):
        return _fields(expected, found, at)
    if isinstance(expected, list):
        return _elements(expected, found, at)
    if isinstance(expected, str):
        return [] if _text(expected, found) else [f"{at}: {found!r} instead of {expected!r}"]
    return [] if found == expected else [f"{at}: {found!r} instead of {expected!r}"]


def _fields(expected: dict[str, Any], found: Any, at: str) -> list[str]:
    if not isinstance(found, dict):
        return [f"{at}: {found!r} instead of {expected!r}"]
    said: list[str] = []
    for key, value in expected.items():
        path = f"{at}.{key}" if at else key
        if value == ABSENT:
            said += [f"{path}: {found[key]!r} is there"] if key in found else []
        elif key not in found:
            said.append(f"{path}: nothing instead of {value!r}")
        else:
            said += differences(value, found[key], path)
    return said


def _elements(expected: list[Any], found: Any, at: str) -> list[str]:
    if not isinstance(found, list) or len(found) != len(expected):
        return [f"{at}: {found!r} instead of {expected!r}"]
    pairs = enumerate(zip(expected, found, strict=True))
    return [said for n, (want, have) in pairs for said in differences(want, have, f"{at}[{n}]")]


def _text(expected: str, found: Any) -> bool:
    if expected == ANY:
        return True
    if not isinstance(found, str):
        return False
    if expected.startswith("<re:") and expected.endswith(">"):
        return re.fullmatch(expected[4:-1], found, re.DOTALL) is not None
    if "…" in expected:
        parts = map(re.escape, expected.split("…"))
        return re.fullmatch(".*".join(parts), found, re.DOTALL) is not None
    return found == expected


def invalid(status: dict[str, Any], says: Sequence[str]) -> list[str]:
    """Check a 422: its causes are exactly `says`, each as `field: text`, and all fits together.

    The order of causes is the server's map order in places, so it is not compared, and a cause
    that is said twice counts once: Kubernetes checks some parts of an object twice.
    """
    details = status.get("details") or {}
    causes = details.get("causes") or []
    found = [f"{cause.get('field')}: {cause.get('message')}" for cause in causes]
    different = list(dict.fromkeys(found))
    said = _unpaired(list(dict.fromkeys(says)), different)
    for cause in causes:
        kind = re.split(r": |$", cause.get("message", ""), maxsplit=1)[0]
        if _REASONS.get(kind) != cause.get("reason"):
            said.append(f"reason {cause.get('reason')} of {cause.get('message')!r}")
    group = f".{details['group']}" if details.get("group") else ""
    begin = f'{details.get("kind", "")}{group} "{details.get("name", "")}" is invalid: '
    message = begin + (different[0] if len(different) == 1 else f"[{', '.join(different)}]")
    if not different:
        message = begin.removesuffix(": ") + ": "
    return said + differences(
        {
            "code": 422,
            "reason": "Invalid",
            "status": "Failure",
            "kind": "Status",
            "message": message,
        },
        status,
    )


def _unpaired(expected: list[str], found: list[str]) -> list[str]:
    left = list(found)
    missing = []
    for text in expected:
        pair = next((each for each in left if _text(text, each)), None)
        if pair is None:
            missing.append(text)
        else:
            left.remove(pair)
    return [f"not said: {text}" for text in missing] + [f"said too: {text}" for text in left]
