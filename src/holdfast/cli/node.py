"""`holdfast node`: the nodes of a running Holdfast, and Holdfast on a node of a cluster.

`stop` is a power cut, `cut` a lost network, `start` repairs both. Whether Kubernetes thinks a node
is well is asked from the API, what was done to it from the control socket.

`serve` is another matter: it serves a kubelet on this machine as CSI drivers, without any `up`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from holdfast.cli import connection, foreground, status, terminal
from holdfast.kit import logs
from holdfast.server import config, control, kubeconfig

_DONE = {
    "start": "Node {} runs and is connected.",
    "stop": "Node {} is stopped, as by a power cut; its disks are kept.",
    "cut": "Node {} is cut off; its pods go on, the API hears nothing from it.",
}


@click.group("node")
def command() -> None:
    """List the nodes, stop, start and cut off one, or serve a cluster's kubelet."""


@command.command("list")
@terminal.data_dir_option
def show(data_dir: Path) -> None:
    """Show every node, what was done to it and what the API thinks of it."""
    states = _ask(data_dir, "list")
    with connection.Connection(kubeconfig.read(kubeconfig.path_in(data_dir))) as api:
        nodes = {obj["metadata"]["name"]: obj for obj in api.items("/api/v1/nodes")}
        pods = api.items("/api/v1/pods")
    rows = [("NAME", "STATE", "STATUS", "PODS")]
    for name, state in states.items():
        seen = status.phase_of("nodes", nodes[name]) if name in nodes else "unknown"
        count = sum(pod["spec"].get("nodeName") == name for pod in pods)
        rows.append((name, state, seen, str(count)))
    for line in terminal.table(rows, indent=""):
        terminal.say(line)


def _verb(verb: str, text: str) -> None:
    @terminal.data_dir_option
    @click.argument("name")
    def run(data_dir: Path, name: str) -> None:
        _ask(data_dir, verb, name)
        terminal.say(_DONE[verb].format(name))

    command.command(verb, help=text)(run)


def _ask(data_dir: Path, verb: str, node: str = "") -> dict[str, str]:
    try:
        return control.ask(data_dir, verb, node)
    except control.ControlError as error:
        raise terminal.CommandError(str(error)) from error


_verb("start", "Power a node on, or connect it again.")
_verb("stop", "Power a node off: its agent and pods end, its disks are kept.")
_verb("cut", "Cut a node's network to the API: its pods go on, nobody hears of them.")


@command.command("serve")
@terminal.data_dir_option
@click.option(
    "--driver",
    "drivers",
    multiple=True,
    required=True,
    metavar="NAME",
    help="CSI driver name to serve; may be given several times.",
)
@click.option(
    "--kubelet-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/var/lib/kubelet"),
    show_default=True,
    help="Kubelet's directory: sockets go to plugins/ and plugins_registry/ below it.",
)
@click.option(
    "--controller",
    is_flag=True,
    help="Serve the Controller service too, as a local driver needs on every node.",
)
@click.option(
    "--node-name",
    envvar="NODE_NAME",
    metavar="NAME",
    help="Name of this machine's Node. Default: $NODE_NAME, else the host name.",
)
@click.option(
    "--max-volumes",
    type=click.IntRange(0),
    default=0,
    metavar="COUNT",
    help="Volumes of each driver this node takes. Default: what the storage system says.",
)
@click.option(
    "--health",
    metavar="ADDR:PORT",
    callback=foreground.parse_address,
    help="Answer /healthz there. Default: nowhere.",
)
@click.option("--log-level", type=click.Choice(config.LEVELS), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(config.FORMATS), default="text", show_default=True)
def serve(
    data_dir: Path,
    drivers: tuple[str, ...],
    kubelet_dir: Path,
    controller: bool,
    node_name: str | None,
    max_volumes: int,
    health: tuple[str, int] | None,
    log_level: str,
    log_format: str,
) -> None:
    """Serve this machine's kubelet as CSI drivers and register them with it."""
    foreground.require("csi", "grpc")
    from holdfast.server import csi

    logs.setup(log_level, "json" if log_format == "json" else "text", sys.stderr)
    kubelet = kubelet_dir.absolute()
    settings = csi.Settings(
        data_dir=data_dir,
        node_name=node_name or config.default_node_name(),
        sockets=csi.kubelet_sockets(kubelet, drivers),
        controller=controller,
        max_volumes=max_volumes,
        kubelet=kubelet,
        health=health,
        storage=csi.storage(data_dir),
    )
    foreground.run(
        csi.serve(settings, lambda: terminal.say(f"Serving {', '.join(drivers)} for {kubelet}"))
    )
