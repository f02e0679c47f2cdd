"""`heketi-cli setup-openshift-heketi-storage`: a volume for a copy of the database."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli.heketi_cli import manifests
from holdfast.cli.heketi_cli.connection import Failure
from holdfast.cli.heketi_cli.session import Session, runs, words

NAMES = (
    "setup-openshift-heketi-storage",
    "setup-heketi-db-storage",
    "setup-kubernetes-heketi-storage",
)
_NAME, _SIZE = "heketidbstorage", 2
_OFF = (
    "stat-prefetch",
    "write-behind",
    "open-behind",
    "quick-read",
    "strict-o-direct",
    "read-ahead",
    "io-cache",
    "readdir-ahead",
)


def _options() -> list[str]:
    """In Heketi's order, so that its client and this one ask for the same volume."""
    options = [
        f"performance.{name} {'on' if name == 'strict-o-direct' else 'off'}" for name in _OFF
    ]
    return [*options, "user.heketi.dbstoragelevel 1"]


@click.command("setup-openshift-heketi-storage")
@click.option("--listfile", default="heketi-storage.json", show_default=True, help="File to write.")
@click.option("--image", default="heketi/heketi:dev", show_default=True, help="Image of the job.")
@click.option("--durability", default="replicate", help="Durability of the volume.")
@click.option("--replica-count", type=int, default=3, show_default=True, help="Copies.")
@click.option("--options", default="", help="Options instead of the usual ones, by commas.")
@click.option("--append-options", default="", help="Options besides the usual ones, by commas.")
@click.option("--node-selector", default="", help="Where the job may run: key=value,...")
@runs
def setup(
    session: Session,
    listfile: str,
    image: str,
    durability: str,
    replica_count: int,
    options: str,
    append_options: str,
    node_selector: str,
) -> None:
    """Set up persistent storage for a copy of Heketi's database."""
    given = (words(options) or _options()) + words(append_options)
    body = {
        "size": _SIZE,
        "name": _NAME,
        "durability": {"type": durability, "replicate": {"replica": replica_count}},
        "glustervolumeoptions": given,
    }
    volume = session.api.post("/volumes", body)
    backup = session.api.send("GET", "/backup/db")
    if backup.status_code != 200:
        raise Failure(backup.text.strip())
    text = manifests.storage_list(volume, backup.content, image, node_selector)
    click.echo(f"Saving {listfile}")
    try:
        Path(listfile).write_text(text)
    except OSError as error:
        raise Failure(f"Unable to write to file {listfile}: {error.strerror}") from error
