"""`heketi-cli topology`: a cluster from a file, and everything there is.

Loading is repeatable: nodes are found again by their manage host, devices by their name. What
cannot be added is said, the rest goes on, and the exit code is 0 - as scripts know it.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec

from holdfast.cli.heketi_cli import texts
from holdfast.cli.heketi_cli.connection import Connection, Failure
from holdfast.cli.heketi_cli.session import Session, runs


class Hosts(msgspec.Struct):
    """Where a node is; the first name counts."""

    manage: Annotated[list[str], msgspec.Meta(min_length=1)]
    storage: list[str] = []


class Node(msgspec.Struct, omit_defaults=True):
    """A node as it is sent."""

    hostnames: Hosts
    zone: int = 0
    tags: dict[str, str] | None = None


class Device(msgspec.Struct, omit_defaults=True):
    """A device as it is sent."""

    name: str
    destroydata: bool = False
    tags: dict[str, str] | None = None


class NodeEntry(msgspec.Struct):
    """A node and its devices; one without anything to say about it is its name only."""

    node: Node
    devices: list[str | Device] | None = None


class ClusterEntry(msgspec.Struct):
    """A cluster; what it may hold is true unless it is said."""

    nodes: list[NodeEntry] | None = None
    file: bool | None = None
    block: bool | None = None


class File(msgspec.Struct):
    """A topology file. Keys that are not known are ignored, as Heketi's client does."""

    clusters: list[ClusterEntry] | None = None


@click.group("topology")
def group() -> None:
    """Heketi Topology Management."""


@group.command()
@click.option("-j", "--json", "file", default="", help="The topology file.")
@runs
def load(session: Session, file: str) -> None:
    """Add clusters, nodes and devices from a JSON file."""
    if not file:
        raise Failure("Missing configuration file")
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise Failure("Unable to open config file") from error
    try:
        document = msgspec.json.decode(content, type=File)
    except msgspec.DecodeError as error:
        raise Failure(f"Unable to parse config file: {error}") from error
    for cluster in document.clusters or ():
        _load_cluster(session.api, cluster)


def _load_cluster(api: Connection, wanted: ClusterEntry) -> None:
    known = _known(api)
    current = made = ""
    for each in wanted.nodes or ():
        host = each.node.hostnames.manage[0]
        found = known.get(host)
        if found is not None:
            current = found["cluster"]
            click.echo(f"\tFound node {host} on cluster {current}")
        else:
            if not current:
                current = made = _cluster(api, wanted)
            click.echo(f"\tCreating node {host} ... ", nl=False)
            try:
                found = api.post("/nodes", {**msgspec.to_builtins(each.node), "cluster": current})
            except Failure as error:
                click.echo(f"Unable to create node: {error}")
                continue
            click.echo(f"ID: {found['id']}")
        _load_devices(api, found, each.devices or [])
    if made and not api.get(f"/clusters/{made}")["nodes"]:
        # None of its nodes could be added: loading again must not leave one more of it.
        api.delete(f"/clusters/{made}")


def _known(api: Connection) -> dict[str, Any]:
    return {
        node["hostnames"]["manage"][0]: node
        for cluster in _read(api, volumes=False)["clusters"]
        for node in cluster["nodes"]
    }


def _cluster(api: Connection, wanted: ClusterEntry) -> str:
    click.echo("Creating cluster ... ", nl=False)
    flags = {"file": wanted.file is not False, "block": wanted.block is not False}
    made = api.post("/clusters", flags)
    click.echo(f"ID: {made['id']}")
    for kind in ("file", "block"):
        if flags[kind]:
            click.echo(f"\tAllowing {kind} volumes on cluster.")
    return str(made["id"])


def _load_devices(api: Connection, node: dict[str, Any], wanted: list[str | Device]) -> None:
    known = {
        name for device in node["devices"] for name in (device["name"], *device.get("paths", ()))
    }
    for each in wanted:
        device = Device(each) if isinstance(each, str) else each
        if device.name in known:
            click.echo(f"\t\tFound device {device.name}")
            continue
        click.echo(f"\t\tAdding device {device.name} ... ", nl=False)
        try:
            api.post("/devices", {**msgspec.to_builtins(device), "node": node["id"]})
        except Failure as error:
            click.echo(f"Unable to add device: {error}")
        else:
            click.echo("OK")


@group.command()
@runs
def info(session: Session) -> None:
    """Show all clusters with their volumes, nodes, devices and bricks."""
    # A large answer is millions of objects, none of them garbage.
    gc.disable()
    session.show(_read(session.api), texts.topology)


def _read(api: Connection, *, volumes: bool = True) -> dict[str, Any]:
    """Everything: at once from our service, one by one from Heketi's."""
    whole = api.find("/topology")
    if whole is not None:
        return dict(whole)
    found = []
    for key in api.get("/clusters")["clusters"]:
        cluster = api.get(f"/clusters/{key}")
        listed = cluster["volumes"] if volumes else []
        found.append(
            {
                "volumes": [api.get(f"/volumes/{each}") for each in listed],
                "nodes": [api.get(f"/nodes/{each}") for each in cluster["nodes"]],
                "id": key,
                "block": cluster["block"],
                "file": cluster["file"],
            }
        )
    return {"clusters": found}
