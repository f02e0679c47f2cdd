"""`holdfast adopt`: an in-tree volume becomes a csi volume of the same storage; no data is copied.

Everything is checked before anything is changed; an undo file is written first. Killed in the
middle, the same command goes on where it was.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import yaml

from holdfast.api import errors as api_errors
from holdfast.api import kinds
from holdfast.backends import errors
from holdfast.cli import session, terminal
from holdfast.controllers import secrets
from holdfast.controllers.adoption import exchange, plan, record
from holdfast.runtime import access
from holdfast.runtime.client import Object
from holdfast.runtime.http import HttpClient
from holdfast.server import config


@click.command("adopt")
@terminal.data_dir_option
@click.option("--driver", help="The CSI driver to be. Default: Holdfast's own for the storage.")
@click.option("--dry-run", is_flag=True, help="Show both objects and each step; change nothing.")
@click.option(
    "--undo",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Put back what an undo file holds.",
)
@click.option(
    "--record",
    "record_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The undo file to write. Default: adopt-NAME.json here.",
)
@click.option(
    "--unverified", is_flag=True, help="Adopt although the storage system cannot be asked."
)
@click.option(
    "--wait",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Seconds that the claim may take to be Bound again.",
)
@click.option(
    "--kubeconfig",
    "kubeconfig_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The cluster. Default: the API of the data directory, else what kubectl would use.",
)
@click.argument("what", metavar="pv/NAME", required=False)
def command(
    data_dir: Path,
    driver: str | None,
    dry_run: bool,
    undo: Path | None,
    record_path: Path | None,
    unverified: bool,
    wait: float,
    kubeconfig_path: Path | None,
    what: str | None,
) -> None:
    """Make the in-tree volume pv/NAME a csi volume for the same storage and the same claim.

    Refused while a pod uses it or it is attached. --undo FILE puts the old object back.
    """
    if (undo is None) == (what is None):
        raise click.UsageError("give pv/NAME, or --undo FILE")
    found = session.cluster(data_dir, kubeconfig_path)
    work = (
        _undo(found, undo, dry_run, wait)
        if undo is not None
        else _Adoption(found, config.load(data_dir), driver, dry_run, unverified, wait).run(
            _name(str(what)), record_path
        )
    )
    try:
        asyncio.run(work)
    except (plan.Refused, record.RecordError, exchange.NotBound) as error:
        raise terminal.CommandError(str(error)) from error
    except (api_errors.StatusError, OSError) as error:
        raise terminal.CommandError(
            f"the API refused or failed: {error}; repeat the command to go on"
        ) from error


def _name(what: str) -> str:
    word, slash, name = what.partition("/")
    if not slash or word not in ("pv", "persistentvolume", "persistentvolumes") or not name:
        raise click.UsageError(f"{what!r}: write pv/NAME")
    return name


class _Adoption:
    """One run of the command."""

    def __init__(
        self,
        found: access.Access,
        settings: config.Config,
        driver: str | None,
        dry_run: bool,
        unverified: bool,
        wait: float,
    ) -> None:
        self._access = found
        self._settings = settings
        self._driver = driver
        self._dry_run = dry_run
        self._unverified = unverified
        self._wait = wait

    async def run(self, name: str, record_path: Path | None) -> None:
        path = record_path or Path(f"adopt-{name}.json")
        async with self._access.client() as client:
            begun = record.for_volume(path, name, self._access.url)
            if begun is None or record.is_over(begun, await _current(client, name)):
                begun = await self._begin(client, name, path)
                if begun is None:
                    return
            else:
                terminal.note(f"going on with what {path} holds")
                if self._dry_run:
                    _show(begun.old, begun.new, [])
                    return
            begun = await _refreshed(client, path, begun)
            await exchange.Exchange(client, terminal.say, self._wait).run(
                begun.old, begun.new, begun.policy
            )
        terminal.say(f"pv/{name} is a csi volume now; holdfast adopt --undo {path} undoes it")

    async def _begin(self, client: HttpClient, name: str, path: Path) -> record.Record | None:
        made = await plan.make(client, name, self._driver)
        await self._verify(client, made)
        for warning in made.warnings:
            terminal.note(f"Warning: {warning}")
        if self._dry_run:
            _show(made.old, made.new, made.steps())
            return None
        found = await record.of(client, made, self._access.url)
        await asyncio.to_thread(record.write, path, found)
        terminal.say(f"undo file: {path}")
        return found

    async def _verify(self, client: HttpClient, made: plan.Plan) -> None:
        """Ask the storage system whether it knows the volume by the new handle."""
        if self._unverified:
            return
        where = f"pv/{made.name}"
        try:
            values = await secrets.SecretReader(client).read(made.deletion)
            async with session.storage(self._settings) as (backends, _):
                await backends.open(made.backend).get_volume(made.handle.id, secrets=values)
        except errors.NotFound as error:
            raise plan.Refused(
                f"{where}: {made.backend} has no volume {made.handle.id} ({error}): it would not "
                "work under a csi driver either"
            ) from error
        except errors.BackendError as error:
            raise plan.Refused(
                f"{where}: {made.backend} cannot be asked for volume {made.handle.id}: {error}. "
                "Run this where holdfast.toml is, or say --unverified when you are certain"
            ) from error


async def _undo(found: access.Access, path: Path, dry_run: bool, wait: float) -> None:
    begun = await asyncio.to_thread(record.read, path)
    if begun.server != found.url:
        raise plan.Refused(f"{path} is of {begun.server}, not of {found.url}: give --kubeconfig")
    if dry_run:
        _show(begun.new, begun.old, [])
        return
    async with found.client() as client:
        begun = await _refreshed(client, path, begun)
        await exchange.Exchange(client, terminal.say, wait).run(begun.new, begun.old, begun.policy)
    terminal.say(f"pv/{begun.name} is as it was")


async def _current(client: HttpClient, name: str) -> Object | None:
    try:
        return await client.get(kinds.VOLUME, name)
    except api_errors.NotFound:
        return None


async def _refreshed(client: HttpClient, path: Path, begun: record.Record) -> record.Record:
    """Take the volume's size of now into the undo file, before the object that has it goes."""
    found = record.with_size(begun, await _current(client, begun.name))
    if found is not begun:
        await asyncio.to_thread(record.write, path, found)
    return found


def _show(before: Object, after: Object, steps: list[str]) -> None:
    for title, obj in (("now", before), ("to be", after)):
        terminal.say(f"# {title}")
        meta = {
            key: value
            for key, value in obj["metadata"].items()
            if key in ("name", "labels", "annotations", "finalizers")
        }
        shown = {**obj, "metadata": meta}
        shown.pop("status", None)
        terminal.say(yaml.safe_dump(shown, sort_keys=False).rstrip())
        terminal.say("---")
    for number, step in enumerate(steps, 1):
        terminal.say(f"# {number}. {step}")
