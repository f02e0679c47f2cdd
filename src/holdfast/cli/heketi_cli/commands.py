"""The command tree of `heketi-cli`."""

from __future__ import annotations

import click

from holdfast import __version__
from holdfast.cli.heketi_cli import clusters, devices, nodes, server, storage, topology, volumes
from holdfast.cli.heketi_cli.session import GlobalFlags


@click.group(
    "heketi-cli",
    cls=GlobalFlags,
    epilog="Global flags, at any place: -s/--server URL (HEKETI_CLI_SERVER), --user NAME "
    "(HEKETI_CLI_USER), --secret KEY (HEKETI_CLI_KEY), --json, -I/--insecure-tls, "
    "-C/--tls-cert FILE.",
)
@click.version_option(
    __version__, "-v", "--version", prog_name="heketi-cli", message="%(prog)s %(version)s"
)
def command() -> None:
    """Command line program for Heketi."""


for group in (
    clusters.group,
    nodes.group,
    devices.group,
    devices.brick,
    volumes.group,
    volumes.block,
    topology.group,
    server.group,
    server.db,
    server.loglevel,
):
    command.add_command(group)
for name in storage.NAMES:
    command.add_command(storage.setup, name)
