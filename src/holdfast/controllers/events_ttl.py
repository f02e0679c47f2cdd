"""Events go away an hour after they were last counted.

Every event has one timer in the event loop's own heap. When it fires, the event is
looked at: one that was counted again meanwhile gets a new timer for the rest of its
time, any other is deleted. So a steady state costs nothing, and a million updates of
one event cost one timer.

The invariant: an event is deleted only by uid, so that a new event of the same name
never pays for the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.api import errors, kinds
from holdfast.kit import clock
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers, Key, key_of
from holdfast.runtime.recorder import Recorder

TTL = 3600.0


class EventExpiry:
    """Deletes each event `ttl` seconds after its last occurrence."""

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, *, ttl: float = TTL
    ) -> None:
        self._client = client
        self._events = informers.of(kinds.EVENT)
        self._ttl = ttl
        self._controller = Controller("events-ttl", self._reconcile, workers=2)
        self._events.subscribe(self._changed)

    async def run(self) -> None:
        """Delete what expires, until cancelled."""
        await self._events.synced()
        await self._controller.run()

    def _changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        # An update only ever moves the expiry away; the timer finds that out itself.
        if old is None and new is not None:
            self._controller.enqueue_after(key_of(new), max(0.0, self._remaining(new)))

    def _remaining(self, obj: Mapping[str, Any]) -> float:
        """Return the seconds the event still has."""
        return self._ttl - (clock.now() - clock.parse(last_occurrence(obj))).total_seconds()

    async def _reconcile(self, key: Key) -> Outcome:
        namespace, name = key
        obj = self._events.get(name, namespace)
        if obj is None:
            return Done
        remaining = self._remaining(obj)
        if remaining > 0:
            return After(remaining)
        try:
            uid = obj["metadata"]["uid"]
            await self._client.delete(kinds.EVENT, name, namespace, uid=uid)
        except (errors.NotFound, errors.Conflict):
            pass
        return Done


def last_occurrence(obj: Mapping[str, Any]) -> str:
    """Return when the event last happened, as RFC 3339 text."""
    series: Mapping[str, Any] = obj.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or obj.get("lastTimestamp")
        or obj.get("eventTime")
        or obj["metadata"]["creationTimestamp"]
    )
