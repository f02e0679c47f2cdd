"""Server-side apply: PATCH with `application/apply-patch+yaml`.

The configuration is checked, merged and argued about in `api.managed`; here it meets the store:
the newest object, or none, in which case it is created. The result then goes through the same
rules as any other write.
"""

from __future__ import annotations

from typing import Any, NoReturn

from holdfast.api import errors
from holdfast.api.kinds import Kind
from holdfast.api.managed import applying, checking, conflicts, lastapplied, sets, updating
from holdfast.api.managed.applying import Application, Outcome
from holdfast.api.managed.entries import Entry
from holdfast.api.managed.types import Type
from holdfast.apiserver import ownership
from holdfast.apiserver.options import WriteOptions
from holdfast.apiserver.resources import Resources, key_of
from holdfast.store.records import Record

Object = dict[str, Any]
# The owner of what an object had before anybody applied to it, if owners were not recorded.
_BEFORE = "before-first-apply"


async def apply(
    resources: Resources,
    kind: Kind,
    name: str,
    namespace: str | None,
    config: Object,
    options: WriteOptions,
    subresource: str | None = None,
) -> tuple[Record, bool]:
    """Apply a configuration; returns the record and whether it is new.

    Raises `Conflict` when other owners' fields would change and `options.force` is not set.
    """
    _check_head(kind, config)
    if resources.store.latest(kind.bucket, key_of(kind, name, namespace)) is None:
        if subresource is not None:
            raise errors.NotFound.of(kind.group, kind.plural, name)
        return await _create(resources, kind, name, namespace, config, options), True

    def change(old: Object) -> Object:
        return _applied(kind, old, config, options, subresource)

    record = await resources.update(
        kind, name, namespace, change, options, subresource, follow=False
    )
    return record, False


async def _create(
    resources: Resources,
    kind: Kind,
    name: str,
    namespace: str | None,
    config: Object,
    options: WriteOptions,
) -> Record:
    type = ownership.type_of(kind)
    outcome = _settled(kind, type.blank, [], config, options, None)
    meta = config["metadata"] if isinstance(config.get("metadata"), dict) else {}
    if meta.get("uid"):
        raise errors.Conflict.of(
            kind.group,
            kind.plural,
            name,
            f"uid mismatch: the provided object specified uid {meta['uid']}, "
            "and no existing object was found",
        )
    if not meta.get("name"):
        raise errors.BadRequest(
            f"the name of the object ({name} based on URL) was undeterminable: "
            "name must be provided"
        )
    if meta["name"] != name:
        raise errors.BadRequest(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )
    body = outcome.obj if outcome.obj is not None else type.blank
    return await resources.create(kind, body, namespace, options, managed=outcome.managed)


def _applied(
    kind: Kind, old: Object, config: Object, options: WriteOptions, subresource: str | None
) -> Object:
    """The object with the configuration applied and its owners settled."""
    managed: list[Entry] = old["metadata"].get("managedFields") or []
    meta = {key: value for key, value in old["metadata"].items() if key != "managedFields"}
    live = {**old, "metadata": meta}
    if not managed:
        who = ownership.writer(kind, options, "Update", subresource)._replace(manager=_BEFORE)
        managed = updating.created(
            live,
            ownership.type_of(kind),
            who,
            ownership.now(),
            ownership.reset(kind, subresource),
        )
    outcome = _settled(kind, live, managed, config, options, subresource)
    applied = outcome.obj if outcome.obj is not None else live
    if options.manager == lastapplied.MANAGER:
        applied = lastapplied.kept_up(applied, config)
    return {**applied, "metadata": {**applied["metadata"], "managedFields": outcome.managed}}


def _settled(
    kind: Kind,
    live: Object,
    managed: list[Entry],
    config: Object,
    options: WriteOptions,
    subresource: str | None,
) -> Outcome:
    """What the apply makes of the object; a refusal becomes the answer's Status."""
    type = ownership.type_of(kind)
    asked = Application(
        config,
        ownership.writer(kind, options, "Apply", subresource),
        ownership.now(),
        options.force,
        ownership.reset(kind, subresource),
    )
    try:
        try:
            return applying.apply(live, managed, type, asked)
        except conflicts.ApplyConflict as refusal:
            if options.manager != lastapplied.MANAGER:
                raise
            _check_migration(refusal, live, type)
            return applying.apply(live, managed, type, asked._replace(force=True))
    except conflicts.ApplyConflict as refusal:
        causes = [cause.as_dict() for cause in refusal.causes()]
        raise errors.Conflict(str(refusal), details={"causes": causes}) from refusal
    except checking.TypedError as error:
        _refuse(kind, config, error)


def _check_migration(refusal: conflicts.ApplyConflict, live: Object, type: Type) -> None:
    """Raise the refusal again unless all of it is about what kubectl applied from the client."""
    allowed = lastapplied.unchanged(live, type)
    if not allowed:
        raise refusal
    members = set(sets.paths(allowed))
    left = [found for found in refusal.conflicts if found.path not in members]
    if left:
        raise conflicts.ApplyConflict(left)


def _refuse(kind: Kind, config: Object, error: checking.TypedError) -> NoReturn:
    meta = config["metadata"] if isinstance(config.get("metadata"), dict) else {}
    subject = f"{meta.get('namespace') or ''}/{meta.get('name') or ''}; {_printed(kind)}"
    raise errors.InternalError.unknown(
        f"failed to create typed patch object ({subject}): {error}"
    ) from error


def _check_head(kind: Kind, config: Object) -> None:
    """The configuration has to say what it is, and may not speak of owners."""
    version, name = config.get("apiVersion") or "", config.get("kind") or ""
    if (version, name) != (kind.api_version, kind.name):
        group, _, rest = str(version).rpartition("/")
        raise errors.BadRequest(f"invalid object type: {group}/{rest}, Kind={name}")
    meta = config.get("metadata")
    if isinstance(meta, dict) and meta.get("managedFields") is not None:
        raise errors.BadRequest("metadata.managedFields must be nil")


def _printed(kind: Kind) -> str:
    return f"{kind.group}/{kind.version}, Kind={kind.name}"
