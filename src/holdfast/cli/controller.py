"""`holdfast controller`: provisioner, attacher, resizer and snapshotter for a real cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from holdfast.cli import foreground, terminal
from holdfast.kit import logs
from holdfast.server import config


@click.command("controller")
@terminal.data_dir_option
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The cluster. Default: $KUBECONFIG, the pod's service account, or ~/.kube/config.",
)
@click.option(
    "--leader-elect/--no-leader-elect",
    default=True,
    show_default=True,
    help="Work only while holding the Lease holdfast-controller, so that replicas may wait.",
)
@click.option(
    "--lease-namespace",
    envvar="POD_NAMESPACE",
    metavar="NAMESPACE",
    help="Where the Lease is. Default: $POD_NAMESPACE, else the namespace of the access.",
)
@click.option(
    "--except",
    "skip",
    multiple=True,
    metavar="NAME",
    help="A provisioner or driver name to leave to others; may be repeated.",
)
@click.option(
    "--take-over",
    multiple=True,
    metavar="DRIVER",
    help="Serve a driver although a CSIDriver that is not Holdfast's stands for it.",
)
@click.option(
    "--local-node",
    metavar="NAME",
    help="Make local volumes too, on this machine, which is that node. For one node only.",
)
@click.option(
    "--snapshot-controller",
    is_flag=True,
    help="Be the cluster's snapshot-controller too. Say so where there is no other.",
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
    kubeconfig: Path | None,
    leader_elect: bool,
    lease_namespace: str | None,
    skip: tuple[str, ...],
    take_over: tuple[str, ...],
    local_node: str | None,
    snapshot_controller: bool,
    health: tuple[str, int] | None,
    log_level: str,
    log_format: str,
) -> None:
    """Serve a cluster's claims from the storage systems in holdfast.toml until stopped.

    The first signal ends it in order and gives the lease to another replica at once.
    """
    from holdfast.runtime import access
    from holdfast.server import cluster

    logs.setup(log_level, "json" if log_format == "json" else "text", sys.stderr)
    found = access.find(kubeconfig)
    settings = cluster.Settings(
        data_dir=data_dir,
        storage=config.load(data_dir).storage,
        namespace=lease_namespace or found.namespace,
        skip=frozenset(skip),
        take_over=frozenset(take_over),
        local_node=local_node or "",
        snapshot_controller=snapshot_controller,
        leader_elect=leader_elect,
        health=health,
    )
    foreground.run(cluster.serve(found, settings))
