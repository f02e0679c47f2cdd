"""The clusters of holdfast.toml: one section `[rbd.NAME]` for each.

    [rbd.main]
    monitors = ["10.0.0.1:6789", "10.0.0.2:6789"]
    cluster_id = "b9127830-b0cc-4e34-aa47-9d1a2e9949a8"   # what ceph-csi's classes call it
    user = "kube"
    key_file = "/etc/holdfast/ceph.key"                    # a key or a keyring, mode 600
    pool = "kube"

Only `monitors` has to be there; a key may come with each class instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.rbd import credentials, ids, parameters
from holdfast.backends.rbd.credentials import Credentials
from holdfast.kit import suggest

KEYS = (
    "monitors",
    "cluster_id",
    "user",
    "key_file",
    "pool",
    "data_pool",
    "rados_namespace",
    "mounter",
)


@dataclass(frozen=True, slots=True)
class Instance:
    """One configured cluster; texts are empty where nothing was said."""

    name: str
    monitors: tuple[str, ...]
    cluster_id: str = ""
    user: str = ""
    key_file: str = ""
    pool: str = ""
    data_pool: str = ""
    namespace: str = ""
    mounter: str = ""

    def credentials(self) -> Credentials | None:
        """Read the key file anew, so that a changed key is used; None without one."""
        return credentials.of_file(Path(self.key_file), self.user) if self.key_file else None


def read(instances: Mapping[str, Mapping[str, object]]) -> dict[str, Instance]:
    """Check the sections. Raises errors.Invalid naming the place and the nearest key."""
    return {name: _instance(name, dict(section)) for name, section in instances.items()}


def _instance(name: str, section: dict[str, object]) -> Instance:
    where = f"[rbd.{name}]"
    ids.check_name(name, "cluster in holdfast.toml")
    for key in section:
        if key not in KEYS:
            raise errors.Invalid(f'unknown key "{key}"', where, suggest.hint(key, KEYS))
    monitors = _monitors(section.pop("monitors", None), where)
    for key, value in section.items():
        if not isinstance(value, str):
            raise errors.Invalid(f'"{key}" is not a text', where, f'write {key} = "..."')
    texts = {key: str(value) for key, value in section.items()}
    mounter = texts.get("mounter", "")
    if mounter and mounter not in ("auto", *parameters.MAPPERS):
        raise errors.Invalid(
            f'"mounter" cannot be "{mounter}"',
            where,
            f"possible: auto, {', '.join(parameters.MAPPERS)}",
        )
    texts["namespace"] = texts.pop("rados_namespace", "")
    return Instance(name=name, monitors=monitors, **texts)


def _monitors(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = list(ids.split_monitors(value))
    if not isinstance(value, list) or not value or not all(isinstance(m, str) for m in value):
        raise errors.Invalid(
            '"monitors" is missing or not a list of addresses',
            where,
            'write monitors = ["HOST:6789", ...]',
        )
    return tuple(value)
