"""`heketi-cli device` and `heketi-cli brick`."""

from __future__ import annotations

import click

from holdfast.cli.heketi_cli import tagging, texts
from holdfast.cli.heketi_cli.connection import Failure
from holdfast.cli.heketi_cli.session import Session, flag, one, runs

_MISSING = "Device id missing"
_NO_HEAL = "Do not look whether the brick still has data that others miss."


@click.group("device")
def group() -> None:
    """Heketi device management."""


@group.command()
@click.option("--name", default="", help="The device, as the node names it.")
@click.option("--node", default="", help="Id of the node that has it.")
@flag("--destroy-existing-data", False, "Give up what is on it.")
@runs
def add(session: Session, name: str, node: str, destroy_existing_data: bool) -> None:
    """Add a device to a node."""
    if not name:
        raise Failure("Missing device name")
    if not node:
        raise Failure("Missing node id")
    body = {"name": name, "node": node, "destroydata": destroy_existing_data}
    session.api.post("/devices", body)
    click.echo("Device added successfully")


@group.command()
@click.argument("ids", nargs=-1)
@flag("--force-forget", False, "Forget it without touching the node.")
@runs
def delete(session: Session, ids: tuple[str, ...], force_forget: bool) -> None:
    """Delete a device."""
    key = one(ids, _MISSING)
    session.api.delete(f"/devices/{key}", {"forceforget": True} if force_forget else None)
    click.echo(f"Device {key} deleted")


@group.command()
@click.argument("ids", nargs=-1)
@flag("--expert-option-disable-heal-check", False, _NO_HEAL)
@runs
def remove(session: Session, ids: tuple[str, ...], expert_option_disable_heal_check: bool) -> None:
    """Move all bricks away from a device."""
    key = one(ids, _MISSING)
    heal = "disable" if expert_option_disable_heal_check else "enable"
    session.api.post(f"/devices/{key}/state", {"state": "failed", "healcheck": heal})
    click.echo(f"Device {key} is now removed")


@group.command()
@click.argument("ids", nargs=-1)
@runs
def info(session: Session, ids: tuple[str, ...]) -> None:
    """Retrieve information about a device."""
    session.show(session.api.get(f"/devices/{one(ids, _MISSING)}"), texts.device)


def _state(name: str, state: str, text: str) -> None:
    @group.command(name, help=text)
    @click.argument("ids", nargs=-1)
    @runs
    def change(session: Session, ids: tuple[str, ...]) -> None:
        key = one(ids, "device id missing")
        session.api.post(f"/devices/{key}/state", {"state": state})
        click.echo(f"Device {key} is now {state}")


_state("enable", "online", "Allow a device to be used.")
_state("disable", "offline", "Disallow usage of a device.")


@group.command()
@click.argument("ids", nargs=-1)
@flag("--cluster", False, "The id is a cluster's: all of its devices.")
@runs
def resync(session: Session, ids: tuple[str, ...], cluster: bool) -> None:
    """Measure a device again."""
    key = one(ids, "object/cluster id missing")
    if not cluster:
        session.api.get(f"/devices/{key}/resync")
        click.echo(f"Device {key} updated")
        return
    for node in session.api.get(f"/clusters/{key}")["nodes"]:
        for device in session.api.get(f"/nodes/{node}")["devices"]:
            click.echo(f"Now resyncing device {device['id']}..")
            session.api.get(f"/devices/{device['id']}/resync")
            click.echo(f"Device {device['id']} (node {node}) in cluster {key} updated")


tagging.add_to(group, "devices")


@click.group("brick")
def brick() -> None:
    """Heketi Brick Management."""


@brick.command()
@click.argument("ids", nargs=-1)
@flag("--expert-option-disable-heal-check", False, _NO_HEAL)
@runs
def evict(session: Session, ids: tuple[str, ...], expert_option_disable_heal_check: bool) -> None:
    """Move one brick to another device."""
    key = one(ids, "Brick id missing")
    heal = "disable" if expert_option_disable_heal_check else "enable"
    session.api.post(f"/bricks/to-evict/{key}", {"healcheck": heal})
    click.echo(f"Brick {key} evicted")
