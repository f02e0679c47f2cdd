"""`holdfast install`: print the manifests that install Holdfast on a cluster.

They are those of the Helm chart, rendered without Helm. Nothing is applied: that is kubectl's work,
with the rights of whoever runs it.
"""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import session, terminal


@click.command("install")
@click.option("--print", "do_print", is_flag=True, help="Print the manifests.")
@click.option(
    "--storage",
    multiple=True,
    metavar="KIND",
    help="Install Holdfast's own driver for ceph, openstack, vsphere, gluster or nfs; repeatable.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value of the chart, as for helm's --set; repeatable.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="holdfast.toml, which goes into a Secret.",
)
@click.option("-n", "--namespace", default="holdfast", show_default=True)
@click.option("--values", "show_values", is_flag=True, help="Print the values that can be set.")
def command(
    do_print: bool,
    storage: tuple[str, ...],
    settings: tuple[str, ...],
    config_path: Path | None,
    namespace: str,
    show_values: bool,
) -> None:
    """Print the manifests: holdfast install --print --storage ceph | kubectl apply -f -"""
    from holdfast.server.deploy import manifests

    if show_values:
        terminal.say(manifests.values_text().rstrip())
        return
    if not do_print:
        raise click.UsageError(
            "nothing is applied by this command: give --print and pipe it to kubectl apply -f -"
        )
    try:
        values = manifests.with_settings(manifests.defaults(), ["createNamespace=true"])
        for kind in storage:
            manifests.enable(values, session.kind_of(kind))
        if config_path is not None:
            values["config"] = config_path.read_text(encoding="utf-8")
        values = manifests.with_settings(values, settings)
        text = manifests.render(values, namespace)
    except manifests.InstallError as error:
        raise terminal.CommandError(str(error)) from error
    if not manifests.enabled(values):
        raise terminal.CommandError(
            "no driver is to be installed: name the storage, for example --storage ceph, or a "
            "driver with --set drivers.<name with \\. for each dot>.enabled=true"
        )
    terminal.say(text.rstrip())
