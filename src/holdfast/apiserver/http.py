"""The HTTP face: from an ASGI request to `resources` and back.

Kubernetes' paths are regular, so dispatch is a parse and two small tables, one by method for
resources and one by path for everything else. Handlers raise `StatusError`; `Api` turns it into
the wire's Status in one place. An unexpected exception is logged once and answered with 500.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from holdfast.api import errors, fields, kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver import (
    applying,
    auth,
    binding,
    bodies,
    deletion,
    eviction,
    forms,
    listing,
    noderestriction,
    ownership,
    pages,
    podserving,
    podstreams,
    requests,
    reviews,
    scaling,
    watching,
)
from holdfast.apiserver.answers import Answer, send_answer, send_stream
from holdfast.apiserver.authorization import Authorizer
from holdfast.apiserver.metrics import Metrics
from holdfast.apiserver.options import DeleteOptions, WriteOptions, refused_dry_run
from holdfast.apiserver.requests import Receive, Request, Scope, Send, Target
from holdfast.apiserver.resources import Resources
from holdfast.apiserver.selection import Selection
from holdfast.store.records import Record

log = logging.getLogger("holdfast.apiserver")
_encode = msgspec.json.encode
_VALIDATION: tuple[str, ...] = ("Ignore", "Warn", "Strict")
_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}
_WRITABLE = ("status", "finalize", "scale")
# What a replacement creates when it is not there, as in Kubernetes.
_MADE_BY_PUT = (kinds.ENDPOINTS, kinds.EVENT, kinds.LEASE)

Object = dict[str, Any]
Outcome = Answer | watching.WatchStream | podserving.Upgrade | AsyncIterator[bytes]


class Api:
    """The ASGI application."""

    def __init__(
        self,
        resources: Resources,
        authenticator: auth.Authenticator,
        metrics: Metrics,
        runners: podstreams.Runners | None = None,
    ) -> None:
        self._resources = resources
        self._authenticator = authenticator
        self._metrics = metrics
        self._pages = pages.Pages(resources.store, metrics)
        self._streams: set[watching.WatchStream] = set()
        self._closing = False
        self._authorizer = Authorizer(resources.store)
        self._reviews = reviews.Reviews(authenticator, self._authorizer)
        # An empty mapping is one to which nodes come later.
        self._pods = podserving.PodServing(
            resources, authenticator, self._authorizer, {} if runners is None else runners
        )
        self._verbs: dict[str, Callable[[Request, Target], Awaitable[Outcome]]] = {
            "GET": self._get,
            "POST": self._post,
            "PUT": self._put,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await self._pods.converse(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        started = time.perf_counter()
        try:
            target, outcome = await self._dispatch(request)
        except ConnectionResetError:
            return
        if isinstance(outcome, watching.WatchStream):
            self._count("WATCH", target, 200, started)
            await self._stream(outcome, receive, send)
            return
        if isinstance(outcome, podserving.Upgrade):
            self._count("CONNECT", target, 101, started)
            await self._pods.run(outcome)
            return
        if not isinstance(outcome, Answer):
            self._count("GET", target, 200, started)
            await self._pods.send(outcome, receive, send)
            return
        self._count(request.method, target, outcome.code, started)
        await send_answer(send, outcome)

    def close(self) -> None:
        """End what is open, and at once what is asked for later, so that the server can stop."""
        self._closing = True
        self._pods.close()
        for stream in list(self._streams):
            stream.close()

    def _count(self, verb: str, target: Target | None, code: int, started: float) -> None:
        resource = target.kind.resource if target else ""
        self._metrics.answered(verb, resource, code, time.perf_counter() - started)

    async def _stream(self, stream: watching.WatchStream, receive: Receive, send: Send) -> None:
        self._streams.add(stream)
        if self._closing:
            stream.close()
        try:
            await send_stream(send, receive, stream.chunks(), stream.close)
        finally:
            self._streams.discard(stream)

    async def _dispatch(self, request: Request) -> tuple[Target | None, Outcome]:
        target: Target | None = None
        try:
            request.user = self._authenticator.user(request.header(b"authorization"))
            self._authorizer.check(request.user, request)
            target = requests.target_of(request.path)
            if target is None:
                return None, self._pages.answer(request)
            verb = self._verbs.get(request.method)
            if verb is None:
                raise errors.MethodNotAllowed()
            if target.kind in kinds.REVIEWS:
                verb = self._review
            return target, await verb(request, target)
        except errors.StatusError as error:
            return target, Answer(_encode(error.status()), error.code, warnings=request.warnings)
        except ConnectionResetError:
            raise
        except Exception as error:
            log.exception("request failed", extra={"method": request.method, "path": request.path})
            status = errors.InternalError.of(f"{type(error).__name__}: see the server's log")
            return target, Answer(_encode(status.status()), 500)

    # The verbs

    async def _get(self, request: Request, target: Target) -> Outcome:
        kind, namespace, name, subresource = target
        if subresource == "log" and kind is kinds.POD:
            return self._pods.log(target, request)
        if subresource in podserving.UPGRADED and kind is kinds.POD:
            return await self._pods.upgrade(target, request)
        form = forms.negotiate(request.header(b"accept"), request.query.get("includeObject", ""))
        query = request.query
        if name is not None:
            _check_subresource(target, ("status", "scale"))
            if query.get("resourceVersion"):
                listing.check_reached(self._resources.store, query["resourceVersion"])
            record = self._resources.get(kind, name, namespace)
            if subresource == "scale":
                return Answer(_encode(scaling.scale_of(record.obj)))
            return Answer(form.one(kind, record), content_type=form.content_type)
        selection = Selection(
            kind, namespace, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        store = self._resources.store
        watching.timeout_of(query)
        if request.flag("watch"):
            if form is forms.YAML:
                raise errors.NotAcceptable.of((forms.JSON.content_type.decode(),))
            return watching.WatchStream(store, kind, selection, form, request)
        records, meta = listing.page(store, kind, selection, query, table=form.table)
        return Answer(form.many(kind, records, meta), content_type=form.content_type)

    async def _post(self, request: Request, target: Target) -> Outcome:
        kind, namespace, name, subresource = target
        if subresource in podserving.UPGRADED and kind is kinds.POD:
            return await self._pods.upgrade(target, request)
        options = _write_options(request)
        content_type = request.header(b"content-type")
        content = await request.body()
        if subresource == "binding" and kind is kinds.POD and name is not None:
            body = bodies.parse_object(content, content_type, kind, options, "Binding")
            await binding.bind(self._resources, name, namespace, body, options)
            return Answer(_encode(_success()), 201)
        if subresource == "eviction" and kind is kinds.POD and name is not None:
            body = bodies.parse_object(content, content_type, kind, options, "Eviction")
            pod = self._resources.get(kind, name, namespace).obj
            noderestriction.check_delete(request.user, kind, pod, evict=True)
            await eviction.evict(self._resources, name, namespace, body, options)
            return Answer(_encode(_success()), 201)
        if name is not None:
            _check_subresource(target, ())
            raise errors.MethodNotAllowed()
        body = bodies.parse_object(content, content_type, kind, options)
        if kind.namespaced and namespace is None:
            raise errors.BadRequest("the path names no namespace to create the object in")
        form = forms.negotiate(request.header(b"accept"))
        record = await self._resources.create(kind, body, namespace, options)
        return Answer(form.one(kind, record), 201, form.content_type, options.warnings)

    async def _review(self, request: Request, target: Target) -> Answer:
        if request.method != "POST":
            raise errors.MethodNotAllowed()
        if target.name is not None or (target.kind.namespaced and target.namespace is None):
            raise errors.NotFound.resource()
        options = _write_options(request)
        form = forms.negotiate(request.header(b"accept"))
        content_type = request.header(b"content-type")
        body = bodies.parse_object(await request.body(), content_type, target.kind, options)
        review = self._reviews.answer(target.kind, body, target.namespace, request.user, options)
        record = Record("", "", 0, 0, _encode(review), review)
        return Answer(form.one(target.kind, record), 201, form.content_type, options.warnings)

    async def _put(self, request: Request, target: Target) -> Answer:
        kind, namespace, name, subresource = target
        _check_subresource(target, _WRITABLE)
        if name is None:
            raise errors.MethodNotAllowed()
        options = _write_options(request)
        content = await request.body()
        content_type = request.header(b"content-type")
        if subresource == "scale":
            scale = bodies.parse_object(content, content_type, kind, options, "Scale")
            return await self._scale(target, lambda old: scale, options)
        body = bodies.parse_object(content, content_type, kind, options)
        bodies.check_named(body, name)
        form = forms.negotiate(request.header(b"accept"))
        code = 200
        try:
            record = await self._resources.update(
                kind, name, namespace, lambda old: body, options, subresource
            )
        except errors.NotFound:
            if kind not in _MADE_BY_PUT or subresource is not None:
                raise
            record, code = await self._make_by_put(request, target, body, options), 201
        return Answer(form.one(kind, record), code, form.content_type, options.warnings)

    async def _make_by_put(
        self, request: Request, target: Target, body: Object, options: WriteOptions
    ) -> Record:
        """Create what was to be replaced; raises as a create does, `Conflict` for a given uid."""
        kind, name = target.kind, target.name
        self._authorizer.check_create(request.user, request)
        meta = dict(body.get("metadata") or {})
        meta.pop("resourceVersion", None)
        if meta.setdefault("name", name) != name:
            raise errors.BadRequest(
                f"the name of the object ({meta['name']}) does not match "
                f"the name on the URL ({name})"
            )
        if meta.get("uid"):
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
            raise errors.Conflict.of(kind.group, kind.plural, meta["name"], why)
        made = {**body, "metadata": meta}
        return await self._resources.create(kind, made, target.namespace, options)

    async def _patch(self, request: Request, target: Target) -> Answer:
        kind, namespace, name, subresource = target
        _check_subresource(target, _WRITABLE)
        if name is None:
            raise errors.MethodNotAllowed()
        content_type = request.header(b"content-type")
        bodies.check_patch_type(content_type)
        options = _write_options(request)
        content = await request.body()
        if subresource == "scale":
            options.patches = True
            change = bodies.parse_patch(content, content_type, kinds.SCALE, options)
            return await self._scale(target, change, options)
        form = forms.negotiate(request.header(b"accept"))
        if bodies.media_type(content_type) == bodies.APPLY_PATCH:
            config = bodies.parse_config(content, options)
            record, made = await applying.apply(
                self._resources, kind, name, namespace, config, options, subresource
            )
            code = 201 if made else 200
            return Answer(form.one(kind, record), code, form.content_type, options.warnings)
        options.patches = True
        change = bodies.parse_patch(content, content_type, kind, options)
        record = await self._resources.update(kind, name, namespace, change, options, subresource)
        return Answer(form.one(kind, record), 200, form.content_type, options.warnings)

    async def _scale(self, target: Target, change: scaling.Change, options: WriteOptions) -> Answer:
        assert target.name is not None
        record = await self._resources.update(
            target.kind, target.name, target.namespace, scaling.applied(change), options
        )
        return Answer(_encode(scaling.scale_of(record.obj)), warnings=options.warnings)

    async def _delete(self, request: Request, target: Target) -> Answer:
        kind, namespace, name, _ = target
        _check_subresource(target, ())
        content = await request.body()
        parsed = bodies.parse(content, request.header(b"content-type")) if content else {}
        options = DeleteOptions.of(parsed, request.query)
        form = forms.negotiate(request.header(b"accept"))
        if name is None:
            return await self._delete_collection(request, target, options)
        if request.user.node is not None:
            pod = self._resources.get(kind, name, namespace).obj
            noderestriction.check_delete(request.user, kind, pod)
        record, gone = await self._resources.delete(kind, name, namespace, options)
        if gone and kind not in deletion.ANSWERS_WITH_OBJECT:
            return Answer(_encode(_success(target, record)))
        return Answer(form.one(kind, record), content_type=form.content_type)

    async def _delete_collection(
        self, request: Request, target: Target, options: DeleteOptions
    ) -> Answer:
        kind, namespace = target.kind, target.namespace
        if "deletecollection" not in kind.verbs or (kind.namespaced and namespace is None):
            raise errors.MethodNotAllowed()
        query = request.query
        selection = Selection(
            kind, namespace, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        records, meta = listing.page(self._resources.store, kind, selection, query)
        # All at once, so that they share the wait for the disk.
        outcomes = await asyncio.gather(
            *(self._delete_listed(kind, record, options) for record in records)
        )
        deleted = [record for record in outcomes if record is not None]
        return Answer(forms.JSON.many(kind, deleted, meta))

    async def _delete_listed(
        self, kind: Kind, record: Record, options: DeleteOptions
    ) -> Record | None:
        meta = record.obj["metadata"]
        try:
            last, _ = await self._resources.delete(
                kind, meta["name"], meta.get("namespace"), options
            )
        except errors.NotFound:
            return None
        return last


def _check_subresource(target: Target, allowed: tuple[str, ...]) -> None:
    """Refuse a subresource that the kind does not have, or that does not know the verb."""
    if target.subresource is None or target.subresource in allowed:
        if target.subresource in (None, *target.kind.subresources):
            return
    elif target.subresource in target.kind.subresources:
        raise errors.MethodNotAllowed()
    raise errors.NotFound.resource()


def _write_options(request: Request) -> WriteOptions:
    query = request.query
    dry_run = query.get("dryRun", "")
    level = query.get("fieldValidation") or "Warn"
    manager = query.get("fieldManager", "")
    causes = _patch_causes(request, manager) if request.method == "PATCH" else []
    causes += ownership.check_manager(manager)
    if dry_run not in ("", "All"):
        causes.append(refused_dry_run([dry_run]))
    if level not in _VALIDATION:
        known = ("", "Ignore", "Strict", "Warn")
        causes.append(fields.not_supported("fieldValidation", level, known))
    if causes:
        raise errors.Invalid.of("meta.k8s.io", _OPTIONS[request.method], "", causes)
    return WriteOptions(
        dry_run=bool(dry_run),
        validation=level,  # type: ignore[arg-type]
        manager=manager or ownership.agent(request.header(b"user-agent")),
        force=request.flag("force"),
        user=request.user,
        warnings=request.warnings,
    )


def _patch_causes(request: Request, manager: str) -> list[fields.Cause]:
    """Only server-side apply can be forced, and only it has to say who applies."""
    applies = bodies.media_type(request.header(b"content-type")) == bodies.APPLY_PATCH
    if applies and not manager:
        return [fields.required("fieldManager", "is required for apply patch")]
    if not applies and "force" in request.query:
        return [fields.forbidden("force", "may not be specified for non-apply patch")]
    return []


def _success(target: Target | None = None, record: Record | None = None) -> dict[str, object]:
    status: dict[str, object] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
    }
    if target is not None and record is not None:
        details = {"name": target.name, "kind": target.kind.plural}
        if target.kind.group:
            details["group"] = target.kind.group
        status["details"] = {**details, "uid": record.obj["metadata"]["uid"]}
    else:
        status["code"] = 201
    return status
