"""What the server serves, told to clients: discovery and the version.

Two forms exist.  The plain one is a tree of small documents (`/api`, `/apis`,
one list of resources per group version); the aggregated one puts everything
into one answer per root and is what kubectl asks for first, by parameters of
the Accept header.  `negotiate` picks the form, the other functions return a
content type and the bytes, or None for a group or version that is not served.

All of it follows from `holdfast.api.kinds`: a kind added there appears here,
with its subresources.  The answers are built at first use and then kept.
"""

from __future__ import annotations

import enum
import functools
import platform as host
from typing import Any, Final

import msgspec

from holdfast.api import errors, kinds
from holdfast.api.kinds import Kind

Answer = tuple[str, bytes]
"""A content type and a body."""

GIT_VERSION: Final = "v1.32.13+holdfast"
_JSON: Final = "application/json"
_AGGREGATED_GROUP: Final = "apidiscovery.k8s.io"
_AGGREGATED_KIND: Final = "APIGroupDiscoveryList"

# The verbs of a subresource and the kind it takes: None stands for the parent's own, a name for
# one of the parent's group.
_SUBRESOURCES: Final[dict[str, tuple[tuple[str, ...], str | Kind | None]]] = {
    "attach": (("create", "get"), "PodAttachOptions"),
    "binding": (("create",), "Binding"),
    "eviction": (("create",), kinds.EVICTION),
    "exec": (("create", "get"), "PodExecOptions"),
    "finalize": (("update",), None),
    "log": (("get",), None),
    "portforward": (("create", "get"), "PodPortForwardOptions"),
    "scale": (("get", "patch", "update"), kinds.SCALE),
    "status": (("get", "patch", "update"), None),
}


class Form(enum.Enum):
    """How `/api` and `/apis` answer; the value is the version of the aggregated form."""

    PLAIN = ""
    V2 = "v2"
    V2BETA1 = "v2beta1"

    @property
    def content_type(self) -> str:
        """What the Content-Type header of the answer says."""
        if self is Form.PLAIN:
            return _JSON
        return f"{_JSON};g={_AGGREGATED_GROUP};v={self.value};as={_AGGREGATED_KIND}"


def negotiate(accept: str) -> Form:
    """Pick the form an Accept header prefers; raises NotAcceptable when it takes no JSON."""
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()]
    for _, media, parameters in sorted(ranges, key=lambda found: -found[0]):
        form = _form(media, parameters)
        if form is not None:
            return form
    if ranges:
        raise errors.NotAcceptable.of((_JSON,))
    return Form.PLAIN


def _media_range(text: str) -> tuple[float, str, dict[str, str]]:
    """Split `type/subtype;a=b;q=0.5` into quality, type and the other parameters."""
    media, *rest = (part.strip() for part in text.split(";"))
    parameters = dict(part.partition("=")[::2] for part in rest if part)
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 0.0
    return quality, media.lower(), parameters


def _form(media: str, parameters: dict[str, str]) -> Form | None:
    if media not in (_JSON, "application/*", "*/*"):
        return None
    wanted = parameters.get("as")
    if wanted is None:
        return Form.PLAIN
    if wanted != _AGGREGATED_KIND or parameters.get("g") != _AGGREGATED_GROUP:
        return None
    version = parameters.get("v")
    return next((form for form in (Form.V2, Form.V2BETA1) if form.value == version), None)


@functools.cache
def api(form: Form) -> Answer:
    """Answer `/api`: the versions of the core group."""
    if form is not Form.PLAIN:
        return _aggregated(form, ("",))
    versions = {
        "kind": "APIVersions",
        "versions": list(_versions("")),
        # Clients inside and outside a cluster reach this server at the same address.
        "serverAddressByClientCIDRs": [],
    }
    return _encode(versions)


@functools.cache
def apis(form: Form) -> Answer:
    """Answer `/apis`: all groups but the core one."""
    if form is not Form.PLAIN:
        return _aggregated(form, _named_groups())
    return group_list()


@functools.cache
def group_list() -> Answer:
    """Return the plain APIGroupList."""
    groups = [_group(name) for name in _named_groups()]
    return _encode({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})


@functools.cache
def group(name: str) -> Answer | None:
    """Answer `/apis/<name>`; None when there is no such group."""
    if name not in _named_groups():
        return None
    return _encode({"kind": "APIGroup", "apiVersion": "v1", **_group(name)})


@functools.cache
def resources(group: str, version: str) -> Answer | None:
    """Answer `/api/v1` (group "") and `/apis/<group>/<version>`; None when not served."""
    found = _kinds(group, version)
    if not found:
        return None
    listed = {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": found[0].api_version,
        "resources": [entry for kind in found for entry in _resource_entries(kind)],
    }
    return _encode(listed)


@functools.cache
def version() -> Answer:
    """Answer `/version`; clients derive what the server can do from major and minor."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(host.machine(), host.machine())
    payload = {
        "major": "1",
        "minor": "32",
        "gitVersion": GIT_VERSION,
        # The build is not made from one commit of Kubernetes, and no Go is involved; the
        # fields exist because clients expect the keys.
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"none ({host.python_implementation()} {host.python_version()})",
        "compiler": host.python_implementation().lower(),
        "platform": f"{host.system().lower()}/{machine}",
    }
    return _encode(payload)


def _encode(value: object) -> Answer:
    return _JSON, msgspec.json.encode(value)


def _named_groups() -> tuple[str, ...]:
    """Return the groups other than core, in the order of their first kind."""
    return tuple(dict.fromkeys(kind.group for kind in kinds.SERVED if kind.group))


def _versions(group: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(kind.version for kind in kinds.SERVED if kind.group == group))


def _kinds(group: str, version: str) -> list[Kind]:
    found = (kind for kind in kinds.SERVED if (kind.group, kind.version) == (group, version))
    return sorted(found, key=lambda kind: kind.plural)


def _group(name: str) -> dict[str, Any]:
    versions = [{"groupVersion": f"{name}/{ver}", "version": ver} for ver in _versions(name)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _resource_entries(kind: Kind) -> list[dict[str, Any]]:
    """Return the plain entries of a kind: its own, then those of its subresources."""
    entry: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.name,
        "verbs": list(kind.verbs),
        **_aliases(kind),
    }
    entries = [entry]
    for name in kind.subresources:
        verbs, taken = _SUBRESOURCES[name]
        below = {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": taken or kind.name,
            "verbs": list(verbs),
        }
        if isinstance(taken, Kind):
            below |= {"group": taken.group, "version": taken.version, "kind": taken.name}
        entries.append(below)
    return entries


def _aliases(kind: Kind) -> dict[str, list[str]]:
    """Return the members that are left out when empty."""
    aliases = {"shortNames": list(kind.short_names), "categories": list(kind.categories)}
    return {name: found for name, found in aliases.items() if found}


def _aggregated(form: Form, groups: tuple[str, ...]) -> Answer:
    items = [_aggregated_group(name) for name in groups]
    found = {
        "kind": _AGGREGATED_KIND,
        "apiVersion": f"{_AGGREGATED_GROUP}/{form.value}",
        "metadata": {},
        "items": items,
    }
    return form.content_type, msgspec.json.encode(found)


def _aggregated_group(name: str) -> dict[str, Any]:
    versions = [
        {
            "version": ver,
            "resources": [_aggregated_resource(kind) for kind in _kinds(name, ver)],
            "freshness": "Current",
        }
        for ver in _versions(name)
    ]
    metadata = {"name": name} if name else {}
    return {"metadata": metadata, "versions": versions}


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": _kind_reference(kind, kind.name),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
        **_aliases(kind),
    }
    below = []
    for name in kind.subresources:
        verbs, taken = _SUBRESOURCES[name]
        if isinstance(taken, Kind):
            reference = _kind_reference(taken, taken.name)
        else:
            reference = _kind_reference(kind, taken or kind.name)
        below.append({"subresource": name, "responseKind": reference, "verbs": list(verbs)})
    if below:
        entry["subresources"] = below
    return entry


def _kind_reference(kind: Kind, name: str) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": name}
