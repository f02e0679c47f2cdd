"""`holdfast kubeconfig`: print the kubeconfig of a user, or say where the administrator's is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from holdfast.cli import terminal
from holdfast.server import kubeconfig

_ADMIN = "admin"
_VIEW = "view"
_NODE = "node:"


@click.command("kubeconfig")
@terminal.data_dir_option
@click.option("--path", "only_path", is_flag=True, help="Print the path instead of the content.")
@click.option(
    "--user",
    default=_ADMIN,
    metavar="admin|view|node:NAME",
    help="Whose: the administrator's (default), that of somebody who reads everything but "
    "secrets, or a node's.",
)
def command(data_dir: Path, only_path: bool, user: str) -> None:
    """Print a kubeconfig for kubectl. It contains the user's token.

    For this shell: export KUBECONFIG=$(holdfast kubeconfig --path)
    """
    if user not in (_ADMIN, _VIEW) and not user.removeprefix(_NODE):
        raise click.BadParameter("node: needs a name, as in node:NAME", param_hint="--user")
    if user not in (_ADMIN, _VIEW) and not user.startswith(_NODE):
        raise click.BadParameter(f"{user!r} is not admin, view or node:NAME", param_hint="--user")
    if only_path and user != _ADMIN:
        raise click.UsageError(
            "only the administrator's kubeconfig is kept in a file: leave out --path, "
            "and send what is printed to a file of your own"
        )
    path = kubeconfig.path_in(data_dir)
    access = kubeconfig.read(path)
    if user == _ADMIN:
        terminal.say(str(path) if only_path else path.read_text("utf-8").rstrip("\n"))
        return
    found = replace(access, token=_token_of(data_dir, user))
    terminal.say(kubeconfig.render(found, user.replace(":", "-")).rstrip("\n"))


def _token_of(data_dir: Path, user: str) -> str:
    from holdfast.server import pki

    wanted = pki.VIEWER if user == _VIEW else pki.node_user(user.removeprefix(_NODE))
    tokens = pki.read_tokens(data_dir / "pki")
    for token in tokens:
        if token.user == wanted:
            return token.token
    nodes = pki.node_user("")
    known = [_VIEW] if any(t.user == pki.VIEWER for t in tokens) else []
    known += [_NODE + t.user.removeprefix(nodes) for t in tokens if t.user.startswith(nodes)]
    raise terminal.CommandError(
        f"there is no token for {user} in {data_dir / 'pki' / 'tokens'} (there are: "
        f"{', '.join([_ADMIN, *known])}): Holdfast makes missing ones for its reader and its "
        "nodes when it starts, so restart it, or name another user"
    )
