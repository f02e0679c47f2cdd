"""`heketi-cli node`."""

from __future__ import annotations

import click

from holdfast.cli.heketi_cli import tagging, texts
from holdfast.cli.heketi_cli.connection import Failure
from holdfast.cli.heketi_cli.session import Session, one, runs

_MISSING = "Node id missing"


@click.group("node")
def group() -> None:
    """Heketi Node Management."""


@group.command()
@click.option("--zone", type=int, default=0, help="The zone in which the node should reside.")
@click.option("--cluster", default="", help="The cluster in which the node should reside.")
@click.option("--management-host-name", "manage", default="", help="Where commands are run.")
@click.option("--storage-host-name", "storage", default="", help="Where bricks are served.")
@runs
def add(session: Session, zone: int, cluster: str, manage: str, storage: str) -> None:
    """Add a node to a cluster."""
    for value, missing in (
        (zone, "zone"),
        (manage, "management hostname"),
        (storage, "storage hostname"),
        (cluster, "cluster id"),
    ):
        if not value:
            raise Failure(f"Missing {missing}")
    body = {
        "zone": zone,
        "hostnames": {"manage": [manage], "storage": [storage]},
        "cluster": cluster,
    }
    made = session.api.post("/nodes", body)
    session.show(made, lambda found: "Node information:\n" + texts.node_head(found))


@group.command()
@click.argument("ids", nargs=-1)
@runs
def delete(session: Session, ids: tuple[str, ...]) -> None:
    """Delete a node."""
    key = one(ids, _MISSING)
    session.api.delete(f"/nodes/{key}")
    click.echo(f"Node {key} deleted")


@group.command()
@click.argument("ids", nargs=-1)
@runs
def info(session: Session, ids: tuple[str, ...]) -> None:
    """Retrieve information about a node."""
    session.show(session.api.get(f"/nodes/{one(ids, _MISSING)}"), texts.node)


@group.command("list")
@runs
def list_all(session: Session) -> None:
    """List all nodes."""
    for key in session.api.get("/clusters")["clusters"]:
        for node in session.api.get(f"/clusters/{key}")["nodes"]:
            click.echo(f"Id:{node}\tCluster:{key}")


def _state(name: str, state: str, said: str, text: str) -> None:
    @group.command(name, help=text)
    @click.argument("ids", nargs=-1)
    @runs
    def change(session: Session, ids: tuple[str, ...]) -> None:
        key = one(ids, _MISSING)
        session.api.post(f"/nodes/{key}/state", {"state": state})
        click.echo(f"Node {key} is now {said}")


_state("enable", "online", "online", "Allow a node to be used.")
_state("disable", "offline", "offline", "Disallow usage of a node.")
_state("remove", "failed", "removed", "Move all bricks away from a node.")
tagging.add_to(group, "nodes")
