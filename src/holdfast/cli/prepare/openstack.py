"""`holdfast prepare openstack`: an application credential, cloud.conf, Secret and class."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from holdfast.cli import terminal


@click.command("openstack")
@click.option(
    "--cloud-conf",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Log in with this cloud.conf.",
)
@click.option(
    "--clouds-yaml",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Log in with a cloud of this file.",
)
@click.option("--cloud", default="", help="Which cloud of --clouds-yaml.")
@click.option("--name", default="holdfast", show_default=True, help="Of the credential.")
@click.option("--conf", type=click.Path(path_type=Path), help="Where cloud.conf is written.")
@click.option("--secret", default="cloud-config", show_default=True, help="Name of the Secret.")
@click.option("--namespace", default="kube-system", show_default=True, help="Of the Secret.")
@click.option("--class", "class_name", default="csi-sc-cinderplugin", show_default=True)
@click.option("--type", "type_", default="", help="Volume type of the class.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@click.option("--show-secrets", is_flag=True, help="Print the Secret with its value.")
@click.option("--remove", is_flag=True, help="Take the application credential back.")
def command(
    cloud_conf: Path | None,
    clouds_yaml: Path | None,
    cloud: str,
    name: str,
    conf: Path | None,
    secret: str,
    namespace: str,
    class_name: str,
    type_: str,
    dry_run: bool,
    show_secrets: bool,
    remove: bool,
) -> None:
    """Make a login of its own for Holdfast, and the files that use it.

    The manifests go to standard output: pipe them to `kubectl apply -f -` with --show-secrets.
    """
    from holdfast.backends.cinder import preparing

    if (cloud_conf is None) == (clouds_yaml is None) or bool(cloud) != (clouds_yaml is not None):
        raise click.UsageError("Give --cloud-conf FILE, or --clouds-yaml FILE and --cloud NAME.")
    login: dict[str, object] = {}
    if cloud_conf is not None:
        login["cloud_conf"] = str(cloud_conf.absolute())
    if clouds_yaml is not None:
        login |= {"clouds_yaml": str(clouds_yaml.absolute()), "cloud": cloud}
    plan = preparing.Plan(
        login,
        credential=name,
        secret=secret,
        namespace=namespace,
        storage_class=class_name,
        type=type_,
    )
    if remove:
        gone = asyncio.run(preparing.remove(plan, dry_run=dry_run))
        what = ("would be removed" if dry_run else "removed") if gone else "is not there"
        terminal.note(f'application credential "{name}" {what}')
        return
    path = conf or preparing.default_conf()
    if not dry_run:
        preparing.make_place(path)
    done = asyncio.run(preparing.prepare(plan, dry_run=dry_run))
    for step in (*done.steps, f"file {path}"):
        terminal.note(f"{'would make' if dry_run else 'made'}: {step}")
    if not dry_run:
        preparing.write(path, done.conf)
        terminal.note(f'add to holdfast.toml: [cinder.default] cloud_conf = "{path}"')
    terminal.say(done.shown(secrets=show_secrets).rstrip())
