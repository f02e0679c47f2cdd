"""Events: what a controller tells the people who look at an object.

The same event (source, object, type, reason, message) seen again raises the count of the one
already written. Many different messages of one reason are combined, and one object cannot be
flooded: the limits are those of Kubernetes' own recorder. Recording never blocks and never
fails the work it reports; events are written in the background, many at a time.

The invariant: at most one write per event series is on its way, so counts never go backwards.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import OrderedDict
from typing import Any, Literal

from holdfast.api import errors, kinds
from holdfast.kit import clock
from holdfast.runtime.client import Client, Object

log = logging.getLogger("holdfast.runtime")

EventType = Literal["Normal", "Warning"]
# Kubernetes' recorder: 4096 series remembered; more than 10 messages of one reason within
# 10 minutes are combined; a source may write 25 events on one object, then one per 5 minutes.
SERIES = 4096
SIMILAR = 10
SIMILAR_WINDOW = 600.0
BURST = 25
REFILL = 300.0
# How many events are written at once, so that they share commits.
PARALLEL = 32
COMBINED = "(combined from similar events): "


class _Series:
    """One event and how often it happened."""

    __slots__ = ("count", "first", "last", "name", "namespace", "obj", "queued", "written")

    def __init__(self, obj: Object) -> None:
        self.obj = obj
        self.name = ""
        self.namespace = ""
        self.count = 0
        self.written = 0
        self.queued = False
        self.first = self.last = clock.rfc3339(clock.now())


class _Bucket:
    """Tokens left for one object."""

    __slots__ = ("tokens", "when")

    def __init__(self, when: float) -> None:
        self.tokens = float(BURST)
        self.when = when

    def take(self, when: float) -> bool:
        self.tokens = min(BURST, self.tokens + (when - self.when) / REFILL)
        self.when = when
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def _remember(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    cache[key] = value
    if len(cache) > SERIES:
        cache.popitem(last=False)


class Recorder:
    """Writes events of one component."""

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self._client = client
        self.component = component
        self._source = {"component": component, **({"host": host} if host else {})}
        self._host = host
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], tuple[float, set[str]]] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._queue: asyncio.Queue[_Series] = asyncio.Queue()
        self._serial = itertools.count(time.time_ns())

    def event(self, obj: Object, type: EventType, reason: str, message: str) -> None:
        """Note an event on an object; written soon, or counted onto its series."""
        uid = obj["metadata"].get("uid") or f"{obj.get('kind')}/{obj['metadata']['name']}"
        now = time.monotonic()
        message = self._combine(uid, type, reason, message, now)
        if not self._allow(uid, now):
            return
        key = (uid, type, reason, message)
        series = self._series.get(key)
        if series is None:
            series = _Series(self._body(obj, type, reason, message))
            _remember(self._series, key, series)
        else:
            self._series.move_to_end(key)
        series.count += 1
        series.last = clock.rfc3339(clock.now())
        if not series.queued:
            series.queued = True
            self._queue.put_nowait(series)

    def _combine(self, uid: str, type: str, reason: str, message: str, now: float) -> str:
        key = (uid, type, reason)
        since, messages = self._similar.get(key, (now, set()))
        if now - since > SIMILAR_WINDOW:
            messages = set()
        messages.add(message)
        _remember(self._similar, key, (now, messages))
        return message if len(messages) <= SIMILAR else COMBINED + message

    def _allow(self, uid: str, now: float) -> bool:
        bucket = self._buckets.get(uid)
        if bucket is None:
            bucket = _Bucket(now)
            _remember(self._buckets, uid, bucket)
        return bucket.take(now)

    def _body(self, obj: Object, type: str, reason: str, message: str) -> Object:
        meta = obj["metadata"]
        reference = {
            "apiVersion": obj.get("apiVersion"),
            "kind": obj.get("kind"),
            "namespace": meta.get("namespace"),
            "name": meta["name"],
            "uid": meta.get("uid"),
            "resourceVersion": meta.get("resourceVersion"),
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{meta['name']}.{next(self._serial):x}",
                "namespace": meta.get("namespace") or "default",
            },
            "involvedObject": {key: value for key, value in reference.items() if value},
            "reason": reason,
            "message": message[:1024],
            "type": type,
            "source": self._source,
            "reportingComponent": self.component,
            "reportingInstance": self._host,
        }

    async def run(self) -> None:
        """Write events until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(PARALLEL):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            series = await self._queue.get()
            try:
                await self._write(series)
            except (errors.StatusError, OSError) as error:
                log.warning(
                    "event not written",
                    extra={"reason": series.obj["reason"], "error": str(error)},
                )
            finally:
                self._finish(series)

    def _finish(self, series: _Series) -> None:
        # What was counted while the write was on its way needs another one. One that failed is
        # written with the next occurrence.
        if series.name and series.count > series.written:
            self._queue.put_nowait(series)
        else:
            series.queued = False

    async def _write(self, series: _Series) -> None:
        count, last = series.count, series.last
        if series.name:
            try:
                await self._client.patch(
                    kinds.EVENT,
                    series.name,
                    {"count": count, "lastTimestamp": last},
                    series.namespace,
                )
                series.written = count
                return
            except errors.NotFound:
                # Expired in between: the series starts anew.
                series.name = ""
        body = {**series.obj, "count": count, "firstTimestamp": series.first, "lastTimestamp": last}
        meta = body["metadata"]
        try:
            await self._client.create(kinds.EVENT, body, meta["namespace"])
        except errors.AlreadyExists:
            pass
        series.name, series.namespace, series.written = meta["name"], meta["namespace"], count
