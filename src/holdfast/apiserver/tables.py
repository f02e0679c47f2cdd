"""Objects as rows of a table: what `kubectl get` shows, decided by the server.

Every kind has a tuple of columns; a column knows its name, its priority (1 is
shown with `-o wide` only) and how to print its cell. Rows always carry all cells,
in the order of the columns. Pods and nodes, whose status takes some reasoning, are
printed by `workload_cells`.

Invariant: printing never fails on an object that was decoded, however empty it is;
missing values print as Kubernetes prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from holdfast.api import kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver import controller_cells, snapshot_cells, storage_cells, workload_cells
from holdfast.apiserver.cells import AGE, Column, Object, column, label_text, name, since, wide

Include = Literal["None", "Metadata", "Object"]

_PARTIAL: Final = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}


def columns(kind: Kind) -> list[dict[str, Any]]:
    """Return the column definitions of a kind in their wire form."""
    return [dict(definition) for definition in _DEFINITIONS[kind]]


def cells(kind: Kind, obj: Object, now: datetime) -> list[Any]:
    """Return one row's cells; `now` is what ages are counted to."""
    return [each.cell(obj, now) for each in _COLUMNS[kind]]


def table(
    kind: Kind,
    objs: Iterable[Object],
    *,
    list_meta: Mapping[str, Any],
    include: Include,
    now: datetime,
    columns: bool = True,
) -> dict[str, Any]:
    """Return the Table for some objects.

    `include` chooses what accompanies each row. Without `columns` the definitions
    are null, as in all events of a watch but the first.
    """
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_meta),
        "columnDefinitions": [dict(each) for each in _DEFINITIONS[kind]] if columns else None,
        "rows": [{"cells": cells(kind, obj, now), "object": _shown(obj, include)} for obj in objs],
    }


def _shown(obj: Object, include: Include) -> Object | None:
    if include == "Object":
        return obj
    if include == "Metadata":
        return {**_PARTIAL, "metadata": obj.get("metadata", {})}
    return None


# Events


def _first_seen(event: Object, now: datetime) -> str:
    return since(event.get("firstTimestamp") or event.get("eventTime"), now)


def _last_seen(event: Object, now: datetime) -> str:
    series = event.get("series") or {}
    last = series.get("lastObservedTime") or event.get("lastTimestamp")
    return since(last, now) if last else _first_seen(event, now)


def _count(event: Object, now: datetime) -> int:
    count: int = (event.get("series") or event).get("count") or 1
    return count


def _about(event: Object, now: datetime) -> str:
    about = event.get("involvedObject", {})
    kind = str(about.get("kind", "")).lower()
    return f"{kind}/{about['name']}" if about.get("name") else kind


def _source(event: Object, now: datetime) -> str:
    source = event.get("source", {})
    component = source.get("component") or event.get("reportingComponent", "")
    host = source.get("host") or event.get("reportingInstance", "")
    return f"{component}, {host}" if host else component


# Services and their endpoints


def _external_ip(service: Object, now: datetime) -> str:
    spec = service.get("spec", {})
    given = list(spec.get("externalIPs") or ())
    kind = spec.get("type", "ClusterIP")
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind == "LoadBalancer":
        ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
        found = sorted({point.get("ip") or point.get("hostname", "") for point in ingress} - {""})
        return ",".join(found + given) or "<pending>"
    return ",".join(given) or "<none>"


def _service_ports(service: Object, now: datetime) -> str:
    shown = []
    for port in service.get("spec", {}).get("ports") or ():
        number = str(port.get("port", 0))
        if port.get("nodePort"):
            number += f":{port['nodePort']}"
        shown.append(f"{number}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or "<none>"


def _endpoints(endpoints: Object, now: datetime) -> str:
    found: list[str] = []
    for subset in endpoints.get("subsets") or ():
        hosts = [address.get("ip", "") for address in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            found += hosts
        for port in ports:
            found += [_joined(host, port.get("port", 0)) for host in hosts]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more if found else "<none>"


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _quota_requests(quota: Object, now: datetime) -> str:
    return _quota_text(quota, limits=False)


def _quota_limits(quota: Object, now: datetime) -> str:
    return _quota_text(quota, limits=True)


def _quota_text(quota: Object, *, limits: bool) -> str:
    status = quota.get("status") or {}
    used = status.get("used") or {}
    return ", ".join(
        f"{name}: {used.get(name, '0')}/{hard}"
        for name, hard in sorted((status.get("hard") or {}).items())
        if name.startswith("limits.") == limits
    )


def _data_count(obj: Object, now: datetime) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


_COLUMNS: Final[Mapping[Kind, tuple[Column, ...]]] = MappingProxyType(
    {
        kinds.VOLUME: storage_cells.VOLUME,
        kinds.CLAIM: storage_cells.CLAIM,
        kinds.STORAGE_CLASS: storage_cells.STORAGE_CLASS,
        kinds.VOLUME_ATTACHMENT: storage_cells.ATTACHMENT,
        kinds.CSI_DRIVER: storage_cells.DRIVER,
        kinds.CSI_NODE: storage_cells.CSI_NODE,
        kinds.CAPACITY: storage_cells.CAPACITY,
        kinds.SNAPSHOT_CLASS: snapshot_cells.CLASS,
        kinds.SNAPSHOT_CONTENT: snapshot_cells.CONTENT,
        kinds.SNAPSHOT: snapshot_cells.SNAPSHOT,
        kinds.POD: workload_cells.POD,
        kinds.NODE: workload_cells.NODE,
        kinds.DEPLOYMENT: controller_cells.DEPLOYMENT,
        kinds.REPLICA_SET: controller_cells.REPLICA_SET,
        kinds.STATEFUL_SET: controller_cells.STATEFUL_SET,
        kinds.CONTROLLER_REVISION: controller_cells.REVISION,
        kinds.NAMESPACE: (
            name("The namespace's name, unique in the cluster."),
            column(
                "Status",
                lambda o, _: o.get("status", {}).get("phase", ""),
                "Active, or Terminating while it is being emptied.",
            ),
            AGE,
        ),
        kinds.EVENT: (
            column("Last Seen", _last_seen, "Time since it last happened."),
            column("Type", lambda o, _: o.get("type", ""), "Normal or Warning."),
            column("Reason", lambda o, _: o.get("reason", ""), "Why it happened, in one word."),
            column("Object", _about, "Kind and name of what it is about."),
            wide(
                "Subobject",
                lambda o, _: o.get("involvedObject", {}).get("fieldPath", ""),
                "The part of the object it is about.",
            ),
            wide("Source", _source, "Who reported it, and from where."),
            column(
                "Message", lambda o, _: o.get("message", "").strip(), "What happened, in words."
            ),
            wide("First Seen", _first_seen, "Time since it first happened."),
            wide("Count", _count, "How often it happened."),
            wide(
                "Name", lambda o, _: o.get("metadata", {}).get("name", ""), "The event's name."
            ).formatted("name"),
        ),
        kinds.SECRET: (
            name(),
            column("Type", lambda o, _: o.get("type", ""), "What the content is for."),
            column("Data", lambda o, _: len(o.get("data") or {}), "How many keys there are."),
            AGE,
        ),
        kinds.CONFIG_MAP: (
            name(),
            column("Data", _data_count, "How many keys there are."),
            AGE,
        ),
        kinds.SERVICE: (
            name(),
            column("Type", lambda o, _: o.get("spec", {}).get("type", ""), "How it is exposed."),
            column(
                "Cluster-IP",
                lambda o, _: o.get("spec", {}).get("clusterIP") or "<none>",
                "Its address inside the cluster.",
            ),
            column("External-IP", _external_ip, "Its addresses outside the cluster."),
            column("Port(s)", _service_ports, "Ports and protocols."),
            AGE,
            wide(
                "Selector",
                lambda o, _: label_text(o.get("spec", {}).get("selector")),
                "Labels of the pods behind it.",
            ),
        ),
        kinds.ENDPOINTS: (
            name(),
            column("Endpoints", _endpoints, "The first three addresses."),
            AGE,
        ),
        kinds.SERVICE_ACCOUNT: (
            name(),
            column("Secrets", lambda o, _: len(o.get("secrets") or ()), "How many it names."),
            AGE,
        ),
        kinds.RESOURCE_QUOTA: (
            name(),
            AGE,
            column("Request", _quota_requests, "What is used of the limits on requests."),
            column("Limit", _quota_limits, "What is used of the limits on limits."),
        ),
        kinds.LEASE: (
            name(),
            column(
                "Holder",
                lambda o, _: o.get("spec", {}).get("holderIdentity", ""),
                "Who holds it.",
            ),
            AGE,
        ),
    }
)

_DEFINITIONS: Final[Mapping[Kind, tuple[dict[str, Any], ...]]] = MappingProxyType(
    {kind: tuple(each.definition() for each in shown) for kind, shown in _COLUMNS.items()}
)
