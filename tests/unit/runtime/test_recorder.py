"""Which events are written, how often, and what happens when they cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from holdfast.api import errors
from holdfast.runtime import recorder as recording
from holdfast.runtime.client import Client, Object
from holdfast.runtime.recorder import Recorder

CLAIM: Object = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "c", "namespace": "team", "uid": "u1", "resourceVersion": "7"},
}
NODE: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "u2"}}


class Events:
    """The event half of an API server, which can refuse and can be slow."""

    def __init__(self) -> None:
        self.stored: dict[str, Object] = {}
        self.writes: list[tuple[str, int]] = []
        self.refusal: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def _enter(self) -> None:
        await self.open.wait()
        if self.refusal is not None:
            self.writes.append(("refused", 0))
            raise self.refusal

    async def create(self, _: object, obj: Object, namespace: str) -> Object:
        await self._enter()
        name = obj["metadata"]["name"]
        assert obj["metadata"]["namespace"] == namespace
        if name in self.stored:
            raise errors.AlreadyExists.of("", "events", name)
        self.writes.append(("create", obj["count"]))
        self.stored[name] = obj
        return obj

    async def patch(self, _: object, name: str, patch: Object, __: str) -> Object:
        await self._enter()
        if name not in self.stored:
            raise errors.NotFound.of("", "events", name)
        self.writes.append(("patch", patch["count"]))
        self.stored[name] = {**self.stored[name], **patch}
        return self.stored[name]

    def seen(self) -> list[tuple[str, int]]:
        return [(event["message"], event["count"]) for event in self.stored.values()]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def recording_to(events: Events, clock: Callable[[], float]) -> AsyncIterator[Recorder]:
    recorder = Recorder(cast(Client, events), "binder", monotonic=clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        yield recorder
        await settle()
        task.cancel()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_an_event_is_written_with_all_that_kubernetes_gives_one(clock: Clock) -> None:
    events = Events()
    async with recording_to(events, clock) as recorder:
        recorder.event(CLAIM, "Warning", "FailedBinding", "no volume")
    (event,) = events.stored.values()
    assert event["metadata"]["name"].startswith("c.")
    assert event["metadata"]["namespace"] == "team"
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": "team",
        "name": "c",
        "uid": "u1",
        "resourceVersion": "7",
    }
    expected = {"type": "Warning", "reason": "FailedBinding", "message": "no volume", "count": 1}
    assert expected.items() <= event.items()
    assert event["source"] == {"component": "binder"}
    assert (event["reportingComponent"], event["reportingInstance"]) == ("binder", "")
    assert event["firstTimestamp"] == event["lastTimestamp"]


async def test_the_same_event_again_raises_one_count(clock: Clock) -> None:
    events = Events()
    async with recording_to(events, clock) as recorder:
        for _ in range(4):
            recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
            await settle()
        recorder.event(CLAIM, "Normal", "Waiting", "for another pod")
        recorder.event(CLAIM, "Warning", "Waiting", "for a pod")
        recorder.event(NODE, "Normal", "Waiting", "for a pod")
    assert events.writes[:4] == [("create", 1), ("patch", 2), ("patch", 3), ("patch", 4)]
    assert sorted(count for _, count in events.seen()) == [1, 1, 1, 4]


async def test_what_happens_during_a_write_is_one_write_more(clock: Clock) -> None:
    events = Events()
    events.open.clear()
    async with recording_to(events, clock) as recorder:
        for _ in range(3):
            recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
            await settle()
        for _ in range(2):
            recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
        events.open.set()
        await settle()
    assert events.writes == [("create", 1), ("patch", 5)]


async def test_more_than_ten_messages_of_a_reason_are_combined_into_one_event(
    clock: Clock,
) -> None:
    events = Events()
    async with recording_to(events, clock) as recorder:
        for number in range(1, 15):
            recorder.event(CLAIM, "Normal", "Waiting", f"message {number}")
            await settle()
        # A message that has an event of its own keeps it; other reasons are not concerned.
        recorder.event(CLAIM, "Normal", "Waiting", "message 3")
        recorder.event(CLAIM, "Normal", "Binding", "message 99")
    seen = dict(events.seen())
    assert len(seen) == 12
    assert seen["(combined from similar events): message 14"] == 4
    assert (seen["message 3"], seen["message 10"], seen["message 99"]) == (2, 1, 1)


async def test_after_ten_quiet_minutes_messages_are_told_apart_again(clock: Clock) -> None:
    events = Events()
    async with recording_to(events, clock) as recorder:
        for number in range(11):
            recorder.event(CLAIM, "Normal", "Waiting", f"message {number}")
        clock.now += 599
        recorder.event(CLAIM, "Normal", "Waiting", "still combined")
        clock.now += 601
        recorder.event(CLAIM, "Normal", "Waiting", "on its own")
    messages = [message for message, _ in events.seen()]
    assert "(combined from similar events): still combined" in messages
    assert "on its own" in messages


async def test_an_object_gets_25_events_then_one_per_5_minutes(clock: Clock) -> None:
    events = Events()
    async with recording_to(events, clock) as recorder:
        for _ in range(40):
            recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
            await settle()
        assert events.writes[-1] == ("patch", 25)
        # Another object has its own allowance.
        recorder.event(NODE, "Normal", "Waiting", "for a pod")
        await settle()
        assert events.writes[-1] == ("create", 1)
        clock.now += 299
        recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
        await settle()
        assert len(events.writes) == 26
        clock.now += 2
        recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
        await settle()
        # What was held back is counted all the same.
        assert events.writes[26:] == [("patch", 42)]


async def test_an_event_of_a_cluster_scoped_object_lands_in_default(clock: Clock) -> None:
    events = Events()
    async with recording_to(events, clock) as recorder:
        recorder.event(NODE, "Normal", "Ready", "it is")
    (event,) = events.stored.values()
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


async def test_an_event_that_expired_is_made_again_with_its_count(clock: Clock) -> None:
    events = Events()
    async with recording_to(events, clock) as recorder:
        recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
        await settle()
        events.stored.clear()
        recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
        await settle()
        recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
    assert events.writes == [("create", 1), ("create", 2), ("patch", 3)]


async def test_a_create_that_had_worked_unnoticed_is_counted_on(clock: Clock) -> None:
    events = Events()
    async with recording_to(events, clock) as recorder:
        events.open.clear()
        recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
        await settle()
        (series,) = recorder._series.values()
        name = series.obj["metadata"]["name"]
        events.stored[name] = {**series.obj, "count": 1}
        recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
        events.open.set()
    assert events.seen() == [("for a pod", 2)]


@pytest.mark.parametrize(
    "refusal",
    [
        errors.NotFound.of("", "namespaces", "team"),
        errors.Forbidden.of("", "events", "c.1", "namespace team is being terminated"),
        OSError("connection refused"),
        RuntimeError("the client has been closed"),
    ],
)
async def test_a_refusal_is_logged_and_tried_again_only_with_the_next_event(
    clock: Clock, refusal: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    events = Events()
    async with recording_to(events, clock) as recorder:
        recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
        await settle()
        events.refusal = refusal
        for _ in range(2):
            recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
            recorder.event(CLAIM, "Normal", "Waiting", "for a node")
            await settle()
        refused = events.writes.count(("refused", 0))
        # Not Found on a patch is followed by a create, which is refused as well.
        assert 4 <= refused <= 6
        await settle()
        assert events.writes.count(("refused", 0)) == refused
        events.refusal = None
        recorder.event(CLAIM, "Normal", "Waiting", "for a pod")
        recorder.event(CLAIM, "Normal", "Waiting", "for a node")
    assert sorted(events.seen()) == [("for a node", 3), ("for a pod", 4)]
    assert {r.message for r in caplog.records} == {"event not written"}
    assert str(refusal) in {vars(r)["error"] for r in caplog.records}


async def test_long_names_and_messages_are_made_to_fit(clock: Clock) -> None:
    events = Events()
    meta: dict[str, Any] = {"name": "x" * 253, "uid": "u3"}
    async with recording_to(events, clock) as recorder:
        recorder.event({"kind": "Node", "metadata": meta}, "Normal", "Long", "y" * 5000)
    (event,) = events.stored.values()
    assert len(event["metadata"]["name"]) <= 253
    assert event["message"] == "y" * 1024


async def test_the_memory_of_series_is_bounded_and_keeps_the_recent(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "SERIES", 10)
    events = Events()
    async with recording_to(events, clock) as recorder:
        for number in range(50):
            for name in ("often", f"once-{number}"):
                obj = {"kind": "Node", "metadata": {"name": name, "uid": name}}
                recorder.event(obj, "Normal", "Seen", "it")
                await settle()
        for cache in (recorder._series, recorder._similar, recorder._buckets):
            assert len(cache) == 10
    counts = {e["involvedObject"]["name"]: e["count"] for e in events.stored.values()}
    # Held back after 25, but never forgotten and begun anew.
    assert len(counts) == len(events.stored) == 51 and counts["often"] == 25
