"""Names and ids of volumes, and what they say.

A volume is called after the request, so a repeat finds it. Its id holds all that is needed to find
it again without a class: which service, as whom, the volume's name and its id there. A bare Heketi
id, as volumes of the old in-tree plug-in have it, leaves the service open.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from holdfast.backends import errors

DEFAULT_PREFIX = "vol"
# Names are cut there; glusterd and the file systems of bricks allow more.
_LONGEST = 120
_HEKETI_ID = re.compile(r"[0-9a-f]{32}")
_PLAIN = re.compile(r"[a-zA-Z0-9-]+")


@dataclass(frozen=True, slots=True)
class Connection:
    """A service: an instance of the configuration, or a URL and the user to ask as."""

    instance: str = ""
    url: str = ""
    user: str = ""

    def __str__(self) -> str:
        if self.instance:
            return self.instance
        return f"{quote(self.user, safe='')}@{self.url}" if self.user else self.url

    @staticmethod
    def parse(text: str) -> Connection:
        """Read what `str` wrote."""
        if "://" not in text:
            return Connection(instance=text)
        user, at, url = text.partition("@")
        # A quoted user holds neither of the two signs.
        if not at or "://" in user:
            return Connection(url=text)
        return Connection(url=url, user=unquote(user))


@dataclass(frozen=True, slots=True)
class VolumeId:
    """Where a volume is. `connection` is None when only Heketi's id is known."""

    connection: Connection | None
    name: str
    heketi_id: str

    def __str__(self) -> str:
        if self.connection is None:
            return self.heketi_id
        return f"{self.connection}/{self.name}/{self.heketi_id}"

    @staticmethod
    def parse(text: str) -> VolumeId:
        """Read what `str` wrote. Raises NotFound for what no volume can be called."""
        if _HEKETI_ID.fullmatch(text):
            return VolumeId(None, "", text)
        parts = text.rsplit("/", 2)
        if len(parts) != 3 or not _HEKETI_ID.fullmatch(parts[2]) or not parts[0]:
            raise errors.NotFound("is no id of a GlusterFS volume", text)
        return VolumeId(Connection.parse(parts[0]), parts[1], parts[2])


def volume_name(request: str, prefix: str = "", owner: str = "") -> str:
    """Return the name for a request; `owner` is "namespace/claim" and shows after a prefix.

    Only letters, digits, `_` and `-` may stand in it.
    """
    tail = _plain(request)
    if not prefix:
        return f"{DEFAULT_PREFIX}_{tail}"
    middle = "_".join(re.sub(r"[^a-zA-Z0-9-]", "-", part) for part in owner.split("/") if part)
    room = _LONGEST - len(prefix) - len(tail) - 2
    return "_".join(part for part in (prefix, middle[: max(0, room)], tail) if part)


def _plain(name: str) -> str:
    if _PLAIN.fullmatch(name) and len(name) <= 64:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:24]
    shown = re.sub(r"[^a-zA-Z0-9-]", "-", name)[:24].strip("-")
    return f"{shown}-{digest}" if shown else digest
