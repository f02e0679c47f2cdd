"""`holdfast node`: the nodes of a running Holdfast, and what happens when one fails.

`stop` is a power cut, `cut` a lost network, `start` repairs both. Whether Kubernetes thinks a node
is well is asked from the API, what was done to it from the control socket.
"""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import connection, status, terminal
from holdfast.server import control, kubeconfig

_DONE = {
    "start": "Node {} runs and is connected.",
    "stop": "Node {} is stopped, as by a power cut; its disks are kept.",
    "cut": "Node {} is cut off; its pods go on, the API hears nothing from it.",
}


@click.group("node")
def command() -> None:
    """List the nodes, or stop, start and cut off one to see what happens."""


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
