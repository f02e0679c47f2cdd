"""Heketi's own client for Python, as scripts use it, against the Heketi service with tokens.

Its last release is of 2016 and hashes texts, which only Python 2 does; so its tokens are made
here. All else is its own: requests, the queue, redirects and which status it takes for success.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import jwt
from heketi import HeketiClient

import heketiservice


class Client(HeketiClient):  # type: ignore[misc] # it has no types
    """The client, with tokens that live for one second as its own do."""

    def _set_token_in_header(
        self, method: str, uri: str, headers: dict[str, str] | None = None
    ) -> dict[str, str]:
        now = int(time.time())
        qsh = hashlib.sha256(f"{method}&{uri}".encode()).hexdigest()
        claims = {"iss": self.user, "iat": now, "exp": now + 2, "qsh": qsh}
        token = jwt.encode(claims, self.key, algorithm="HS256")
        return {**(headers or {}), "Authorization": f"bearer {token}"}


async def test_a_cluster_and_its_volume_live_and_die(tmp_path: Path) -> None:
    async with heketiservice.served(tmp_path) as found:
        client = Client(found.url, "admin", heketiservice.ADMIN)
        await asyncio.to_thread(_life, client)


def _life(client: Any) -> None:
    assert client.hello()
    cluster = client.cluster_create()["id"]
    assert client.cluster_list() == {"clusters": [cluster]}
    nodes = [_add_node(client, cluster, zone) for zone in (1, 2, 3)]
    assert sorted(client.cluster_info(cluster)["nodes"]) == sorted(nodes)
    _volume(client)
    for node in nodes:
        for device in client.node_info(node)["devices"]:
            _take_away(client, device["id"])
        assert client.node_delete(node)
    assert client.cluster_delete(cluster)
    assert client.cluster_list() == {"clusters": []}


def _add_node(client: Any, cluster: str, zone: int) -> str:
    hosts = {"manage": [f"node{zone}"], "storage": [f"10.0.0.{zone}"]}
    node = client.node_add({"cluster": cluster, "zone": zone, "hostnames": hosts})
    assert client.device_add({"node": node["id"], "name": "/dev/sdb"})
    [device] = client.node_info(node["id"])["devices"]
    assert client.device_info(device["id"])["name"] == "/dev/sdb"
    return str(node["id"])


def _volume(client: Any) -> None:
    durability = {"type": "replicate", "replicate": {"replica": 3}}
    made = client.volume_create({"size": 10, "durability": durability})
    assert client.volume_list() == {"volumes": [made["id"]]}
    assert client.volume_expand(made["id"], {"expand_size": 5})["size"] == 15
    assert len(client.volume_info(made["id"])["bricks"]) == 6
    assert client.volume_delete(made["id"])


def _take_away(client: Any, device: str) -> None:
    for state in ("offline", "failed"):
        # It takes only 200 for success, and Heketi has answered 204 ever since.
        assert not client.device_state(device, {"state": state})
        assert client.device_info(device)["state"] == state
    assert client.device_delete(device)
