"""Services get an address and node ports of their own, and keep them."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest

from wire import CORE, Object, Wire, meta

SERVICES = f"{CORE}/namespaces/default/services"
RANGE = ipaddress.ip_network("10.96.0.0/16")


def _service(name: str, **spec: Any) -> Object:
    return {"metadata": meta(name), "spec": {"ports": [{"port": 80}], **spec}}


async def test_a_service_gets_an_address_and_what_goes_with_it(api: Wire) -> None:
    spec = (await api.make(SERVICES, _service("s", selector={"a": "b"})))["spec"]
    address = spec.pop("clusterIP")
    assert ipaddress.ip_address(address) in RANGE
    assert spec == {
        "clusterIPs": [address],
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "selector": {"a": "b"},
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }


async def test_many_services_made_at_once_get_different_addresses(api: Wire) -> None:
    made = await asyncio.gather(
        *(api.make(SERVICES, _service(f"s-{n}", type="NodePort")) for n in range(40))
    )
    assert len({obj["spec"]["clusterIP"] for obj in made}) == 40
    ports = {obj["spec"]["ports"][0]["nodePort"] for obj in made}
    assert len(ports) == 40
    assert min(ports) >= 30000 and max(ports) <= 32767


async def test_the_same_service_gets_the_same_address_again(api: Wire) -> None:
    first = (await api.make(SERVICES, _service("s")))["spec"]["clusterIP"]
    await api.call("DELETE", f"{SERVICES}/s")
    assert (await api.make(SERVICES, _service("s")))["spec"]["clusterIP"] == first


async def test_a_headless_service_has_none(api: Wire) -> None:
    chosen = _service("s", clusterIP="None", selector={"a": "b"})
    spec = (await api.make(SERVICES, chosen))["spec"]
    assert (spec["clusterIP"], spec["clusterIPs"]) == ("None", ["None"])
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    by_hand = (await api.make(SERVICES, _service("h", clusterIP="None")))["spec"]
    assert by_hand["ipFamilies"] == ["IPv4", "IPv6"]
    assert by_hand["ipFamilyPolicy"] == "RequireDualStack"
    elsewhere = _service("e", type="ExternalName", externalName="example.com")
    assert "clusterIP" not in (await api.make(SERVICES, elsewhere))["spec"]


@pytest.mark.parametrize(
    ("spec", "place", "why"),
    [
        (
            {"clusterIP": "10.96.0.7"},
            "spec.clusterIPs",
            'Invalid value: ["10.96.0.7"]: failed to allocate IP 10.96.0.7: '
            "provided IP is already allocated",
        ),
        (
            {"clusterIP": "10.0.0.1"},
            "spec.clusterIPs",
            'Invalid value: ["10.0.0.1"]: failed to allocate IP 10.0.0.1: the provided IP '
            "(10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]},
            "spec.ports[0].nodePort",
            "Invalid value: 30080: provided port is already allocated",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]},
            "spec.ports[0].nodePort",
            "Invalid value: 80: provided port is not in the valid range. "
            "The range of valid ports is 30000-32767",
        ),
        (
            {"ipFamilies": ["IPv6"]},
            "spec.ipFamilies[0]",
            'Invalid value: "IPv6": not configured on this cluster',
        ),
    ],
)
async def test_what_is_taken_or_foreign_is_refused(
    api: Wire, spec: Object, place: str, why: str
) -> None:
    ports = [{"port": 80, "nodePort": 30080}]
    await api.make(SERVICES, _service("first", clusterIP="10.96.0.7", type="NodePort", ports=ports))
    reply = await api.call("POST", SERVICES, _service("s", **spec))
    assert (reply.code, reply.causes) == (422, [(place, "FieldValueInvalid", why)])


async def test_a_replacement_that_leaves_the_address_out_keeps_it(api: Wire) -> None:
    made = (await api.make(SERVICES, _service("s", type="NodePort")))["spec"]
    reply = await api.call("PUT", f"{SERVICES}/s", _service("s", type="NodePort"))
    assert (reply.code, reply.body["spec"]) == (200, made)
    other = await api.call("PUT", f"{SERVICES}/s", _service("s", clusterIP="10.96.0.9"))
    assert (other.code, other.causes[0][0]) == (422, "spec.clusterIP")


async def test_the_address_goes_and_comes_with_the_type(api: Wire) -> None:
    await api.make(SERVICES, _service("s", type="NodePort"))
    inside = await api.patch(f"{SERVICES}/s", {"spec": {"type": "ClusterIP"}})
    assert "nodePort" not in inside.body["spec"]["ports"][0]
    named = {"spec": {"type": "ExternalName", "externalName": "example.com"}}
    outside = await api.patch(f"{SERVICES}/s", named)
    assert outside.code == 200 and not {"clusterIP", "clusterIPs"} & outside.body["spec"].keys()
    back = await api.patch(f"{SERVICES}/s", {"spec": {"type": "ClusterIP", "externalName": None}})
    assert ipaddress.ip_address(back.body["spec"]["clusterIP"]) in RANGE


async def test_nobody_owns_what_was_assigned(api: Wire) -> None:
    made = await api.make(SERVICES, _service("s"))
    (entry,) = made["metadata"]["managedFields"]
    assert "f:clusterIP" not in entry["fieldsV1"]["f:spec"]
