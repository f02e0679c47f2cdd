"""`holdfast kubeconfig`: print the kubeconfig, or say where it is."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import terminal
from holdfast.server import kubeconfig


@click.command("kubeconfig")
@terminal.data_dir_option
@click.option("--path", "only_path", is_flag=True, help="Print the path instead of the content.")
def command(data_dir: Path, only_path: bool) -> None:
    """Print the kubeconfig for kubectl. It contains the administrator's token.

    For this shell: export KUBECONFIG=$(holdfast kubeconfig --path)
    """
    path = kubeconfig.path_in(data_dir)
    kubeconfig.read(path)
    terminal.say(str(path) if only_path else path.read_text("utf-8").rstrip("\n"))
