"""`holdfast prepare KIND`: make a storage system ready for Kubernetes, or show what would be done.

Each module of this package is one storage system and defines a click command `command`. A module
is imported when its command is called or listed, and its package's logic only then.
"""

from __future__ import annotations

import importlib
import pkgutil

import click


class _Systems(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return found


@click.group("prepare", cls=_Systems)
def command() -> None:
    """Make a storage system ready: pool, user, rights, Secret, StorageClass."""
