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
from holdfast.apiserver import forms, gotext, listing
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
        self._timeout = timeout_of(query)
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
        if self._closed:
            return
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
        # Counted from the last bookmark, so that a busy stream carries them as well.
        bookmark = min(end, loop.time() + BOOKMARK_SECONDS) if self._bookmarks else end
        while not watcher.closed:
            try:
                async with asyncio.timeout_at(min(bookmark, end)):
                    events = await watcher.batch()
            except TimeoutError:
                # What came in this very step has to go out before a bookmark says it did.
                events = watcher.take()
            chunk = b"".join(self._lines(events))
            if self._bookmarks and loop.time() >= bookmark:
                chunk += self._bookmark()
                bookmark = loop.time() + BOOKMARK_SECONDS
            if chunk:
                yield chunk
            if loop.time() >= end:
                return
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
            line = self._selected(event)
            if line:
                yield line

    def _selected(self, event: Event) -> bytes:
        """The line for an event, as the selection sees it; empty if it does not concern it."""
        if self._selection.everything:
            return self._frame(event.type, event.record)
        previous = event.previous
        before = previous is not None and self._selection.matches(previous.obj)
        if event.type == "DELETED":
            return self._frame("DELETED", event.record) if before else b""
        if self._selection.matches(event.record.obj):
            return self._frame("MODIFIED" if before else "ADDED", event.record)
        if previous is None or not before:
            return b""
        return self._frame("DELETED", _departed(previous, event.revision))

    def _frame(self, type: str, record: Record) -> bytes:
        return frame(type, self._form.event(self._kind, record))

    def _bookmark(self, *, initial: bool = False) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(self._store.revision)}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        return frame("BOOKMARK", self._form.bookmark(self._kind, meta))


def _departed(record: Record, revision: int) -> Record:
    """An object as it last matched the selection, at the revision at which it ceased to."""
    meta = {**record.obj["metadata"], "resourceVersion": str(revision)}
    obj = {**record.obj, "metadata": meta}
    return Record(record.bucket, record.key, revision, record.created, _encode(obj), obj)


def timeout_of(query: dict[str, str]) -> float:
    """How many seconds a watch lasts; raises `BadRequest`."""
    text = query.get("timeoutSeconds") or "0"
    try:
        seconds = int(text)
    except ValueError as error:
        raise errors.BadRequest(gotext.not_an_integer(text)) from error
    return float(seconds) if seconds > 0 else _MIN_TIMEOUT * (1 + random.random())


def _initial_events(request: Request) -> bool | None:
    match = request.query.get("resourceVersionMatch", "")
    asked = "sendInitialEvents" in request.query
    if not asked and not match:
        return None
    causes = []
    if not asked:
        why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        causes.append(fields.forbidden("resourceVersionMatch", why))
    elif match != "NotOlderThan":
        causes.append(
            fields.forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )
        )
        if match:
            known = ("NotOlderThan",)
            causes.append(fields.not_supported("resourceVersionMatch", match, known))
    elif request.flag("sendInitialEvents") and not request.flag("allowWatchBookmarks"):
        causes.append(
            fields.forbidden(
                "allowWatchBookmarks",
                "sendInitialEvents requires setting allowWatchBookmarks to true",
            )
        )
    if causes:
        raise errors.Invalid.of("meta.k8s.io", "ListOptions", "", causes)
    return request.flag("sendInitialEvents")
