"""`holdfast volumes`: each claim with its volume, its id in the storage system, and its node.

Also what should not be: volumes in a storage system that no object knows, and objects whose
volume is gone. Exit code 1 when there is such a thing, so that a script can ask.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import click

from holdfast.api import errors as api_errors
from holdfast.backends import errors
from holdfast.backends.protocol import Backend
from holdfast.cli import session, terminal
from holdfast.diagnosis import inventory
from holdfast.server import config, systems

_HEAD = ("CLAIM", "VOLUME", "STATUS", "SIZE", "BACKEND", "ID", "NODE", "PROBLEM")


@click.command("volumes")
@terminal.data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the volumes as JSON.")
@click.option(
    "--kubeconfig",
    "kubeconfig_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="API whose volumes are shown. Default: the data directory's, else kubectl's.",
)
def command(data_dir: Path, as_json: bool, kubeconfig_path: Path | None) -> None:
    """Show each claim, its volume, the storage system's id, its node, and what is wrong."""
    settings = config.load(data_dir)
    found = asyncio.run(_take(settings, kubeconfig_path))
    if as_json:
        terminal.say(json.dumps([dataclasses.asdict(each) for each in found.entries], indent=2))
    else:
        rows = [dataclasses.astuple(each) for each in found.entries]
        filled = [tuple(cell or "-" for cell in row) for row in rows]
        for line in terminal.table([_HEAD, *filled], indent=""):
            terminal.say(line)
    for backend, why in found.unasked.items():
        terminal.note(f"{backend} could not be asked: {why}")
    if any(each.problem in (inventory.ORPHAN, inventory.MISSING) for each in found.entries):
        sys.exit(1)


async def _take(settings: config.Config, path: Path | None) -> inventory.Inventory:
    try:
        async with (
            session.storage(settings, path) as (backends, _),
            session.api(settings.data_dir, path) as client,
        ):
            own = session.is_own(settings.data_dir, path)
            opener = backends.open if own else partial(_open_shared, backends)
            return await inventory.take(client, backends.configured(), opener)
    except (api_errors.StatusError, OSError) as error:
        raise terminal.CommandError(f"the API cannot be read: {error}") from error


def _open_shared(backends: systems.Backends, kind: str) -> Backend:
    """Open what is the same for everyone: this machine's disks say nothing of another's volumes."""
    if kind == "local":
        raise errors.Unavailable(
            "the API is not that of this data directory",
            "volumes of local disks",
            "name the directory whose API it is with --data-dir",
        )
    return backends.open(kind)
