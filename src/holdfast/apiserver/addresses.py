"""Addresses and node ports of services: which one a service gets, and that no two get the same.

Nothing forwards packets to them here. They are assigned because clients read them: `helm --wait`
takes a service without an address for one that is not ready. A new service's place in the range
follows from its name, so that the same manifests get the same addresses; what is taken is read
from the services that are stored, so there is nothing else to keep, and nothing to leak.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterator
from typing import Any, Final

from holdfast.api import errors, fields, kinds
from holdfast.api.fields import Cause
from holdfast.store.log import Store

Object = dict[str, Any]

RANGE: Final = ipaddress.IPv4Network("10.96.0.0/16")
PORTS: Final = range(30000, 32768)
HEADLESS: Final = "None"
# The lower part is left to those who choose an address themselves, as Kubernetes does it.
_CHOSEN = 256
_TAKEN = "provided {} is already allocated"
_FOREIGN_PORT = "provided port is not in the valid range. The range of valid ports is 30000-32767"


_ADDRESSES = ("clusterIP", "clusterIPs")
_FAMILIES = ("ipFamilies", "ipFamilyPolicy")


def keep(service: Object, old: Object) -> None:
    """Take over from the stored service what a writer left out, and drop what its type has not."""
    spec, was = service["spec"], old.get("spec") or {}
    if spec.get("type") == "ExternalName":
        if spec.get("clusterIP") == was.get("clusterIP"):
            for name in (*_ADDRESSES, *_FAMILIES):
                spec.pop(name, None)
        return
    carried = _FAMILIES if spec.get("clusterIP") else (*_FAMILIES, *_ADDRESSES)
    for name in carried:
        if was.get(name) and not spec.get(name):
            spec[name] = was[name]
    _keep_ports(spec, was)


def _keep_ports(spec: Object, was: Object) -> None:
    known = {
        (port.get("protocol", "TCP"), port["port"]): port.get("nodePort")
        for port in was.get("ports") or ()
    }
    for port in spec.get("ports") or ():
        number = known.get((port.get("protocol") or "TCP", port.get("port")))
        if _has_node_ports(spec):
            if number and not port.get("nodePort"):
                port["nodePort"] = number
        elif port.get("nodePort") == number:
            # It was only carried along.
            port.pop("nodePort", None)


def assign(store: Store, service: Object) -> None:
    """Give a service what its type needs; raises `Invalid` for what it cannot have."""
    spec, meta = service.get("spec") or {}, service["metadata"]
    if spec.get("type") == "ExternalName":
        return
    name = f"{meta.get('namespace', '')}/{meta.get('name', '')}"
    others = [
        record.obj for record in store.scan_latest(kinds.SERVICE.bucket) if record.key != name
    ]
    causes = _set_families(spec)
    if not causes:
        causes = _set_address(spec, name, others)
    if _has_node_ports(spec):
        causes += _set_ports(spec, name, others)
    if causes:
        raise errors.Invalid.of("", "Service", meta.get("name", ""), causes)


def _set_families(spec: Object) -> list[Cause]:
    headless = spec.get("clusterIP") == HEADLESS
    if headless and not spec.get("selector"):
        # Whoever keeps the endpoints by hand may list addresses of both families.
        policy = spec.setdefault("ipFamilyPolicy", "RequireDualStack")
        families = spec.setdefault("ipFamilies", ["IPv4"])
        if policy != "SingleStack" and len(families) == 1:
            spec["ipFamilies"] = ["IPv4", "IPv6"] if families == ["IPv4"] else ["IPv6", "IPv4"]
        return []
    causes = []
    policy = spec.setdefault("ipFamilyPolicy", "SingleStack")
    if policy == "RequireDualStack":
        why = "this cluster is not configured for dual-stack services"
        causes.append(fields.invalid("spec.ipFamilyPolicy", policy, why))
    for index, family in enumerate(spec.setdefault("ipFamilies", ["IPv4"])):
        if family != "IPv4":
            why = "not configured on this cluster"
            causes.append(fields.invalid(f"spec.ipFamilies[{index}]", family, why))
    return causes


def _set_address(spec: Object, name: str, others: list[Object]) -> list[Cause]:
    chosen = spec.get("clusterIP")
    if not chosen and spec.get("clusterIPs"):
        why = "must be empty when `clusterIP` is not specified"
        return [fields.invalid("spec.clusterIPs", spec["clusterIPs"], why)]
    taken = {(other.get("spec") or {}).get("clusterIP") for other in others}
    if not chosen:
        size = RANGE.num_addresses - _CHOSEN - 1
        found = _free(name, size, lambda place: str(RANGE[_CHOSEN + place]), taken)
        chosen = spec["clusterIP"] = found
    elif why := _wrong_address(chosen, taken):
        said = f"failed to allocate IP {chosen}: {why}"
        return [fields.invalid("spec.clusterIPs", spec.get("clusterIPs") or [chosen], said)]
    spec.setdefault("clusterIPs", [chosen])
    return []


def _wrong_address(chosen: str, taken: set[Any]) -> str:
    try:
        address = ipaddress.ip_address(chosen)
    except ValueError:
        return ""  # Headless, or no address: validation says so.
    inside = address in RANGE and address not in (RANGE[0], RANGE[-1])
    if not inside:
        return (
            f"the provided IP ({chosen}) is not in the valid range. "
            f"The range of valid IPs is {RANGE}"
        )
    return _TAKEN.format("IP") if chosen in taken else ""


def _has_node_ports(spec: Object) -> bool:
    kind = spec.get("type")
    balanced = kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    return balanced or kind == "NodePort"


def _set_ports(spec: Object, name: str, others: list[Object]) -> list[Cause]:
    taken = {port for other in others for port in _node_ports(other.get("spec") or {})}
    causes: list[Cause] = []
    ports = spec.get("ports") or ()
    for index, port in enumerate(ports):
        chosen = port.get("nodePort")
        if not chosen:
            continue
        path = f"spec.ports[{index}].nodePort"
        if chosen not in PORTS:
            causes.append(fields.invalid(path, chosen, _FOREIGN_PORT))
        elif chosen in taken:
            causes.append(fields.invalid(path, chosen, _TAKEN.format("port")))
    taken.update(_node_ports(spec))
    for port in ports:
        if not port.get("nodePort"):
            seed = f"{name}:{port.get('protocol')}:{port.get('port')}"
            port["nodePort"] = _free(seed, len(PORTS), lambda place: PORTS[place], taken)
            taken.add(port["nodePort"])
    return causes


def _node_ports(spec: Object) -> Iterator[int]:
    return (port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort"))


def _free(seed: str, size: int, value: Callable[[int], Any], taken: set[Any]) -> Any:
    """The first value that is free, from the place that follows from the seed."""
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    for step in range(size):
        found = value((start + step) % size)
        if found not in taken:
            return found
    raise errors.InternalError.unknown("failed to allocate a serviceIP: range is full")
