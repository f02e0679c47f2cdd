"""`heketi-cli server`, `db` and `loglevel`."""

from __future__ import annotations

from typing import Any

import click

from holdfast.cli.heketi_cli.connection import Failure
from holdfast.cli.heketi_cli.session import Session, flag, one, runs

_CLEANUP_NOTE = (
    "Note: Operation clean up is a batch operation.\n"
    "* The results of individual operation clean ups are not reported here.\n"
    "* Use 'heketi-cli server operations [list|info]' to view operations."
)


@click.group("server")
def group() -> None:
    """Heketi Server Management."""


@group.group("operations")
def operations() -> None:
    """Manage ongoing server operations."""


@operations.command()
@click.argument("ids", nargs=-1)
@runs
def info(session: Session, ids: tuple[str, ...]) -> None:
    """Show counts, or one operation."""
    if ids:
        _details(session.api.get(f"/operations/pending/{ids[0]}"))
        return
    found = session.api.get("/operations")
    click.echo("Operation Counts:")
    for title, key in (
        ("Total", "total"),
        ("In-Flight", "in_flight"),
        ("New", "new"),
        ("Failed", "failed"),
        ("Stale", "stale"),
    ):
        click.echo(f"  {title}: {found[key]}")


def _status(found: dict[str, Any]) -> str:
    state = {"": "New", "stale": "Stale", "failed": "Failed"}[found["status"]]
    return f"{state} {found['sub_status']}".rstrip()


def _details(found: dict[str, Any]) -> None:
    click.echo(f"Id: {found['id']}\nType: {found['type_name']}\nStatus: {_status(found)}\nChanges:")
    for change in found["changes"]:
        click.echo(f"  {change['description']}: {change['id']}")


@operations.command("list")
@runs
def list_all(session: Session) -> None:
    """List pending operations."""
    for each in session.api.get("/operations/pending")["pendingoperations"]:
        click.echo(f"Id:{each['id']}  Type:{each['type_name']}  Status:{_status(each)}")


@operations.command()
@click.argument("ids", nargs=-1)
@runs
def cleanup(session: Session, ids: tuple[str, ...]) -> None:
    """Try stale and failed operations again."""
    session.api.post("/operations/pending/cleanup", {"operations": list(ids)} if ids else {})
    click.echo(_CLEANUP_NOTE, err=True)


@group.group("mode")
def mode() -> None:
    """Manage server mode."""


@mode.command("get")
@runs
def get_mode(session: Session) -> None:
    """Print the server's mode."""
    click.echo(session.api.get("/admin")["state"])


@mode.command("set")
@click.argument("values", nargs=-1)
@runs
def set_mode(session: Session, values: tuple[str, ...]) -> None:
    """Set it: normal, local-client or read-only."""
    wanted = one(values, "missing mode argument")
    if len(values) > 1:
        raise Failure("too many arguments")
    session.api.post("/admin", {"state": wanted})


@group.group("state")
def state() -> None:
    """Server state."""


@state.group("examine")
def examine() -> None:
    """Compare the database with what is there."""


@examine.command()
@runs
def gluster(session: Session) -> None:
    """Compare it with GlusterFS."""
    click.echo(session.api.text("/internal/state/examine/gluster"), nl=False)


@click.group("db")
def db() -> None:
    """Heketi Database Management."""


@db.command()
@runs
def dump(session: Session) -> None:
    """Print the database as JSON."""
    click.echo(session.api.text("/db/dump"), nl=False)


@db.command()
@flag("--repair", False, "Remove what leads nowhere; bricks and volumes are not touched.")
@runs
def check(session: Session, repair: bool) -> None:
    """Print what is inconsistent in the database."""
    if not repair:
        click.echo(session.api.text("/db/check"), nl=False)
        return
    found = session.api.post("/db/repair", {})
    for text in found["repaired"]:
        click.echo(text)
    click.echo(f"Inconsistencies left: {found['check']['totalinconsistencies']}")


@db.command()
@click.argument("nodes", nargs=-1)
@runs
def rebuild(session: Session, nodes: tuple[str, ...]) -> None:
    """Fill an empty database from the cluster: MANAGE[,STORAGE[,ZONE]] for each node."""
    if not nodes:
        raise Failure("name the nodes of the cluster: MANAGE[,STORAGE[,ZONE]] each")
    asked = []
    for text in nodes:
        manage, _, rest = text.partition(",")
        storage, _, zone = rest.partition(",")
        if zone and not zone.isdigit():
            raise Failure(f"{text}: the zone is a number")
        asked.append({"manage": manage, "storage": storage, "zone": int(zone or 1)})
    found = session.api.post("/db/rebuild", {"nodes": asked})
    click.echo(f"Cluster id: {found['cluster']}")
    for key in ("nodes", "devices", "volumes", "bricks"):
        click.echo(f"{key}: {found[key]}")
    for text in found["left_out"]:
        click.echo(f"left out: {text}", err=True)


@click.group("loglevel")
def loglevel() -> None:
    """Heketi Log Level."""


@loglevel.command("get")
@runs
def get_level(session: Session) -> None:
    """Print the server's log level."""
    click.echo(session.api.get("/internal/logging")["loglevel"]["glusterfs"])


@loglevel.command("set")
@click.argument("values", nargs=-1)
@runs
def set_level(session: Session, values: tuple[str, ...]) -> None:
    """Set it."""
    level = one(values, "missing log-level argument")
    session.api.post("/internal/logging", {"loglevel": {"glusterfs": level}})
    click.echo("Server log level updated")
