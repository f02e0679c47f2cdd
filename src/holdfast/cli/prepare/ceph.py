"""`holdfast prepare ceph`: a pool, a user with the least rights, a Secret and a StorageClass."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import yaml

from holdfast.api import errors as api_errors
from holdfast.api import kinds
from holdfast.backends.rbd import manifests, preparing
from holdfast.cli import session, terminal
from holdfast.kit import files

_HIDDEN = "(not shown; use --output, --apply or --show-secrets)"


@click.command("ceph")
@terminal.data_dir_option
@click.option("--conf", type=click.Path(path_type=Path), default=preparing.CONFIGURATION)
@click.option("--keyring", type=click.Path(path_type=Path), help="The administrator's keyring.")
@click.option("--admin", default="admin", help="The administrator, without `client.`.")
@click.option("--pool", default="kube", help="Pool for images.")
@click.option("--data-pool", default="", help="Pool for their data, where it is another one.")
@click.option("--user", default="kube", help="User to make, without `client.`.")
@click.option("--pg-num", type=int, default=preparing.PLACEMENT_GROUPS)
@click.option(
    "--provisioner", type=click.Choice(manifests.PROVISIONERS), default=manifests.PROVISIONERS[0]
)
@click.option("--class-name", default="ceph-rbd", help="Name of the StorageClass.")
@click.option("--secret-name", default="ceph-rbd")
@click.option("--namespace", default="kube-system", help="Namespace of the Secret.")
@click.option("--default", "default_class", is_flag=True, help="Make it the default class.")
@click.option("--monitors", default="", help="Addresses for the class, if not the cluster's own.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the manifests to a file.")
@click.option("--apply", "apply_now", is_flag=True, help="Create them in the API.")
@click.option("--show-secrets", is_flag=True, help="Print the key with the manifests.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be done.")
def command(data_dir: Path, **given: Any) -> None:
    """Make a Ceph cluster ready: pool, user, least rights, Secret, StorageClass.

    Run it where the cluster's configuration and administrator's keyring are. It may be repeated.
    """
    wish = preparing.Wish(given["pool"], given["user"], given["data_pool"], given["pg_num"])
    names = manifests.Names(
        given["provisioner"],
        given["class_name"],
        given["secret_name"],
        given["namespace"],
        given["default_class"],
    )
    ready = preparing.prepare(
        wish,
        configuration=given["conf"],
        admin=given["admin"],
        keyring=given["keyring"],
        dry_run=given["dry_run"],
    )
    _report(ready, dry_run=given["dry_run"])
    monitors = tuple(given["monitors"].split(",")) if given["monitors"] else ready.monitors
    objects = [
        manifests.secret(names, wish.user, ready.key),
        manifests.storage_class(names, monitors, wish.pool, wish.user, wish.data_pool),
    ]
    if given["dry_run"] or not (given["output"] or given["apply_now"]):
        shown = given["show_secrets"] and not given["dry_run"]
        terminal.say(_text(objects if shown else [_without_values(objects[0]), objects[1]]))
        return
    if given["output"]:
        files.write_atomic(given["output"], _text(objects).encode())
        terminal.note(f"wrote {given['output']} (mode 600: it holds the key)")
    if given["apply_now"]:
        asyncio.run(_apply(data_dir, objects))


def _report(ready: preparing.Ready, *, dry_run: bool) -> None:
    for step in ready.steps:
        word = ("would make" if dry_run else "made") if step.changed else "found"
        terminal.note(f"{word}: {step.what}")


def _without_values(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "data": dict.fromkeys(obj["data"], _HIDDEN)}


def _text(objects: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(objects, sort_keys=False).rstrip()


async def _apply(data_dir: Path, objects: list[dict[str, Any]]) -> None:
    """Create the objects; a Secret that exists gets the new values, a class has to be equal."""
    secret, storage_class = objects
    async with session.api(data_dir) as client:
        name, namespace = secret["metadata"]["name"], secret["metadata"]["namespace"]
        try:
            await client.create(kinds.SECRET, secret, namespace)
            terminal.note(f"created secret {namespace}/{name}")
        except api_errors.AlreadyExists as error:
            found = await client.get(kinds.SECRET, name, namespace)
            if found.get("type", "Opaque") != secret["type"]:
                raise terminal.CommandError(
                    f"secret {namespace}/{name} exists with the type {found.get('type')}, and "
                    f"{secret['type']} is needed; a type cannot be changed: delete it "
                    f"(kubectl -n {namespace} delete secret {name}), or use --secret-name"
                ) from error
            await client.patch(kinds.SECRET, name, {"data": secret["data"]}, namespace)
            terminal.note(f"updated secret {namespace}/{name}")
        try:
            await client.create(kinds.STORAGE_CLASS, storage_class)
            terminal.note(f"created storageclass {storage_class['metadata']['name']}")
        except api_errors.AlreadyExists as error:
            await _compare(client, storage_class, error)


async def _compare(client: Any, wanted: dict[str, Any], error: Exception) -> None:
    name = wanted["metadata"]["name"]
    found = await client.get(kinds.STORAGE_CLASS, name)
    if any(found.get(key) != wanted[key] for key in ("provisioner", "parameters")):
        raise terminal.CommandError(
            f"storageclass {name} exists and differs; a class cannot be changed: "
            f"delete it (kubectl delete storageclass {name}), or use --class-name"
        ) from error
    terminal.note(f"found storageclass {name}")
