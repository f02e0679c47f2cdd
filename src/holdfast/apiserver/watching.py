"""Watch streams: newline-delimited events until the client leaves or its time is up.

The bytes of an event are the stored object's own, framed once for all watchers of plain JSON.
With a selector, an object that comes to match is ADDED to the stream and one that ceases to
match is DELETED from it. Bookmarks, when asked for, tell the current revision every minute and
just before the end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec

from holdfast.api import errors, fields
from holdfast.api.kinds import Kind
from holdfast.apiserver import forms, listing
from holdfast.apiserver.forms import Form
from holdfast.apiserver.requests import Request
from holdfast.apiserver.selection import Selection
from holdfast.store import errors as store_errors
from holdfast.store.log import Store
from holdfast.store.records import Event, Record, frame
from holdfast.store.watch import Watcher

BOOKMARK_SECONDS = 60.0
# A watch without timeoutSeconds ends after 30 to 60 minutes, so that clients spread out.
_MIN_TIMEOUT = 1800.0
_encode = msgspec.json.encode


class WatchStream:
    """One watch: made from a request, iterated for its chunks, closed when the client leaves."""

    def __init__(
        self, store: Store, kind: Kind, selection: Selection, form: Form, request: Request
    ) -> None:
        self._store = store
        self._kind = kind
        self._selection = selection
        self._form = form
        self._prefix = f"{selection.namespace}/" if selection.namespace and kind.namespaced else ""
        query = request.query
        self._bookmarks = request.flag("allowWatchBookmarks")
        self._timeout = _timeout(query)
        self._initial = _initial_events(request)
        text = query.get("resourceVersion", "")
        self._after = listing.revision_of(text) if text else 0
        self._watcher: Watcher | None = None
        self._closed = False

    def close(self) -> None:
        """End the stream; what has been committed before is still sent."""
        self._closed = True
        if self._watcher is not None:
            self._watcher.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The stream's bytes, one chunk per committed batch."""
        try:
            first = self._open()
        except errors.StatusError as error:
            yield frame("ERROR", _encode(error.status()))
            return
        watcher = self._watcher
        assert watcher is not None
        try:
            if first:
                yield first
            async for chunk in self._follow(watcher):
                yield chunk
        finally:
            watcher.close()

    def _open(self) -> bytes:
        """Start watching; returns what has to be sent at once."""
        synthetic = self._after == 0 or self._initial is True
        if self._initial is False and self._after == 0:
            synthetic = False
        after = self._store.revision if synthetic or self._after == 0 else self._after
        if self._after > self._store.revision:
            raise errors.Timeout.future(self._after, self._store.revision)
        try:
            self._watcher = self._store.watch(self._kind.bucket, after)
        except store_errors.Compacted as error:
            raise errors.Expired.of(f"too old resource version: {after} ({error.floor})") from error
        if not synthetic:
            return b""
        records = self._store.scan(self._kind.bucket, self._prefix)
        parts = [
            self._frame("ADDED", record)
            for record in records
            if self._selection.everything or self._selection.matches(record.obj)
        ]
        if self._initial is True and self._bookmarks:
            parts.append(self._bookmark(initial=True))
        return b"".join(parts)

    async def _follow(self, watcher: Watcher) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        while not watcher.closed:
            pause = min(BOOKMARK_SECONDS, end - loop.time())
            events: list[Event] = []
            try:
                async with asyncio.timeout(max(0.0, pause)):
                    events = await watcher.batch()
            except TimeoutError:
                if self._bookmarks:
                    yield self._bookmark()
                if loop.time() >= end:
                    return
            chunk = b"".join(self._lines(events))
            if chunk:
                yield chunk
        if watcher.overflowed:
            yield frame("ERROR", _encode(errors.Expired.of("the watch fell behind").status()))

    def _lines(self, events: Iterable[Event]) -> Iterable[bytes]:
        plain = self._selection.everything and self._form is forms.JSON
        prefix = self._prefix
        for event in events:
            if prefix and not event.record.key.startswith(prefix):
                continue
            if plain:
                yield event.line
                continue
            type = self._selected(event)
            if type:
                yield self._frame(type, event.record)

    def _selected(self, event: Event) -> str:
        if self._selection.everything:
            return event.type
        before = event.previous is not None and self._selection.matches(event.previous.obj)
        if event.type == "DELETED":
            return "DELETED" if before else ""
        after = self._selection.matches(event.record.obj)
        if before and after:
            return "MODIFIED"
        return "ADDED" if after else "DELETED" if before else ""

    def _frame(self, type: str, record: Record) -> bytes:
        return frame(type, self._form.event(self._kind, record))

    def _bookmark(self, *, initial: bool = False) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(self._store.revision)}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj = {"kind": self._kind.name, "apiVersion": self._kind.api_version, "metadata": meta}
        return frame("BOOKMARK", _encode(obj))


def _timeout(query: dict[str, str]) -> float:
    text = query.get("timeoutSeconds")
    if not text:
        return _MIN_TIMEOUT * (1 + random.random())
    try:
        return float(max(0, int(text)))
    except ValueError as error:
        raise errors.BadRequest(f"timeoutSeconds: {text!r} is not a number") from error


def _initial_events(request: Request) -> bool | None:
    if "sendInitialEvents" not in request.query:
        return None
    causes = []
    if request.query.get("resourceVersionMatch") != "NotOlderThan":
        causes.append(
            fields.forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )
        )
    if request.flag("sendInitialEvents") and not request.flag("allowWatchBookmarks"):
        causes.append(
            fields.forbidden(
                "allowWatchBookmarks",
                "sendInitialEvents requires setting allowWatchBookmarks to true",
            )
        )
    if causes:
        raise errors.Invalid.of("meta.k8s.io", "ListOptions", "", causes)
    return request.flag("sendInitialEvents")
