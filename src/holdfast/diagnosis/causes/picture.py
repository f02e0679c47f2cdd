"""The objects a question is about, read once, and small questions about them.

Somebody who may not list a kind still gets an answer: such a kind counts as empty, and `unread`
says so, so that no conclusion is drawn from what could not be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from holdfast.api import errors, kinds, views
from holdfast.api.kinds import Kind
from holdfast.runtime.client import Client, Object

_SPREAD = (
    kinds.VOLUME,
    kinds.STORAGE_CLASS,
    kinds.CSI_DRIVER,
    kinds.CSI_NODE,
    kinds.VOLUME_ATTACHMENT,
    kinds.NODE,
    kinds.NAMESPACE,
)
_NEAR = (kinds.CLAIM, kinds.POD, kinds.RESOURCE_QUOTA, kinds.SNAPSHOT)


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `last` is RFC 3339 text, by which events are in order."""

    type: str
    reason: str
    message: str
    source: str
    last: str

    @property
    def warning(self) -> bool:
        """Whether it tells of a failure."""
        return self.type == "Warning"


@dataclass(frozen=True, slots=True)
class Picture:
    """What was read, by kind; `unread` has the error of each kind that could not be."""

    namespace: str
    objects: Mapping[Kind, tuple[Object, ...]]
    events: tuple[Object, ...]
    unread: Mapping[Kind, str] = field(default_factory=dict)

    def all(self, kind: Kind) -> tuple[Object, ...]:
        """Every object of a kind; of the question's namespace where the kind has one."""
        return self.objects.get(kind, ())

    def find(self, kind: Kind, name: str) -> Object | None:
        """One object."""
        return next((obj for obj in self.all(kind) if obj["metadata"]["name"] == name), None)

    def names(self, kind: Kind) -> list[str]:
        """The names of a kind, in order."""
        return sorted(obj["metadata"]["name"] for obj in self.all(kind))

    def told(self, obj: Object, *reasons: str) -> list[Event]:
        """The events about an object, oldest first; only of some reasons if they are given."""
        uid, name = obj["metadata"].get("uid", ""), obj["metadata"]["name"]
        found = [
            _event(each)
            for each in self.events
            if each["involvedObject"].get("name") == name
            and each["involvedObject"].get("uid", uid) in ("", uid)
            and (not reasons or each.get("reason") in reasons)
        ]
        return sorted(found, key=lambda event: event.last)

    def users(self, claim: str) -> list[views.Pod]:
        """The pods of the namespace that name a claim and have not ended, by name."""
        pods = [views.pod(obj) for obj in self.all(kinds.POD)]
        found = [
            pod
            for pod in pods
            if not pod.finished and claim in {name for _, name in views.claims_of(pod)}
        ]
        return sorted(found, key=lambda pod: pod.metadata.name)

    def storage_class(self, name: str) -> views.StorageClass | None:
        """A class, if there is one of the name."""
        obj = self.find(kinds.STORAGE_CLASS, name) if name else None
        return views.storage_class(obj) if obj is not None else None


async def take(client: Client, namespace: str) -> Picture:
    """Read what answers need. Raises what the API raises, apart from Forbidden and NotFound."""
    unread: dict[Kind, str] = {}

    async def read(kind: Kind, where: str | None) -> tuple[Object, ...]:
        try:
            return tuple((await client.list(kind, where)).items)
        except (errors.Forbidden, errors.NotFound) as error:
            # A kind that is not served, as snapshots may be, has no objects.
            if isinstance(error, errors.Forbidden):
                unread[kind] = str(error)
            return ()

    scopes: list[tuple[Kind, str | None]] = [(kind, None) for kind in _SPREAD]
    scopes += [(kind, namespace) for kind in _NEAR]
    found = await asyncio.gather(*(read(kind, where) for kind, where in scopes))
    # Events about objects without a namespace are in `default`.
    places = dict.fromkeys((namespace, "default"))
    told = await asyncio.gather(*(read(kinds.EVENT, where) for where in places))
    objects = {kind: objs for (kind, _), objs in zip(scopes, found, strict=True)}
    return Picture(namespace, objects, tuple(_flat(told)), unread)


def _flat(groups: Iterable[tuple[Object, ...]]) -> Iterable[Object]:
    return (obj for group in groups for obj in group)


def _event(obj: Object) -> Event:
    series = obj.get("series") or {}
    times = (series.get("lastObservedTime"), obj.get("lastTimestamp"), obj.get("eventTime"))
    source = obj.get("reportingComponent") or (obj.get("source") or {}).get("component") or ""
    return Event(
        str(obj.get("type", "")),
        str(obj.get("reason", "")),
        str(obj.get("message", "")),
        str(source),
        max(str(time) for time in times if time) if any(times) else "",
    )
