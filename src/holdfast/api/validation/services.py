"""Rules for Service and Endpoints, as far as volumes need them.

GlusterFS volumes reach their servers through an Endpoints object and the
selector-less Service that keeps it; the rules cover names, types, ports and
addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import names
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

PROTOCOLS: Final = ("SCTP", "TCP", "UDP")

_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_AFFINITIES: Final = ("ClientIP", "None")
_BAD_ADDRESS: Final = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


class ServiceRules(Rules):
    """Rules of Service."""

    def check_name(self, name: str) -> tuple[str, ...]:
        """A service's name becomes a host name of its own."""
        return names.label_1035(name)

    def body(self, obj: Object) -> list[Cause]:
        """Check type, ports, addresses and affinity."""
        spec = obj.get("spec", EMPTY)
        kind = spec.get("type", "ClusterIP")
        ports = spec.get("ports") or ()
        headless = spec.get("clusterIP") == "None"
        said: list[Cause] = []
        if not ports and not headless and kind != "ExternalName":
            said.append(fields.required("spec.ports"))
        if kind not in _TYPES:
            said.append(fields.not_supported("spec.type", kind, _TYPES))
        if kind == "ExternalName":
            said += _external_name(spec.get("externalName", ""))
        said += _ports(ports, "spec.ports")
        affinity = spec.get("sessionAffinity", "None")
        if affinity not in _AFFINITIES:
            said.append(fields.not_supported("spec.sessionAffinity", affinity, _AFFINITIES))
        given = spec.get("clusterIP")
        if given and not headless and not _is_address(given):
            said.append(fields.invalid("spec.clusterIPs[0]", given, _BAD_ADDRESS))
        for index, address in enumerate(spec.get("externalIPs") or ()):
            if not _is_address(address):
                said.append(fields.invalid(f"spec.externalIPs[{index}]", address, _BAD_ADDRESS))
        for key, value in spec.get("selector", EMPTY).items():
            said += each("spec.selector", key, names.qualified(key))
            said += each("spec.selector", value, names.label_value(value))
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that an assigned address stays while the service has one."""
        now, was = new.get("spec", EMPTY), old.get("spec", EMPTY)
        if "ExternalName" in (now.get("type"), was.get("type")):
            return []
        if not was.get("clusterIP") or now.get("clusterIP") == was["clusterIP"]:
            return []
        return [fields.immutable("spec.clusterIP", now.get("clusterIP", ""))]


class EndpointsRules(Rules):
    """Rules of Endpoints."""

    def same_body(self, new: Object, old: Object) -> bool:
        """Endpoints have their subsets at the top level."""
        return bool(new.get("subsets") == old.get("subsets"))

    def body(self, obj: Object) -> list[Cause]:
        """Check the addresses and ports of every subset."""
        said: list[Cause] = []
        for index, subset in enumerate(obj.get("subsets") or ()):
            at = f"subsets[{index}]"
            if not subset.get("addresses") and not subset.get("notReadyAddresses"):
                rule = "must specify `addresses` or `notReadyAddresses`"
                said.append(fields.required(at, rule))
            for part in ("addresses", "notReadyAddresses"):
                said += _addresses(subset.get(part) or (), f"{at}.{part}")
            said += _ports(subset.get("ports") or (), f"{at}.ports")
        return said


def port_number(number: int, path: str) -> list[Cause]:
    """Check that a number can be a port."""
    if 1 <= number <= 65535:
        return []
    return [fields.invalid(path, number, "must be between 1 and 65535, inclusive")]


def protocol(word: str, path: str) -> list[Cause]:
    """Check the name of a transport protocol."""
    if not word:
        return [fields.required(path)]
    return [] if word in PROTOCOLS else [fields.not_supported(path, word, PROTOCOLS)]


def _external_name(name: str) -> list[Cause]:
    host = name.removesuffix(".")
    if not host:
        return [fields.required("spec.externalName")]
    return each("spec.externalName", host, names.subdomain(host))


def _ports(ports: Sequence[Object], path: str) -> list[Cause]:
    said: list[Cause] = []
    seen_names: set[str] = set()
    seen: set[tuple[object, ...]] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name", "")
        if not name and len(ports) > 1:
            said.append(fields.required(f"{at}.name"))
        elif name:
            said += each(f"{at}.name", name, names.label(name))
            if name in seen_names:
                said.append(fields.duplicate(f"{at}.name", name))
            seen_names.add(name)
        said += port_number(port.get("port", 0), f"{at}.port")
        said += protocol(port.get("protocol", ""), f"{at}.protocol")
        identity = (port.get("protocol"), port.get("port"))
        if path == "spec.ports" and identity in seen:
            said.append(fields.duplicate(at, port))
        seen.add(identity)
    return said


def _addresses(addresses: Sequence[Object], path: str) -> list[Cause]:
    said: list[Cause] = []
    for index, address in enumerate(addresses):
        text = address.get("ip", "")
        if not _is_address(text):
            said.append(fields.invalid(f"{path}[{index}].ip", text, _BAD_ADDRESS))
            continue
        parsed = ipaddress.ip_address(text)
        if parsed.is_loopback or parsed.is_unspecified or parsed.is_link_local:
            rule = "may not be in the loopback, link-local or unspecified range"
            said.append(fields.invalid(f"{path}[{index}].ip", text, rule))
    return said


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
