"""`holdfast csi`: one CSI driver on a unix socket, for the official sidecars and csi-sanity."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from holdfast.cli import foreground, terminal
from holdfast.kit import logs
from holdfast.server import config


@click.command("csi")
@terminal.data_dir_option
@click.option("--endpoint", required=True, metavar="unix:///PATH", help="The socket to serve on.")
@click.option(
    "--driver", required=True, metavar="NAME", help="CSI driver name, e.g. local.holdfast.dev."
)
@click.option("--controller", is_flag=True, help="Serve the Controller service.")
@click.option(
    "--node",
    "serves_node",
    is_flag=True,
    help="Serve the Node service. Default: both services.",
)
@click.option(
    "--node-name",
    envvar="NODE_NAME",
    metavar="NAME",
    help="Name of this machine's Node. Default: $NODE_NAME, else the host name.",
)
@click.option(
    "--topology",
    is_flag=True,
    help="Say that not every node reaches every volume. Always so for local volumes.",
)
@click.option(
    "--max-volumes",
    type=click.IntRange(0),
    default=0,
    metavar="COUNT",
    help="Volumes this node takes. Default: what the storage system says.",
)
@click.option(
    "--health",
    metavar="ADDR:PORT",
    callback=foreground.parse_address,
    help="Answer /healthz there. Default: nowhere.",
)
@click.option("--log-level", type=click.Choice(config.LEVELS), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(config.FORMATS), default="text", show_default=True)
def command(
    data_dir: Path,
    endpoint: str,
    driver: str,
    controller: bool,
    serves_node: bool,
    node_name: str | None,
    topology: bool,
    max_volumes: int,
    health: tuple[str, int] | None,
    log_level: str,
    log_format: str,
) -> None:
    """Serve one CSI driver on a socket until Ctrl-C or SIGTERM."""
    foreground.require("csi", "grpc")
    from holdfast.server import csi

    logs.setup(log_level, "json" if log_format == "json" else "text", sys.stderr)
    both = not controller and not serves_node
    settings = csi.Settings(
        data_dir=data_dir,
        node_name=node_name or config.default_node_name(),
        sockets=csi.own_socket(driver, endpoint),
        controller=controller or both,
        node=serves_node or both,
        topology=topology,
        max_volumes=max_volumes,
        health=health,
        storage=csi.storage(data_dir),
    )
    foreground.run(csi.serve(settings, lambda: terminal.say(f"Serving {driver} at {endpoint}")))
