"""Events: what a controller tells the people who look at an object.

The same event (source, object, type, reason, message) seen again raises the count of the one
already written. Many different messages of one reason are combined into one event that shows the
last of them, and one object cannot be flooded: what is above the limit is counted but not
written. The limits are those of Kubernetes' own recorder. Recording never blocks and never fails
the work it reports; events are written in the background, many at a time.

The invariant: at most one write per event series is on its way, so counts never go backwards.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
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
_NAME_LIMIT = 253
_MESSAGE_LIMIT = 1024
COMBINED = "(combined from similar events): "


class _Series:
    """One event and how often it happened."""

    __slots__ = ("count", "due", "exists", "first", "last", "message", "obj", "queued")

    def __init__(self, obj: Object) -> None:
        self.obj = obj
        self.message: str = obj["message"]
        self.count = 0
        # `queued` from when a worker is asked to write until none has to any more; `due` when
        # there is something that the write on its way does not have.
        self.queued = self.due = False
        self.exists = False
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
    cache.move_to_end(key)
    if len(cache) > SERIES:
        cache.popitem(last=False)


class Recorder:
    """Writes events of one component. `monotonic` is the clock of the limits, in seconds."""

    def __init__(
        self,
        client: Client,
        component: str,
        host: str = "",
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self.component = component
        self._source = {"component": component, **({"host": host} if host else {})}
        self._host = host
        self._monotonic = monotonic
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], tuple[float, set[str]]] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._queue: asyncio.Queue[_Series] = asyncio.Queue()
        self._serial = itertools.count(time.time_ns())

    def event(self, obj: Object, type: EventType, reason: str, message: str) -> None:
        """Note an event on an object; written soon, or counted onto its series."""
        uid = _identity(obj)
        now = self._monotonic()
        combined = self._combine(uid, type, reason, message, now)
        # All combined messages are one series: its event shows the last of them.
        key = (uid, type, reason, COMBINED if combined else message)
        message = (COMBINED + message if combined else message)[:_MESSAGE_LIMIT]
        series = self._series.get(key)
        if series is None:
            series = _Series(self._body(obj, type, reason, message))
        _remember(self._series, key, series)
        series.count += 1
        series.last = clock.rfc3339(clock.now())
        series.message = message
        if not self._allow(uid, now):
            return
        series.due = True
        if not series.queued:
            series.queued = True
            self._queue.put_nowait(series)

    def _combine(self, uid: str, type: str, reason: str, message: str, now: float) -> bool:
        """Tell whether this is one of too many different messages."""
        key = (uid, type, reason)
        last, messages = self._similar.get(key, (now, set()))
        if now - last > SIMILAR_WINDOW:
            messages = set()
        known = message in messages or len(messages) < SIMILAR
        if known:
            messages.add(message)
        _remember(self._similar, key, (now, messages))
        return not known

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
                "name": self._name(meta["name"]),
                "namespace": meta.get("namespace") or "default",
            },
            "involvedObject": {key: value for key, value in reference.items() if value},
            "reason": reason,
            "message": message,
            "type": type,
            "source": self._source,
            "reportingComponent": self.component,
            "reportingInstance": self._host,
        }

    def _name(self, name: str) -> str:
        full = f"{name}.{next(self._serial):x}"
        return full if len(full) <= _NAME_LIMIT else str(uuid.uuid4())

    async def run(self) -> None:
        """Write events until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(PARALLEL):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            series = await self._queue.get()
            series.due = False
            try:
                await self._write(series)
            except Exception as error:
                # Lost until it happens again: whoever reported it goes on in any case.
                expected = isinstance(error, errors.StatusError | OSError)
                log.warning(
                    "event not written",
                    extra={"reason": series.obj["reason"], "error": str(error) or repr(error)},
                    exc_info=None if expected else error,
                )
            finally:
                self._finish(series)

    def _finish(self, series: _Series) -> None:
        if series.due:
            self._queue.put_nowait(series)
        else:
            series.queued = False

    async def _write(self, series: _Series) -> None:
        changing = {
            "count": series.count,
            "lastTimestamp": series.last,
            "message": series.message,
        }
        meta = series.obj["metadata"]
        if series.exists:
            try:
                await self._client.patch(kinds.EVENT, meta["name"], changing, meta["namespace"])
                return
            except errors.NotFound:
                # Expired in between: it is made again, with the count it had.
                series.exists = False
        body = {**series.obj, "firstTimestamp": series.first, **changing}
        try:
            await self._client.create(kinds.EVENT, body, meta["namespace"])
        except errors.AlreadyExists:
            # An earlier try that seemed to have failed.
            await self._client.patch(kinds.EVENT, meta["name"], changing, meta["namespace"])
        series.exists = True


def _identity(obj: Object) -> str:
    meta = obj["metadata"]
    return meta.get("uid") or f"{obj.get('kind')}/{meta.get('namespace', '')}/{meta['name']}"
