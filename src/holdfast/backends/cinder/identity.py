"""Which server of Nova this machine is, from what the machine itself can find out.

Two sources, in the order of `[Metadata] search-order`: the config drive, a
small disk with the label config-2, and the metadata service. After them the
file that cloud-init leaves, read with care: what it holds is an id of Nova only
if cloud-init found OpenStack's data. `iid-datasource-none` means it found none,
`i-00000001` that it found EC2's.

Invariant: an id that is returned has the form of a server's id.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.backends import blockdevices, errors, mountinfo
from holdfast.backends.cinder.clouds import is_uuid
from holdfast.kit import process

LABELS = ("config-2", "CONFIG-2")
# Where people and distributions mount the config drive.
MOUNTED = ("mnt/config", "media/configdrive", "run/config-2")
META_DATA = "openstack/latest/meta_data.json"
CLOUD_INIT = "var/lib/cloud/data/instance-id"
SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Identity:
    """The server's id, its availability zone ('' when not known), and who said so."""

    id: str
    zone: str
    source: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look: the machine's files below `root`, the metadata service at `url`."""

    root: Path
    url: str


async def find(machine: Machine, order: tuple[str, ...]) -> Identity:
    """Return who this machine is. Raises errors.NotFound with what every source said."""
    said = []
    for source in (*order, "cloud-init"):
        try:
            return await ask(machine, source)
        except errors.BackendError as error:
            said.append(f"{source}: {error.what}")
    raise errors.NotFound(
        "this machine does not know which server of Nova it is: " + "; ".join(said),
        str(machine.root),
        "attach a config drive, or let the machine reach the metadata service, or install "
        "cloud-init with the OpenStack datasource",
    )


async def ask(machine: Machine, source: str) -> Identity:
    """Ask one source. Raises errors.NotFound, Invalid, Unavailable."""
    if source == "configDrive":
        return _identity(await _config_drive(machine.root), "config drive")
    if source == "metadataService":
        return _identity(await asyncio.to_thread(_fetch, machine.url), "metadata service")
    return Identity(cloud_init_id(machine.root), "", "cloud-init")


def cloud_init_id(root: Path) -> str:
    """Return the server's id from cloud-init's file. Raises NotFound, Invalid."""
    path = root / CLOUD_INIT
    try:
        content = path.read_text(errors="replace").strip()
    except OSError as error:
        raise errors.NotFound(f"{path} cannot be read ({error.strerror})", str(path)) from error
    if content == "iid-datasource-none":
        raise errors.Invalid("cloud-init found no datasource (iid-datasource-none)", str(path))
    if content.startswith("i-"):
        raise errors.Invalid(
            f"cloud-init used EC2's metadata: {content} is no id of Nova's",
            str(path),
            "set datasource_list: [OpenStack, ConfigDrive] in /etc/cloud/cloud.cfg",
        )
    if not is_uuid(content):
        raise errors.Invalid(f'"{content[:60]}" is no id of a server', str(path))
    return content.lower()


async def _config_drive(root: Path) -> bytes:
    for place in MOUNTED:
        path = root / place / META_DATA
        if path.is_file():
            return path.read_bytes()
    device = next(
        (root / "dev/disk/by-label" / each for each in LABELS if _exists(root, each)), None
    )
    if device is None:
        raise errors.NotFound("there is no disk with the label config-2", str(root))
    for mount in mountinfo.of_device(blockdevices.number_of(device), device.resolve()):
        path = Path(mount.point) / META_DATA
        if path.is_file():
            return path.read_bytes()
    return await _mounted(device)


def _exists(root: Path, label: str) -> bool:
    return (root / "dev/disk/by-label" / label).exists()


async def _mounted(device: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="holdfast-config-") as directory:
        try:
            await process.run(["mount", "-o", "ro", str(device), directory])
        except process.CommandFailed as error:
            raise errors.Unavailable(f"cannot be mounted: {error}", str(device)) from error
        try:
            return (Path(directory) / META_DATA).read_bytes()
        except OSError as error:
            raise errors.NotFound(f"has no {META_DATA}", str(device)) from error
        finally:
            await process.run(["umount", directory])


def _fetch(url: str) -> bytes:
    address = f"{url.rstrip('/')}/{META_DATA}"
    try:
        # Never through a proxy: the address means something on this machine only.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=SECONDS) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        error.close()
        raise errors.Unavailable(f"answers with status {error.code}", address) from error
    except OSError as error:
        raise errors.Unavailable(f"does not answer ({error})", address) from error


def _identity(content: bytes, source: str) -> Identity:
    try:
        found: Mapping[str, Any] = json.loads(content)
        id = str(found["uuid"]).lower()
    except (ValueError, KeyError, TypeError) as error:
        raise errors.Invalid(f"{META_DATA} has no uuid", source) from error
    if not is_uuid(id):
        raise errors.Invalid(f'"{id[:60]}" is no id of a server', source)
    return Identity(id, str(found.get("availability_zone") or ""), source)
