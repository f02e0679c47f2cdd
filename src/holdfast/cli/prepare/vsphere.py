"""`holdfast prepare vsphere`: roles, tags, folder, node VMs, disks, files.

Every command prints what it does. With `--dry-run` nothing is changed, and the govc command
with the same effect stands for each step that is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from holdfast.cli import session, terminal
from holdfast.kit import files as files_kit
from holdfast.server import config

T = TypeVar("T")

_instance = click.option(
    "--instance", default="", help="Which [vsphere.NAME]; the first if absent."
)
_dry = click.option("--dry-run", is_flag=True, help="Change nothing; print the govc commands.")


@click.group("vsphere")
def command() -> None:
    """Make a vCenter ready: roles, tags, folder, node VMs, disks and files."""


def _with(data_dir: Path, instance: str, work: Callable[[Any, Any], Awaitable[T]]) -> T:
    """Call `work` with the gateway and the link to an instance's vCenter."""
    from holdfast.backends.vsphere import configuration
    from holdfast.backends.vsphere.gateway import Gateway

    found = config.load(data_dir).storage.get("vsphere", {})
    workspaces = configuration.read(found)
    if instance and instance not in workspaces:
        names = ", ".join(workspaces) or "none"
        raise terminal.CommandError(f"there is no [vsphere.{instance}]; there are: {names}")

    async def run() -> T:
        gateway = Gateway(workspaces)
        gateway.logins.use(session.secret_source(data_dir))
        try:
            home = workspaces[instance].home.name if instance else gateway.home.home.name
            return await work(gateway, gateway.link(home))
        finally:
            await gateway.close()

    return asyncio.run(run())


def _steps(data_dir: Path, instance: str, dry: bool, make: Callable[[Any], Sequence[Any]]) -> None:
    from holdfast.backends.vsphere import preparing

    async def work(gateway: Any, link: Any) -> None:
        steps = await gateway.run(make, link)
        for step in steps:
            if dry:
                done = await gateway.run(lambda _, one: one.done(), link, step)
                terminal.say(f"# done already: {step.what}" if done else step.govc)
                continue
            [(_, changed)] = await gateway.run(preparing.run, link, [step])
            terminal.say(f"{'done   ' if changed else 'already'}  {step.what}")

    _with(data_dir, instance, work)


@command.command("roles")
@terminal.data_dir_option
@_instance
@_dry
@click.option("--mode", default="policy", help="static, dynamic, policy or platform.")
@click.option("--role", default="", help="Name of the role. Default: holdfast-MODE.")
@click.option("--principal", default="", help="User that gets the role, as user@domain.")
def roles(
    data_dir: Path, instance: str, dry_run: bool, mode: str, role: str, principal: str
) -> None:
    """Make the role of a mode, and give it to a user where it is needed."""
    from holdfast.backends.vsphere import preparing

    name = role or f"holdfast-{mode}"
    _steps(
        data_dir,
        instance,
        dry_run,
        lambda link: preparing.role_steps(link, mode, name, principal),
    )


@command.command("tags")
@terminal.data_dir_option
@_instance
@_dry
@click.option("--region", multiple=True, help="REGION=ZONE,ZONE: tags to make. May be repeated.")
@click.option("--attach", multiple=True, help="TAG=/inventory/path. May be repeated.")
def tags(
    data_dir: Path, instance: str, dry_run: bool, region: Sequence[str], attach: Sequence[str]
) -> None:
    """Make tag categories and tags of regions and zones, and attach them."""
    from holdfast.backends.vsphere import preparing

    regions = {name: zones.split(",") if zones else [] for name, zones in map(_pair, region)}
    pairs = [_pair(each) for each in attach]

    def make(link: Any) -> Sequence[Any]:
        wanted = link.workspace.tags
        return preparing.tag_steps(
            link,
            wanted.region_category or "k8s-region",
            wanted.zone_category or "k8s-zone",
            regions,
            pairs,
        )

    _steps(data_dir, instance, dry_run, make)


@command.command("folder")
@terminal.data_dir_option
@_instance
@_dry
def folder(data_dir: Path, instance: str, dry_run: bool) -> None:
    """Make the VM folder that the configuration names."""
    from holdfast.backends.vsphere import preparing

    def make(link: Any) -> Sequence[Any]:
        if not link.workspace.folder:
            raise terminal.CommandError("the configuration names no folder")
        return preparing.folder_steps(link, link.workspace.datacenter, link.workspace.folder)

    _steps(data_dir, instance, dry_run, make)


@command.command("nodes")
@terminal.data_dir_option
@_instance
@_dry
def nodes(data_dir: Path, instance: str, dry_run: bool) -> None:
    """Set disk.enableUUID on every node VM."""
    from holdfast.backends.vsphere import preparing

    _steps(data_dir, instance, dry_run, preparing.node_steps)


@command.command("disk")
@terminal.data_dir_option
@_instance
@_dry
@click.option("--datastore", required=True, help="Datastore.")
@click.option("--size", required=True, help="10G, 512M.")
@click.option(
    "--format", "disk_format", default="thin", help="thin, zeroedthick, eagerzeroedthick."
)
@click.argument("path")
def disk(
    data_dir: Path,
    instance: str,
    dry_run: bool,
    datastore: str,
    size: str,
    disk_format: str,
    path: str,
) -> None:
    """Make a VMDK by hand, DIRECTORY/NAME.vmdk, for a static volume."""
    from holdfast.backends.vsphere import parameters, preparing

    if disk_format not in parameters.FORMATS:
        raise terminal.CommandError(f"--format is one of {', '.join(parameters.FORMATS)}")
    wanted = preparing.parse_size(size)
    _steps(
        data_dir,
        instance,
        dry_run,
        lambda link: preparing.disk_steps(link, datastore, path, wanted, disk_format),
    )


@command.command("files")
@terminal.data_dir_option
@_instance
@click.option("--show-secrets", is_flag=True, help="Write passwords instead of asterisks.")
@click.argument("what", type=click.Choice(["conf", "secret", "class"]))
def files(data_dir: Path, instance: str, show_secrets: bool, what: str) -> None:
    """Print vsphere.conf, the Secret with the credentials, or a class."""
    from holdfast.backends.vsphere import documents

    async def work(gateway: Any, link: Any) -> str:
        workspace = link.workspace
        if what == "conf":
            return documents.vsphere_conf(workspace, secrets=show_secrets)
        if what == "secret":
            return _yaml(
                documents.secret(workspace, "vsphere", "kube-system", secrets=show_secrets)
            )
        store = {"datastore": workspace.default_datastore} if workspace.default_datastore else {}
        return _yaml(documents.storage_class("vsphere", {"diskformat": "thin", **store}, csi=False))

    terminal.say(_with(data_dir, instance, work).rstrip())


@command.command("packer")
@terminal.data_dir_option
@_instance
@click.option("--write", is_flag=True, help="Make FILE from the configuration and the options.")
@click.option("--cluster", default="", help="With --write: cluster in which the image is built.")
@click.option("--network", default="", help="With --write: network of the VM that is built.")
@click.option("--pool", default="Resources", help="With --write: resource pool of the cluster.")
@click.option("--datastore", default="", help="With --write. Default: the configured one.")
@click.option("--folder", default="", help="With --write. Default: the node VMs' folder.")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
def packer(data_dir: Path, instance: str, write: bool, path: Path, **options: str) -> None:
    """Check an image build's variables, vsphere.auto.pkrvars.hcl, against the vCenter."""
    from holdfast.backends.vsphere import documents

    given = {} if write else documents.read_packer(_text(path), str(path))

    async def work(gateway: Any, link: Any) -> tuple[dict[str, str], list[str]]:
        values = given
        if write:
            values = await gateway.run(lambda to: documents.packer_values(to, **options), link)
        return values, await gateway.run(documents.check_packer, link, values)

    if write and path.exists():
        raise terminal.CommandError(
            f"{path} exists already; remove it, or check it without --write"
        )
    values, wrong = _with(data_dir, instance, work)
    for line in wrong:
        terminal.say(line)
    if wrong:
        raise terminal.CommandError(f"{path}: {len(wrong)} of the values are not in the vCenter")
    if write:
        # It holds the password.
        files_kit.write_atomic(path, documents.packer(values).encode(), mode=0o600)
        terminal.say(f"{path} is written, readable by its owner only: it holds the password")
    terminal.say("every cluster, datastore, folder, pool and network is there")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise terminal.CommandError(f"{path} cannot be read ({why})") from error


@command.command("metallb")
@terminal.data_dir_option
@_instance
@click.option("--network", default="", help="VLAN of routers and nodes: looked up in the vCenter.")
@click.option("--frontend", default="", help="Label of the nodes that announce, KEY or KEY=VALUE.")
@click.option("--router", multiple=True, required=True, help="Address of a BGP router.")
@click.option("--router-asn", type=int, required=True, help="Its autonomous system.")
@click.option("--asn", type=int, required=True, help="The cluster's autonomous system.")
@click.option("--range", "ranges", multiple=True, required=True, help="Addresses to announce.")
@click.option("--name", default="frontend", help="Name of the pool.")
def metallb(
    data_dir: Path,
    instance: str,
    network: str,
    frontend: str,
    router: Sequence[str],
    router_asn: int,
    asn: int,
    ranges: Sequence[str],
    name: str,
) -> None:
    """Print MetalLB's objects for BGP from the five values it asks for."""
    from holdfast.backends.vsphere import documents

    async def work(gateway: Any, link: Any) -> None:
        await gateway.run(documents.check_network, link, network)

    made = documents.metallb(
        router, router_asn, asn, ranges, name, network=network, frontend=frontend
    )
    if network:
        _with(data_dir, instance, work)
    terminal.say(_yaml(*made).rstrip())


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _yaml(*objects: object) -> str:
    return yaml.safe_dump_all(objects, sort_keys=False, explicit_start=len(objects) > 1)
