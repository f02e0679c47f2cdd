"""The verbs on stored objects, with every rule of a write applied in one place.

HTTP and the in-process client both end here, so there is one way an object can change. A write
runs, in one step of the event loop: read the newest record, build the new object, decode it to
canonical form, let strategy and admission fill it in, validate, stage it in the store. Then it
waits for the disk. Because nothing awaits between reading and staging, no two writers can
overwrite each other and no retry is needed.

The invariant: an object that is stored has passed its kind's shape and rules, and its
`metadata.resourceVersion` is the revision it was stored at.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from holdfast.api import errors, fields, shapes, validation
from holdfast.api.kinds import Kind
from holdfast.api.managed.entries import Entry
from holdfast.apiserver import (
    deletion,
    listing,
    noderestriction,
    ownership,
    strategies,
    tolerations,
)
from holdfast.apiserver.admission import Admission
from holdfast.apiserver.options import DeleteOptions, WriteOptions
from holdfast.kit import clock
from holdfast.store import errors as store_errors
from holdfast.store.log import Store
from holdfast.store.records import Record

Object = dict[str, Any]
_encode = msgspec.json.encode
# The alphabet of Kubernetes' generated names: no vowels, nothing that looks like another.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
# Set by the server when an object is made; a writer cannot change them later.
_FIXED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)
_META_ORDER = ("name", "generateName", "namespace", "uid", "resourceVersion", "creationTimestamp")


def key_of(kind: Kind, name: str, namespace: str | None) -> str:
    """The object's key within its kind's bucket."""
    return f"{namespace}/{name}" if kind.namespaced else name


class Resources:
    """See the module's text; `toleration_seconds` is what pods get for a node that was lost."""

    def __init__(
        self, store: Store, *, toleration_seconds: int = tolerations.DEFAULT_SECONDS
    ) -> None:
        self.store = store
        self._admission = Admission(store, toleration_seconds)
        self._owners = ownership.Owners()

    # Reading

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Record:
        """The committed record; raises `NotFound`."""
        record = self.store.get(kind.bucket, key_of(kind, name, namespace))
        if record is None:
            raise errors.NotFound.of(kind.group, kind.plural, name)
        return record

    def latest(self, kind: Kind, name: str, namespace: str | None) -> Record:
        """The record a write has to build on; raises `NotFound`."""
        record = self.store.latest(kind.bucket, key_of(kind, name, namespace))
        if record is None:
            raise errors.NotFound.of(kind.group, kind.plural, name)
        return record

    # Creating

    async def create(
        self,
        kind: Kind,
        body: Object,
        namespace: str | None,
        options: WriteOptions,
        *,
        managed: list[Entry] | None = None,
    ) -> Record:
        """Store a new object; raises `AlreadyExists`, `Invalid`, `Forbidden`, `BadRequest`.

        `managed` says who owns its fields when that is settled already.
        """
        return await self._settle(self._stage_create(kind, body, namespace, options, managed))

    def _stage_create(
        self,
        kind: Kind,
        body: Object,
        namespace: str | None,
        options: WriteOptions,
        managed: list[Entry] | None,
    ) -> Record | asyncio.Future[Record]:
        obj = self._decode(kind, body, options)
        meta = obj["metadata"]
        given = meta.pop("managedFields", None)
        # A rehearsal does not get as far as the storage that says so.
        if meta.pop("resourceVersion", "") and not options.dry_run:
            raise errors.InternalError.unknown(
                "resourceVersion should not be set on objects to be created"
            )
        self._place(kind, meta, namespace)
        for field in _FIXED:
            meta.pop(field, None)
        meta["uid"] = _new_uid()
        meta["creationTimestamp"] = clock.rfc3339(clock.now())
        generated = "name" not in meta and bool(meta.get("generateName"))
        if generated:
            meta["name"] = self._generate_name(kind, meta)
        strategies.received(kind, obj)
        obj = kind.shape.default(obj)
        owners = self._owners.created(kind, obj, given, options) if managed is None else managed
        strategies.created(kind, obj)
        self._admission.admit_create(kind, obj)
        noderestriction.check_create(options.user, kind, obj)
        if owners:
            meta["managedFields"] = owners
        rules = validation.of(kind)
        causes = rules.create(obj)
        if causes:
            raise errors.Invalid.of(kind.group, kind.name, meta.get("name", ""), causes)
        options.warnings += rules.warnings(obj, None)
        self._admission.check_quotas(kind, obj)
        key = key_of(kind, meta["name"], namespace)
        existing = self.store.latest(kind.bucket, key)
        if existing is not None:
            raise errors.AlreadyExists.of(
                kind.group,
                kind.plural,
                meta["name"],
                terminating="deletionTimestamp" in existing.obj["metadata"],
            )
        return self._stage(kind, key, obj, options.dry_run)

    def _place(self, kind: Kind, meta: Object, namespace: str | None) -> None:
        given = meta.pop("namespace", None)
        if not kind.namespaced:
            return
        if given and given != namespace:
            raise errors.BadRequest(
                "the namespace of the provided object does not match "
                "the namespace sent on the request"
            )
        meta["namespace"] = namespace

    def _generate_name(self, kind: Kind, meta: Object) -> str:
        # Kubernetes cuts the prefix so that the name stays a label value.
        prefix = meta["generateName"][:58]
        while True:
            name: str = prefix + "".join(random.choices(_ALPHABET, k=5))
            if self.store.latest(kind.bucket, key_of(kind, name, meta.get("namespace"))) is None:
                return name

    # Changing

    async def update(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        change: Callable[[Object], Object],
        options: WriteOptions,
        subresource: str | None = None,
        *,
        follow: bool = True,
    ) -> Record:
        """Store what `change` makes of the newest object; PUT and every PATCH are one of these.

        `change` must not touch its argument. The writer comes to own what it changes, unless
        `follow` is off: then the result's managedFields are final. Raises `NotFound`, `Conflict`
        when the result carries another resourceVersion or uid than the newest object, `Invalid`.
        """
        return await self._settle(
            self._stage_update(kind, name, namespace, change, options, subresource, follow)
        )

    def _stage_update(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        change: Callable[[Object], Object],
        options: WriteOptions,
        subresource: str | None,
        follow: bool,
    ) -> Record | asyncio.Future[Record]:
        record = self.latest(kind, name, namespace)
        old = record.obj
        changed = change(old)
        if changed is old:
            return record
        changed, given = ownership.separated(changed, old)
        new = self._decode(kind, changed, options)
        self._check_identity(kind, new, old, name, namespace, options)
        new = self._combine(kind, new, old, subresource)
        if follow:
            ownership.adopt(new, old, given, subresource)
        else:
            ownership.settle(new, old, given)
        if new == old:
            if subresource is None:
                options.warnings += validation.of(kind).warnings(new, old)
            return record
        if follow:
            self._owners.follow(kind, new, old, options, subresource)
        elif ownership.differ_in_time_only(new, old):
            return record
        if subresource == "status":
            strategies.status_updated(kind, new, old)
        self._check_update(kind, new, old, subresource, options)
        if deletion.finished(kind, new):
            return self._stage_removal(kind, record, options.dry_run, new)
        return self._stage(kind, record.key, new, options.dry_run)

    def _check_identity(
        self,
        kind: Kind,
        new: Object,
        old: Object,
        name: str,
        namespace: str | None,
        options: WriteOptions,
    ) -> None:
        meta, current = new["metadata"], old["metadata"]
        if meta.setdefault("name", name) != name:
            raise errors.BadRequest(
                f"the name of the object ({meta['name']}) does not match "
                f"the name on the URL ({name})"
            )
        self._place(kind, meta, namespace)
        if not meta.get("resourceVersion") and not validation.of(kind).unconditional_update:
            cause = fields.invalid(
                "metadata.resourceVersion", fields.Go("0x0"), "must be specified for an update"
            )
            # The reference's storage knows the plural only.
            raise errors.Invalid.of(kind.group, kind.plural, name, [cause])
        # Without a resourceVersion the update is unconditional.
        revision = meta.setdefault("resourceVersion", current["resourceVersion"])
        if revision != current["resourceVersion"]:
            listing.revision_of(revision)
        uid = meta.get("uid")
        if uid and uid != current["uid"]:
            if options.patches:
                cause = fields.immutable("metadata.uid", uid)
                raise errors.Invalid.of(kind.group, kind.name, name, [cause])
            # The words of the reference's storage, its key included.
            place = "/".join(filter(None, (kind.plural, namespace, name)))
            why = (
                f"StorageError: invalid object, Code: 4, Key: /registry/{place}, "
                f"ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: "
                f"UID in precondition: {uid}, UID in object meta: {current['uid']}"
            )
            raise errors.Conflict.of(kind.group, kind.plural, name, why)
        if revision != current["resourceVersion"]:
            raise errors.Conflict.of(kind.group, kind.plural, name)
        self._check_not_deleting(kind, meta, current)
        for field in _FIXED:
            if field in current:
                meta[field] = current[field]
            else:
                meta.pop(field, None)

    def _check_not_deleting(self, kind: Kind, meta: Object, current: Object) -> None:
        """Raise `Invalid` for a write that pretends that the object is being deleted."""
        causes = []
        moment = meta.get("deletionTimestamp")
        if moment and "deletionTimestamp" not in current:
            shown = fields.Go(f"{moment[:10]} {moment[11:19]} +0000 UTC")
            causes.append(fields.immutable("metadata.deletionTimestamp", shown))
        grace = meta.get("deletionGracePeriodSeconds")
        if grace is not None and "deletionGracePeriodSeconds" not in current:
            causes.append(fields.immutable("metadata.deletionGracePeriodSeconds", grace))
        if causes:
            raise errors.Invalid.of(kind.group, kind.name, current["name"], causes)

    def _combine(self, kind: Kind, new: Object, old: Object, subresource: str | None) -> Object:
        """Keep from the old object what this endpoint may not write."""
        if subresource == "status":
            combined = {**old, "metadata": new["metadata"]}
            if "status" in new:
                combined["status"] = new["status"]
            else:
                combined.pop("status", None)
            return combined
        if subresource == "finalize":
            return {**old, "metadata": new["metadata"], "spec": new.get("spec", {})}
        if subresource == "binding":
            return new
        strategies.received(kind, new)
        strategies.updated(kind, new, old)
        new = kind.shape.default(new)
        self._admission.fill_in(kind, new, old)
        strategies.counted(kind, new, old)
        if "status" in kind.subresources:
            if "status" in old:
                new["status"] = old["status"]
            else:
                new.pop("status", None)
        return new

    def _check_update(
        self, kind: Kind, new: Object, old: Object, subresource: str | None, options: WriteOptions
    ) -> None:
        rules = validation.of(kind)
        if subresource == "status":
            causes = rules.status_update(new, old)
        elif subresource is None:
            causes = rules.update(new, old)
        else:
            causes = deletion.check_finalizers(new, old)
        if causes:
            raise errors.Invalid.of(kind.group, kind.name, new["metadata"]["name"], causes)
        noderestriction.check_update(options.user, kind, new, old, subresource)
        if subresource is None:
            self._admission.admit_update(kind, new, old)
            options.warnings += rules.warnings(new, old)
            if new.get("spec") != old.get("spec"):
                self._admission.check_quotas(kind, new, old)

    # Deleting

    async def delete(
        self, kind: Kind, name: str, namespace: str | None, options: DeleteOptions
    ) -> tuple[Record, bool]:
        """Delete, or mark for deletion; returns the last state and whether it is gone."""
        record = self.latest(kind, name, namespace)
        deletion.check_allowed(kind, record.obj, options)
        marked = deletion.mark(kind, record.obj, options)
        if deletion.finished(kind, marked):
            last = deletion.last_state(kind, record.obj, marked)
            staged = self._stage_removal(kind, record, options.dry_run, last)
            return await self._settle(staged), True
        if marked is record.obj:
            return record, False
        return await self._settle(self._stage(kind, record.key, marked, options.dry_run)), False

    # Shared steps

    def _decode(self, kind: Kind, body: Object, options: WriteOptions) -> Object:
        unknown: list[str] | None = None if options.validation == "Ignore" else []
        try:
            decoded = kind.shape.decode(body, unknown)
        except shapes.DecodeError as error:
            options.warnings += error.advice
            raise errors.BadRequest(f"{_unreadable(kind)}: {error}") from error
        if unknown or options.duplicates:
            _report_fields(kind, unknown or [], options)
        obj = {**decoded, "kind": kind.name, "apiVersion": kind.api_version}
        # Obsolete, and ignored in what a caller sends.
        meta = obj.setdefault("metadata", {})
        meta.pop("selfLink", None)
        if "ownerReferences" in meta:
            _merge_owners(meta, options)
        return obj

    def _stage(
        self, kind: Kind, key: str, obj: Object, dry_run: bool
    ) -> Record | asyncio.Future[Record]:
        if dry_run:
            # What would be created has no version yet, what would be changed keeps the one it has.
            return Record(kind.bucket, key, 0, 0, _encode(obj), obj)
        return self.store.put(kind.bucket, key, lambda revision: _stamp(obj, revision))

    def _stage_removal(
        self, kind: Kind, record: Record, dry_run: bool, last: Object
    ) -> Record | asyncio.Future[Record]:
        if dry_run:
            return record
        return self.store.delete(kind.bucket, record.key, lambda revision: _stamp(last, revision))

    async def _settle(self, staged: Record | asyncio.Future[Record]) -> Record:
        if isinstance(staged, Record):
            return staged
        try:
            return await staged
        except store_errors.StoreError as error:
            raise errors.InternalError.of(str(error)) from error


def _new_uid() -> str:
    # Unique, not secret: the operating system's generator would give up the interpreter's lock
    # on every call, for a thread of a backend to take.
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def _stamp(obj: Object, revision: int) -> tuple[bytes, Object]:
    """The object as it is stored at a revision, its bytes and itself."""
    meta = obj["metadata"]
    ordered = {key: meta[key] for key in _META_ORDER if key in meta}
    ordered["resourceVersion"] = str(revision)
    ordered.update((key, value) for key, value in meta.items() if key not in ordered)
    stamped = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": ordered}
    stamped.update((key, value) for key, value in obj.items() if key not in stamped)
    return _encode(stamped), stamped


def _merge_owners(meta: Object, options: WriteOptions) -> None:
    """Leave each owner once, and warn of those named again."""
    owners: list[Object] = []
    again = []
    for owner in meta["ownerReferences"]:
        if owner in owners:
            again.append(owner.get("uid", ""))
        else:
            owners.append(owner)
    if again:
        meta["ownerReferences"] = owners
        where = " after mutating admission happens" if options.patches else ""
        what = "mutating admission webhook / requests" if options.patches else "requests"
        options.warnings.append(
            f".metadata.ownerReferences contains duplicate entries{where}; API server dedups owner "
            "references in 1.20+, and may reject such requests as early as 1.24; please fix your "
            f"{what}; duplicate UID(s) observed: {', '.join(again)}"
        )


def _unreadable(kind: Kind) -> str:
    return f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}'


def _report_fields(kind: Kind, unknown: list[str], options: WriteOptions) -> None:
    texts = options.duplicates + [f'unknown field "{path}"' for path in unknown]
    if options.validation == "Strict":
        raise errors.BadRequest(f"{_unreadable(kind)}: strict decoding error: {', '.join(texts)}")
    options.warnings += texts
