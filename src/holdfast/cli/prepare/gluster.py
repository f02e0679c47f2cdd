"""`holdfast prepare gluster`: a topology file, a checked machine, manifests for Kubernetes.

Nothing is changed anywhere: files and manifests go to standard output, for `heketi-cli topology
load` and `kubectl apply`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys

import click
import yaml

from holdfast.backends import errors
from holdfast.backends.gluster.preparing import machine, manifests, topology
from holdfast.cli import terminal

_NODE = click.option(
    "--node",
    "words",
    multiple=True,
    required=True,
    metavar="NAME[=ADDRESS][@ZONE]:DEVICE[,DEVICE]",
    help="A node with its bare disks; repeat it for each.",
)


@click.group("gluster")
def command() -> None:
    """GlusterFS with Heketi: topology.json, machines, manifests."""


@command.command("topology")
@_NODE
def topology_command(words: tuple[str, ...]) -> None:
    """Print the topology.json of these nodes."""
    terminal.say(json.dumps(topology.document(_nodes(words)), indent=2))


@command.command("machine")
@click.option("--device", "devices", multiple=True, metavar="PATH", help="A disk to be used.")
def machine_command(devices: tuple[str, ...]) -> None:
    """Check this machine: bare disks, free ports, kernel modules, programs."""
    try:
        found = asyncio.run(machine.check(devices))
    except errors.BackendError as error:
        raise click.ClickException(str(error)) from error
    rows = [(f.check, f.severity, f"{f.where}: {f.what}" if f.where else f.what) for f in found]
    lines = list(terminal.table([("CHECK", "STATUS", "FINDING"), *rows], indent=""))
    terminal.say(lines[0])
    for line, finding in zip(lines[1:], found, strict=True):
        terminal.say(line)
        if finding.remedy and finding.severity != "ok":
            terminal.say(f"    -> {finding.remedy}")
    if any(finding.severity == "error" for finding in found):
        sys.exit(1)


@command.command("manifests")
@_NODE
@click.option("--namespace", default="default", show_default=True)
@click.option("--gluster-image", default=manifests.GLUSTER_IMAGE, show_default=True)
@click.option("--heketi-image", default=manifests.HEKETI_IMAGE, show_default=True)
@click.option("--show-secrets", is_flag=True, help="Make keys and print them; else placeholders.")
def manifests_command(
    words: tuple[str, ...],
    namespace: str,
    gluster_image: str,
    heketi_image: str,
    show_secrets: bool,
) -> None:
    """Print manifests: glusterd on labelled nodes, the Heketi service, a class."""
    nodes = _nodes(words)
    keys = {}
    if show_secrets:
        keys = {"admin_key": secrets.token_urlsafe(32), "user_key": secrets.token_urlsafe(32)}
    plan = manifests.Plan(
        topology=topology.document(nodes),
        namespace=namespace,
        gluster_image=gluster_image,
        heketi_image=heketi_image,
        **keys,
    )
    label = "=".join(manifests.LABEL)
    for node in nodes:
        terminal.say(f"# kubectl label node {node.name} {label}")
    # Through JSON, or what is used twice would be written as a reference.
    objects = json.loads(json.dumps(manifests.all_of(plan)))
    terminal.say(yaml.safe_dump_all(objects, sort_keys=False).rstrip())


def _nodes(words: tuple[str, ...]) -> list[topology.NodeWords]:
    try:
        nodes = topology.parse(words)
    except errors.Invalid as error:
        raise click.ClickException(str(error)) from error
    for line in topology.warnings(nodes):
        click.echo(f"warning: {line}", err=True)
    return nodes
