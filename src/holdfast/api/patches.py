"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902).

Neither changes its arguments. `merge_patch` copies only the dictionaries on the
way to a change and shares everything else with the document and the patch; a
patch that changes nothing returns the document itself, so `is` tells a no-op.
It runs for every write of a controller.

JSON patch is the work of the jsonpatch library; this is its fence, and it adds
what the reference has: a limit on what copy operations may add up to.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jsonpatch
import jsonpointer
import msgspec

MAX_OPERATIONS = 10_000
MAX_COPIED_BYTES = 3 * 1024 * 1024

_ABSENT: Any = object()


class PatchError(ValueError):
    """A patch that cannot be applied.

    `malformed` tells a patch that is wrong in itself (400) from one that does
    not fit the document (422).
    """

    def __init__(self, message: str, *, malformed: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.malformed = malformed


def merge_patch(doc: Any, patch: Any) -> Any:
    """Return `doc` with the merge patch applied: null deletes, lists replace."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(doc, dict):
        return _without_nulls(patch)
    return _merge(doc, patch)


def _merge(doc: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] | None = None
    for key, value in patch.items():
        old = doc.get(key, _ABSENT)
        if value is None:
            value = _ABSENT
        elif isinstance(value, dict):
            value = _merge(old, value) if isinstance(old, dict) else _without_nulls(value)
        elif value.__class__ is old.__class__ and value.__class__ is not list and value == old:
            # Only scalars of one type: Python holds True and 1, also inside lists, for equal.
            continue
        if value is old:
            continue
        if merged is None:
            merged = doc.copy()
        if value is _ABSENT:
            del merged[key]
        else:
            merged[key] = value
    return doc if merged is None else merged


def _without_nulls(patch: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in patch.items()
        if value is not None
    }


def json_patch(doc: Any, ops: Sequence[Mapping[str, Any]]) -> Any:
    """Return a new document with the operations applied in order.

    Raises PatchError, naming the operation that failed.
    """
    steps = _checked(ops)
    result = copy.deepcopy(doc)
    copied = 0
    for number, step in enumerate(steps):
        try:
            if step["op"] == "copy":
                copied += _size(result, step)
            result = jsonpatch.JsonPatch([step]).apply(result, in_place=True)
        except jsonpatch.InvalidJsonPatch as error:
            raise PatchError(f"{_where(number, step)}: {error}") from error
        except jsonpatch.JsonPatchTestFailed as error:
            message = f"testing value {step['path']} failed: test failed"
            raise PatchError(message) from error
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
            raise PatchError(f"{_where(number, step)}: {error}") from error
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            # The library lets these through when a path leads through a scalar.
            raise PatchError(f"{_where(number, step)}: the path does not exist") from error
        if copied > MAX_COPIED_BYTES:
            raise PatchError(
                f"{_where(number, step)}: the patch copies {copied} bytes, "
                f"more than the {MAX_COPIED_BYTES} allowed"
            )
    return result


def _checked(ops: object) -> list[dict[str, Any]]:
    """Return a private copy of the operations after a look at their form."""
    if not isinstance(ops, list | tuple):
        raise PatchError("a JSON patch must be a list of operations", malformed=True)
    if len(ops) > MAX_OPERATIONS:
        raise PatchError(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(ops)}",
            malformed=True,
        )
    for number, step in enumerate(ops):
        if not isinstance(step, Mapping):
            raise PatchError(f"operation {number} must be an object", malformed=True)
        for member in ("op", "path"):
            if not isinstance(step.get(member), str):
                message = f'operation {number} needs "{member}", a string'
                raise PatchError(message, malformed=True)
    return [copy.deepcopy(dict(step)) for step in ops]


def _size(doc: Any, step: Mapping[str, Any]) -> int:
    source = step.get("from")
    if not isinstance(source, str):
        raise jsonpatch.InvalidJsonPatch("The operation does not contain a 'from' member")
    return len(msgspec.json.encode(jsonpointer.resolve_pointer(doc, source)))


def _where(number: int, step: Mapping[str, Any]) -> str:
    return f"operation {number} ({step['op']} {step['path']})"
