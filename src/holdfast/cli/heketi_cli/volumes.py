"""`heketi-cli volume` and `heketi-cli blockvolume`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from holdfast.cli.heketi_cli import manifests, texts
from holdfast.cli.heketi_cli.connection import Failure
from holdfast.cli.heketi_cli.session import Session, flag, one, runs, words

_MISSING = "Volume id missing"


@click.group("volume")
def group() -> None:
    """Heketi Volume Management."""


@group.command()
@click.option("--size", type=int, default=0, help="Size of volume in GiB.")
@click.option("--name", default="", help="Name of volume. Only set if really necessary.")
@click.option("--durability", default="replicate", help="none, replicate or disperse.")
@click.option("--replica", type=int, default=3, help="Copies, for replicate.")
@click.option("--disperse-data", type=int, default=4, help="Data bricks, for disperse.")
@click.option("--redundancy", type=int, default=2, help="Redundant bricks, for disperse.")
@click.option("--snapshot-factor", type=float, default=1.0, help="Room for snapshots, above 1.0.")
@click.option("--clusters", default="", help="Ids of clusters to choose from, by commas.")
@click.option("--gluster-volume-options", "options", default="", help="Options, by commas.")
@click.option("--gid", type=int, default=0, help="The group that may write to it.")
@flag("--block", False, "It is to host block volumes.")
@flag("--persistent-volume", False, "Print a PersistentVolume for Kubernetes.")
@click.option("--persistent-volume-file", "file", default="", help="Write one to this file.")
@click.option("--persistent-volume-endpoint", "endpoint", default="", help="Its endpoints.")
@flag("--dry-run", False, "Only show where its bricks would go.")
@runs
def create(
    session: Session,
    size: int,
    persistent_volume: bool,
    file: str,
    endpoint: str,
    dry_run: bool,
    **wanted: Any,
) -> None:
    """Create a GlusterFS volume."""
    if not size:
        raise Failure("Missing volume size")
    body = _request(size, **wanted)
    if dry_run:
        _show_plan(session, session.api.post("/volumes?dry-run=true", body))
        return
    if persistent_volume and not endpoint:
        click.echo(
            "--persistent-volume-endpoint must be provided when using --persistent-volume", err=True
        )
        raise Failure("Missing endpoint")
    made = session.api.post("/volumes", body)
    if persistent_volume:
        click.echo(manifests.persistent_volume(made, endpoint), nl=False)
    elif file:
        _write(file, manifests.persistent_volume(made, endpoint or "TYPE ENDPOINT HERE"))
    else:
        session.show(made, texts.volume)


def _write(file: str, text: str) -> None:
    """Put a manifest into a file; the volume is there, so what could not be written is shown."""
    try:
        Path(file).write_text(text.rstrip("\n"))
    except OSError as error:
        click.echo(text, nl=False)
        raise Failure(f"Unable to write to file {file}: {error.strerror}") from error


def _request(
    size: int,
    name: str,
    durability: str,
    replica: int,
    disperse_data: int,
    redundancy: int,
    snapshot_factor: float,
    clusters: str,
    options: str,
    gid: int,
    block: bool,
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "size": size,
        "name": name,
        "durability": {
            "type": durability,
            "replicate": {"replica": replica},
            "disperse": {"data": disperse_data, "redundancy": redundancy},
        },
        "block": block,
        "snapshot": {"enable": False, "factor": 0},
    }
    if clusters:
        body["clusters"] = words(clusters)
    if options:
        body["glustervolumeoptions"] = words(options)
    if gid:
        body["gid"] = gid
    if snapshot_factor > 1.0:
        body["snapshot"] = {"enable": True, "factor": snapshot_factor}
    return body


def _show_plan(session: Session, plan: dict[str, Any]) -> None:
    if session.json:
        session.show(plan, "")
        return
    click.echo(f"Cluster {plan['cluster']}: {plan['size']} GiB in {len(plan['bricks'])} bricks")
    for brick in plan["bricks"]:
        kind = " (arbiter)" if brick["arbiter"] else ""
        click.echo(
            f"Set {brick['set']}: {brick['host']}:{brick['name']} "
            f"(device {brick['device']}) {brick['size'] / texts.GIB:.2f} GiB{kind}"
        )


@group.command()
@click.argument("ids", nargs=-1)
@runs
def delete(session: Session, ids: tuple[str, ...]) -> None:
    """Delete a volume."""
    key = one(ids, _MISSING)
    session.api.delete(f"/volumes/{key}")
    click.echo(f"Volume {key} deleted")


@group.command()
@click.argument("ids", nargs=-1)
@click.option("--volume", default="", help="Id of the volume.")
@click.option("--expand-size", type=int, default=0, help="GiB to add.")
@runs
def expand(session: Session, ids: tuple[str, ...], volume: str, expand_size: int) -> None:
    """Add space to a volume."""
    if not expand_size:
        raise Failure("Missing volume amount to expand")
    key = volume or one(ids, "Missing volume id")
    session.show(
        session.api.post(f"/volumes/{key}/expand", {"expand_size": expand_size}), texts.volume
    )


@group.command()
@click.argument("ids", nargs=-1)
@click.option("--name", default="", help="Name of the clone.")
@runs
def clone(session: Session, ids: tuple[str, ...], name: str) -> None:
    """Make a clone of a volume."""
    key = one(ids, _MISSING)
    body = {"name": name} if name else {}
    session.show(session.api.post(f"/volumes/{key}/clone", body), texts.volume)


@group.command()
@click.argument("ids", nargs=-1)
@runs
def info(session: Session, ids: tuple[str, ...]) -> None:
    """Retrieve information about a volume."""
    session.show(session.api.get(f"/volumes/{one(ids, _MISSING)}"), texts.volume)


@group.command("list")
@runs
def list_all(session: Session) -> None:
    """List the volumes."""
    if session.json:
        session.show(session.api.get("/volumes"), "")
        return
    whole = session.api.find("/topology")
    if whole is not None:
        found = [each for cluster in whole["clusters"] for each in cluster["volumes"]]
        found.sort(key=lambda each: str(each["id"]))
    else:
        found = [
            session.api.get(f"/volumes/{key}") for key in session.api.get("/volumes")["volumes"]
        ]
    for each in found:
        click.echo(texts.volume_line(each), nl=False)


@group.command("set-block-hosting-restriction")
@click.argument("values", nargs=-1)
@runs
def restrict(session: Session, values: tuple[str, ...]) -> None:
    """Lock or unlock a volume for block volumes."""
    if not values or values[0] not in ("locked", "unlocked"):
        raise Failure("usage: set-block-hosting-restriction locked|unlocked VOLUME")
    if len(values) < 2:
        raise Failure(_MISSING)
    value = "locked" if values[0] == "locked" else ""
    session.show(
        session.api.post(f"/volumes/{values[1]}/block-restriction", {"restriction": value}),
        texts.volume,
    )


@group.group("endpoint")
def endpoint() -> None:
    """Heketi Volume Endpoint Management."""


@endpoint.command()
@click.argument("ids", nargs=-1)
@runs
def patch(session: Session, ids: tuple[str, ...]) -> None:
    """Print a patch for the endpoints of a volume."""
    found = session.api.get(f"/volumes/{one(ids, _MISSING)}")
    subsets = msgspec.json.encode(manifests.subsets(found)).decode()
    click.echo(f'{{"subsets": {subsets}}}', nl=False)


@click.group("blockvolume")
def block() -> None:
    """Heketi Block Volume Management."""


@block.command("create")
@click.option("--size", type=int, default=0, help="Size in GiB.")
@click.option("--ha", type=int, default=0, help="How many nodes serve it.")
@flag("--auth", False, "Ask for a password.")
@click.option("--name", default="", help="Name of the block volume.")
@click.option("--clusters", default="", help="Ids of clusters to choose from, by commas.")
@runs
def block_create(
    session: Session, size: int, ha: int, auth: bool, name: str, clusters: str
) -> None:
    """Create a block volume."""
    if not size:
        raise Failure("Missing volume size")
    body: dict[str, Any] = {"size": size, "name": name, "hacount": ha, "auth": auth}
    if clusters:
        body["clusters"] = words(clusters)
    session.show(session.api.post("/blockvolumes", body), texts.block_volume)


@block.command("delete")
@click.argument("ids", nargs=-1)
@runs
def block_delete(session: Session, ids: tuple[str, ...]) -> None:
    """Delete a block volume."""
    key = one(ids, _MISSING)
    session.api.delete(f"/blockvolumes/{key}")
    click.echo(f"Volume {key} deleted")


@block.command("info")
@click.argument("ids", nargs=-1)
@runs
def block_info(session: Session, ids: tuple[str, ...]) -> None:
    """Retrieve information about a block volume."""
    session.show(session.api.get(f"/blockvolumes/{one(ids, _MISSING)}"), texts.block_volume)


@block.command("list")
@runs
def block_list(session: Session) -> None:
    """List the block volumes."""
    listing = session.api.get("/blockvolumes")
    if session.json:
        session.show(listing, "")
        return
    for key in listing["blockvolumes"]:
        found = session.api.get(f"/blockvolumes/{key}")
        name = found.get("name", "")
        click.echo(f"Id:{key:<35} Cluster:{found['cluster']:<35} Name:{name}")


@block.command("expand")
@click.argument("ids", nargs=-1)
@click.option("--blockvolume", "named", default="", help="Id of the block volume.")
@click.option("--new-size", type=int, default=0, help="The whole new size in GiB.")
@runs
def block_expand(session: Session, ids: tuple[str, ...], named: str, new_size: int) -> None:
    """Grow a block volume."""
    key = named or one(ids, "Missing block volume id")
    if not new_size:
        raise Failure("Missing block volume net new size")
    session.show(
        session.api.post(f"/blockvolumes/{key}/expand", {"new_size": new_size}),
        texts.block_volume,
    )
