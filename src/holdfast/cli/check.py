"""`holdfast check`: every prerequisite, before anything breaks; nothing is changed.

Storage systems are asked by their own checks, this machine by its node sides, and the classes and
secrets of the API by `diagnosis`. Without a running API the rest is checked all the same. Exit code
0: usable, warnings included; 1: something is wrong.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from holdfast.api import errors as api_errors
from holdfast.api import kinds
from holdfast.backends import errors, registry
from holdfast.backends.protocol import Finding, NodeChecker, VolumeChecker, VolumeHandle
from holdfast.cli import session, terminal
from holdfast.controllers import secrets
from holdfast.diagnosis import classes, nodes, secretchecks
from holdfast.runtime.http import HttpClient
from holdfast.server import config, systems

Row = tuple[str, Finding]
_API = "api"


@click.command("check")
@terminal.data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option(
    "--kubeconfig",
    "kubeconfig_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="API whose classes and secrets are read. Default: the data directory's, else kubectl's.",
)
@click.argument("kind", nargs=-1)
def command(
    data_dir: Path, as_json: bool, kubeconfig_path: Path | None, kind: tuple[str, ...]
) -> None:
    """Check what volumes need: storage systems, this machine, classes, secrets.

    KIND is local, ceph, openstack, vsphere, gluster or nfs. Without one, all are checked that are
    configured, or used by a class or volume.
    """
    settings = config.load(data_dir)
    wanted = [session.kind_of(word) for word in kind]
    rows = asyncio.run(_check(settings, wanted, kubeconfig_path))
    if as_json:
        found = [{"kind": name, **dataclasses.asdict(finding)} for name, finding in rows]
        terminal.say(json.dumps(found, indent=2))
    else:
        _print(rows)
    if any(finding.severity == "error" for _, finding in rows):
        sys.exit(1)


async def _check(
    settings: config.Config, wanted: Sequence[str], kubeconfig_path: Path | None
) -> list[Row]:
    async with session.storage(settings, kubeconfig_path) as (backends, sides):
        told, used = await _objects(settings.data_dir, kubeconfig_path, wanted, backends, sides)
        rows: list[Row] = []
        for kind in wanted or dict.fromkeys((*backends.configured(), *used)):
            rows += [(kind, finding) for finding in await _system(kind, backends)]
            rows += [(kind, finding) for finding in await _machine(kind, sides)]
        # A package that is missing is missing for the system, the machine and every class.
        return list(dict.fromkeys(rows + told))


async def _system(kind: str, backends: systems.Backends) -> Sequence[Finding]:
    if kind != "local" and kind not in registry.BACKENDS:
        return ()
    try:
        return await backends.open(kind).checks()
    except errors.BackendError as error:
        return [Finding("checks", "error", error.what, error.where, error.remedy)]


async def _machine(kind: str, sides: systems.NodeSides) -> Sequence[Finding]:
    if kind not in sides:
        return ()
    try:
        side = sides[kind]
        return await side.checks() if isinstance(side, NodeChecker) else ()
    except errors.BackendError as error:
        return [Finding("node", "error", error.what, error.where, error.remedy)]


async def _objects(
    data_dir: Path,
    path: Path | None,
    wanted: Sequence[str],
    backends: systems.Backends,
    sides: systems.NodeSides,
) -> tuple[list[Row], list[str]]:
    """Check classes and volumes; return the findings and the kinds that are used."""
    try:
        async with session.api(data_dir, path) as client:
            rows, used = await _classes(client, wanted, backends)
            more, in_use = await _volumes(client, wanted, sides)
            used += in_use
            for kind in dict.fromkeys(wanted or (*backends.configured(), *used)):
                if kind in registry.BACKENDS:
                    more += [(kind, each) for each in await _nodes(client, kind, backends)]
            return rows + more, used
    except (terminal.CommandError, OSError, api_errors.StatusError) as error:
        what = "no API answers, so classes, volumes and secrets were not checked"
        remedy = "start Holdfast (holdfast up), or name an API with --kubeconfig"
        return [(_API, Finding("api", "warning", what, str(error), remedy))], []


async def _classes(
    client: HttpClient, wanted: Sequence[str], backends: systems.Backends
) -> tuple[list[Row], list[str]]:
    reader = secrets.SecretReader(client)
    rows: list[Row] = []
    used: list[str] = []
    for obj in (await client.list(kinds.STORAGE_CLASS)).items:
        kind = classes.backend_of(obj)
        used += [kind] if kind else []
        if not wanted or kind in wanted:
            found = await classes.check(obj, reader, backends.open)
            rows += [(kind or _API, finding) for finding in found]
    return rows, used


async def _volumes(
    client: HttpClient, wanted: Sequence[str], sides: systems.NodeSides
) -> tuple[list[Row], list[str]]:
    reader = secrets.SecretReader(client)
    rows: list[Row] = []
    used: list[str] = []
    for obj in (await client.list(kinds.VOLUME)).items:
        handle = registry.handle_of(obj["spec"], obj["metadata"].get("annotations"))
        if handle is None or handle[0] not in registry.NODE_SIDES:
            continue
        kind, volume = handle
        used.append(kind)
        if wanted and kind not in wanted:
            continue
        where = f"volume {obj['metadata']['name']}"
        namespace = (obj["spec"].get("claimRef") or {}).get("namespace", "default")
        ref = registry.node_secret(obj["spec"], namespace)
        report = await secretchecks.check(reader, ref, where)
        rows += [(kind, finding) for finding in report.findings]
        if report.usable:
            known = dataclasses.replace(volume, secrets=report.values)
            rows += [(kind, finding) for finding in await _volume(sides, kind, known, where)]
    return rows, used


async def _volume(
    sides: systems.NodeSides, kind: str, volume: VolumeHandle, where: str
) -> list[Finding]:
    """Ask the node side about one volume; its findings say which volume they are about."""
    try:
        side = sides[kind]
        found = await side.check_volume(volume) if isinstance(side, VolumeChecker) else ()
    except errors.BackendError as error:
        found = [Finding("volume", "error", error.what, error.where, error.remedy)]
    return [
        dataclasses.replace(each, where=f"{where}, {each.where}" if each.where else where)
        for each in found
    ]


async def _nodes(client: HttpClient, kind: str, backends: systems.Backends) -> Sequence[Finding]:
    try:
        return await nodes.check(client, kind, backends.open(kind))
    except errors.BackendError as error:
        return [Finding("node", "error", error.what, error.where, error.remedy)]


def _print(rows: Iterable[Row]) -> None:
    listed = list(rows)
    cells = [("SYSTEM", "CHECK", "STATUS", "FINDING")]
    cells += [(kind, f.check, f.severity, _said(f)) for kind, f in listed]
    lines = list(terminal.table(cells, indent=""))
    terminal.say(lines[0])
    for line, (_, finding) in zip(lines[1:], listed, strict=True):
        terminal.say(line)
        if finding.remedy and finding.severity != "ok":
            terminal.say(f"    -> {finding.remedy}")
    wrong = sum(finding.severity == "error" for _, finding in listed)
    warned = sum(finding.severity == "warning" for _, finding in listed)
    terminal.say(f"{len(listed)} checks: {wrong} wrong, {warned} to look at")


def _said(finding: Finding) -> str:
    return f"{finding.where}: {finding.what}" if finding.where else finding.what
