"""Files made from API objects: what config maps, secrets and the pod itself provide.

A volume's content is computed first, as a table of relative paths to bytes and modes,
and only then written, so that a missing key leaves nothing half-made. Projected
volumes merge several sources into one table.

The invariant: no path leaves the volume, whatever an object's keys or items say.
Contents are read when the pod starts and do not follow later changes of the objects.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from holdfast.api import errors, kinds, quantity, views
from holdfast.kit import files
from holdfast.runtime.client import Client

DEFAULT_MODE = 0o644


class ContentError(Exception):
    """The content cannot be made; the text goes into the pod's event."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume; `data` may be secret and is never logged."""

    data: bytes
    mode: int

    def __repr__(self) -> str:
        return f"File({len(self.data)} bytes, {self.mode:o})"


Table = dict[str, File]


async def of_entry(client: Client, pod: Mapping[str, Any], entry: views.PodVolume) -> Table | None:
    """Return the files of a configMap, secret, downwardAPI or projected volume, else None."""
    if entry.config_map is not None:
        return await _config_map(client, pod, entry.config_map, entry.config_map.get("name", ""))
    if entry.secret is not None:
        return await _secret(client, pod, entry.secret, entry.secret.get("secretName", ""))
    if entry.downward_api is not None:
        return _downward(pod, entry.downward_api)
    if entry.projected is not None:
        return await _projected(client, pod, entry.projected)
    return None


def write(table: Table, directory: Path, group: int | None) -> None:
    """Write the files beneath an existing directory; blocks, so call it from a thread."""
    for name, file in table.items():
        path = directory / name
        _make_parents(directory, PurePosixPath(name), group)
        mode = file.mode if group is None else file.mode | ((file.mode & 0o400) >> 3)
        files.write_atomic(path, file.data, mode)
        if group is not None:
            os.chown(path, -1, group)


def _make_parents(directory: Path, name: PurePosixPath, group: int | None) -> None:
    for parent in reversed(name.parents[:-1]):
        made = directory / parent
        if not made.is_dir():
            made.mkdir(mode=0o755)
            if group is not None:
                os.chown(made, -1, group)


async def _config_map(
    client: Client, pod: Mapping[str, Any], source: Mapping[str, Any], name: str
) -> Table:
    obj = await _fetch(client, kinds.CONFIG_MAP, pod, name, bool(source.get("optional")))
    if obj is None:
        return {}
    values = {key: text.encode() for key, text in (obj.get("data") or {}).items()}
    values |= {key: base64.b64decode(text) for key, text in (obj.get("binaryData") or {}).items()}
    return _select(values, source, "configmap references non-existent config key")


async def _secret(
    client: Client, pod: Mapping[str, Any], source: Mapping[str, Any], name: str
) -> Table:
    obj = await _fetch(client, kinds.SECRET, pod, name, bool(source.get("optional")))
    if obj is None:
        return {}
    values = {key: base64.b64decode(text) for key, text in (obj.get("data") or {}).items()}
    return _select(values, source, "references non-existent secret key")


async def _fetch(
    client: Client, kind: kinds.Kind, pod: Mapping[str, Any], name: str, optional: bool
) -> Mapping[str, Any] | None:
    try:
        return await client.get(kind, name, pod["metadata"]["namespace"])
    except errors.NotFound as error:
        if optional:
            return None
        raise ContentError(f'{kind.singular} "{name}" not found') from error


def _select(values: Mapping[str, bytes], source: Mapping[str, Any], missing: str) -> Table:
    """Apply `items`, `defaultMode` and `optional` of a source."""
    default = int(source.get("defaultMode", DEFAULT_MODE))
    items: Sequence[Mapping[str, Any]] | None = source.get("items")
    if not items:
        return {_inside(key): File(data, default) for key, data in values.items()}
    table: Table = {}
    for item in items:
        data = values.get(item["key"])
        if data is None:
            if source.get("optional"):
                continue
            raise ContentError(f"{missing}: {item['key']}")
        table[_inside(item["path"])] = File(data, int(item.get("mode", default)))
    return table


def _downward(pod: Mapping[str, Any], source: Mapping[str, Any]) -> Table:
    default = int(source.get("defaultMode", DEFAULT_MODE))
    table: Table = {}
    for item in source.get("items") or ():
        if "resourceFieldRef" in item:
            text: str | None = container_amount(pod, item["resourceFieldRef"])
        else:
            text = pod_field(pod, item.get("fieldRef", {}).get("fieldPath", ""))
        if text is None:
            raise ContentError(f"downwardAPI: the field of {item['path']} is not known")
        table[_inside(item["path"])] = File(text.encode(), int(item.get("mode", default)))
    return table


async def _projected(client: Client, pod: Mapping[str, Any], source: Mapping[str, Any]) -> Table:
    default = source.get("defaultMode", DEFAULT_MODE)
    table: Table = {}
    for part in source.get("sources") or ():
        if "configMap" in part:
            inner = {"defaultMode": default, **part["configMap"]}
            table |= await _config_map(client, pod, inner, inner.get("name", ""))
        elif "secret" in part:
            inner = {"defaultMode": default, **part["secret"]}
            table |= await _secret(client, pod, inner, inner.get("name", ""))
        elif "downwardAPI" in part:
            table |= _downward(pod, {"defaultMode": default, **part["downwardAPI"]})
        else:
            raise ContentError(f"projected source {', '.join(part) or '{}'} is not supported")
    return table


def pod_field(pod: Mapping[str, Any], path: str) -> str | None:
    """Return a field of the pod as the downward API writes it, or None for an unknown path."""
    meta = pod["metadata"]
    if path in ("metadata.labels", "metadata.annotations"):
        values: Mapping[str, str] = meta.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{_escape(value)}"' for key, value in sorted(values.items()))
    if path in ("metadata.name", "metadata.namespace", "metadata.uid"):
        return str(meta.get(path.removeprefix("metadata."), ""))
    for kind in ("labels", "annotations"):
        prefix = f"metadata.{kind}['"
        if path.startswith(prefix) and path.endswith("']"):
            return str((meta.get(kind) or {}).get(path[len(prefix) : -2], ""))
    return None


def container_amount(pod: Mapping[str, Any], reference: Mapping[str, Any]) -> str | None:
    """A container's limit or request in units of the divisor, rounded up; None for no such one."""
    spec = pod.get("spec", {})
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        if container["name"] == reference.get("containerName"):
            return amount_of(container.get("resources", {}), reference)
    return None


def amount_of(resources: Mapping[str, Any], reference: Mapping[str, Any]) -> str | None:
    """A limit or request in units of the divisor, rounded up; "0" where there is none."""
    part, _, name = str(reference.get("resource", "")).partition(".")
    if part not in ("limits", "requests"):
        return None
    text = (resources.get(part) or {}).get(name, "0")
    divisor = quantity.parse(reference.get("divisor") or "1").nanos or quantity.NANO
    return str(-(-quantity.parse(text).nanos // divisor))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _inside(path: str) -> str:
    """Return the path when it stays beneath the volume's directory."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ContentError(f'the path "{path}" leaves the volume')
    return str(PurePosixPath(*parts))
