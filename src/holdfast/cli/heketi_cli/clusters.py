"""`heketi-cli cluster`."""

from __future__ import annotations

import click

from holdfast.cli.heketi_cli import texts
from holdfast.cli.heketi_cli.connection import Failure
from holdfast.cli.heketi_cli.session import Session, flag, one, runs

_MISSING = "Cluster id missing"


@click.group("cluster")
def group() -> None:
    """Heketi cluster management."""


@group.command()
@flag("--block", True, "Whether block volumes may be made on it.")
@flag("--file", True, "Whether file volumes may be made on it.")
@runs
def create(session: Session, block: bool, file: bool) -> None:
    """Create a cluster."""
    made = session.api.post("/clusters", {"block": block, "file": file})
    session.show(made, f"Cluster id: {made['id']}\n")


@group.command()
@click.argument("ids", nargs=-1)
@flag("--block", None, "Whether block volumes may be made on it.")
@flag("--file", None, "Whether file volumes may be made on it.")
@runs
def setflags(session: Session, ids: tuple[str, ...], block: bool | None, file: bool | None) -> None:
    """Set flags on a cluster."""
    key = one(ids, _MISSING)
    if block is None and file is None:
        raise Failure("At least one of --file or --block must be specified.")
    found = session.api.get(f"/clusters/{key}")
    session.api.post(
        f"/clusters/{key}/flags",
        {
            "block": found["block"] if block is None else block,
            "file": found["file"] if file is None else file,
        },
    )


@group.command()
@click.argument("ids", nargs=-1)
@runs
def delete(session: Session, ids: tuple[str, ...]) -> None:
    """Delete a cluster."""
    key = one(ids, _MISSING)
    session.api.delete(f"/clusters/{key}")
    click.echo(f"Cluster {key} deleted")


@group.command()
@click.argument("ids", nargs=-1)
@runs
def info(session: Session, ids: tuple[str, ...]) -> None:
    """Retrieve information about a cluster."""
    found = session.api.get(f"/clusters/{one(ids, _MISSING)}")
    session.show(found, texts.cluster)


@group.command("list")
@runs
def list_all(session: Session) -> None:
    """List the clusters."""
    listing = session.api.get("/clusters")
    if session.json:
        session.show(listing, "")
        return
    click.echo("Clusters:")
    for key in listing["clusters"]:
        found = session.api.get(f"/clusters/{key}")
        usage = ("[file]" if found["file"] else "") + ("[block]" if found["block"] else "")
        click.echo(f"Id:{key} {usage or '[]'}")
