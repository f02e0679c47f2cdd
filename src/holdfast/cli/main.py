"""The command group, and the one place where errors become text and exit codes.

Commands are loaded by name when they are called; the table holds what
`--help` prints about them. An error of a known family is shown as one line:
what happened, where, what to do. Any other exception is a defect of Holdfast
and keeps its traceback.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

import click

from holdfast import __version__
from holdfast.cli import terminal

# name: (module that defines the click command `command`, line in --help)
COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("holdfast.cli.up", "Start Holdfast on this machine."),
    "down": ("holdfast.cli.down", "Stop it; volumes and their data stay."),
    "status": ("holdfast.cli.status", "Show whether it runs, what it serves and what is wrong."),
    "kubeconfig": ("holdfast.cli.kubeconfig", "Print the kubeconfig, or its path."),
    "node": ("holdfast.cli.node", "List nodes; stop, start or cut off one; serve a kubelet."),
    "volumes": ("holdfast.cli.volumes", "Show each claim's volume, where it is, and orphans."),
    "check": ("holdfast.cli.check", "Check storage systems, this machine, classes and secrets."),
    "why": ("holdfast.cli.why", "Say why a claim, volume or pod waits, and what ends it."),
    "adopt": ("holdfast.cli.adopt", "Make an in-tree volume a csi volume; no data is copied."),
    "prepare": ("holdfast.cli.prepare", "Make a storage system ready for Kubernetes."),
    "install": ("holdfast.cli.install", "Print the manifests that install it on a cluster."),
    "controller": ("holdfast.cli.controller", "Serve a real cluster's claims."),
    "csi": ("holdfast.cli.csi", "Serve a CSI driver on a socket."),
    "heketi": ("holdfast.cli.heketi", "Manage GlusterFS clusters through Heketi's REST API."),
    "heketi-cli": ("holdfast.cli.heketi_cli", "The client of Heketi, command for command."),
    "demo": ("holdfast.cli.demo", "Get a claim, a volume and a pod, and show them."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(_unknown_command(args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="holdfast", message="%(prog)s %(version)s")
def group() -> None:
    """Give Kubernetes persistent volumes from the storage you already run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        result = group.main(
            None if argv is None else list(argv), prog_name="holdfast", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        terminal.complain("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, as in `holdfast status | head -1`.
        sys.stderr.close()
        return 1
    except Exception as error:
        text = _explain(error)
        if text is None:
            raise
        terminal.complain(text)
        return 1
    return result if isinstance(result, int) else 0


def _unknown_command(name: str) -> str:
    from holdfast.kit import suggest

    near = suggest.nearest(name, COMMANDS)
    hint = f"Did you mean {near}?" if near else f"Commands: {', '.join(COMMANDS)}."
    return f"No such command {name!r}. {hint}"


def _explain(error: BaseException) -> str | None:
    """Give the text of an error the user can act on, None for a defect."""
    from holdfast.backends import errors as backend_errors
    from holdfast.runtime import access
    from holdfast.server import address, cluster, config, kubeconfig, machines, pki, rundir
    from holdfast.store import errors as store_errors

    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    families = (
        terminal.CommandError,
        access.AccessError,
        address.AddressError,
        cluster.ClusterError,
        config.ConfigError,
        kubeconfig.KubeconfigError,
        machines.NodesError,
        pki.PkiError,
        rundir.RunDirError,
        store_errors.StoreError,
        backend_errors.BackendError,
    )
    return str(error) if isinstance(error, families) else None
