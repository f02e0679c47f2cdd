"""Whole histories of an object: who wrote what, and what Kubernetes made of it.

Each row of `data/histories.json` is one object and the writes to it, in order: who sent what, by
`apply` or by `update`, and what the reference implementation answered, either the object and its
owners or the refusal. Every step starts from the reference's own state, so one wrong step does
not hide another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds
from holdfast.api.managed import (
    applying,
    comparing,
    conflicts,
    entries,
    outlining,
    sets,
    types,
    updating,
)

Object = dict[str, Any]
NOW = "2026-11-21T09:00:00Z"
HISTORIES: list[Object] = json.loads(
    (Path(__file__).parent / "data" / "histories.json").read_text()
)


def _entries(row: list[Object], version: str) -> list[Object]:
    return [
        {**e, "apiVersion": version, "fieldsType": "FieldsV1", "time": NOW}
        | {"fieldsV1": sets.canonical(e["fieldsV1"])}
        for e in row
    ]


def _plain(managed: list[Object]) -> list[Object]:
    kept = ("manager", "operation", "subresource", "fieldsV1")
    rows = [{key: entry[key] for key in kept if key in entry} for entry in managed]
    return sorted(rows, key=lambda e: (e["operation"], e["manager"], e.get("subresource", "")))


class Replay:
    """One history, step by step."""

    def __init__(self, row: Object) -> None:
        kind = kinds.by_name(row["apiVersion"], row["kind"])
        assert kind is not None
        self.kind = kind
        self.type = types.of_shape(kind.shape)
        self.head = {"apiVersion": row["apiVersion"], "kind": row["kind"]}
        self.live: Object | None = None
        self.managed: list[Object] = []

    def step(self, step: Object) -> tuple[Object, list[Object]]:
        """What we make of the step."""
        where = step.get("subresource", "")
        ignored = "f:spec" if where else "f:status"
        reset = {ignored: sets.LEAF} if "status" in self.kind.subresources else sets.LEAF
        sent = {**self.head, **step["sent"]}
        operation: entries.Operation = "Apply" if step["op"] == "apply" else "Update"
        writer = entries.Writer(step["manager"], operation, self.head["apiVersion"], where)
        if step["op"] == "apply":
            return self._apply(sent, writer, reset, bool(step.get("force")))
        if self.live is None:
            return sent, updating.created(sent, self.type, writer, NOW, reset)
        changed, removed = comparing.compare(self.live, sent, self.type)
        if not self.managed:
            return sent, []
        parts = (sets.without_trees(changed, reset), sets.without_trees(removed, reset))
        return sent, updating.updated(self.managed, *parts, writer, NOW)

    def _apply(
        self, sent: Object, writer: entries.Writer, reset: sets.FieldSet, force: bool
    ) -> tuple[Object, list[Object]]:
        live, managed = self.live, self.managed
        if live is not None and not managed:
            first = entries.Writer(
                "before-first-apply", "Update", writer.api_version, writer.subresource
            )
            managed = updating.created(live, self.type, first, NOW, reset)
        live = self.type.blank if live is None else live
        asked = applying.Application(sent, writer, NOW, force, reset)
        outcome = applying.apply(live, managed, self.type, asked)
        return (live if outcome.obj is None else outcome.obj), outcome.managed

    def settle(self, step: Object) -> None:
        """Go on from what the reference made of the step."""
        if "object" in step:
            self.live = {**self.head, **step["object"]}
            self.managed = _entries(step["managed"], self.head["apiVersion"])


def _steps() -> list[Any]:
    return [
        pytest.param(number, index, id=f"{row['kind']}-{number}-step-{index}-{step['op']}")
        for number, row in enumerate(HISTORIES)
        for index, step in enumerate(row["steps"])
    ]


@pytest.mark.parametrize(("number", "index"), _steps())
def test_a_write_has_the_outcome_it_has_in_kubernetes(number: int, index: int) -> None:
    row = HISTORIES[number]
    replay = Replay(row)
    for step in row["steps"][:index]:
        replay.settle(step)
    step = row["steps"][index]
    if "refused" in step:
        with pytest.raises(conflicts.ApplyConflict) as refused:
            replay.step(step)
        assert sorted(str(refused.value).split("\n")) == sorted(step["refused"].split("\n"))
        return
    obj, managed = replay.step(step)
    decode = replay.kind.shape.decode
    assert decode(obj) == decode({**replay.head, **step["object"]})
    assert _plain(managed) == _plain(_entries(step["managed"], replay.head["apiVersion"]))


def test_equal_outlines_mean_equal_comparisons() -> None:
    seen: dict[Any, Any] = {}
    for row in HISTORIES:
        replay = Replay(row)
        for before in row["steps"]:
            for after in row["steps"]:
                if "object" not in before or "object" not in after:
                    continue
                pair = before["object"], after["object"]
                outline = (replay.kind, outlining.outline(*pair, replay.type))
                result = comparing.compare(*pair, replay.type)
                assert seen.setdefault(outline, result) == result
    assert len({json.dumps(result, sort_keys=True) for result in seen.values()}) > 30
