"""Which service a volume is at, and as whom it is asked.

The key comes from the call's secrets, from the file of a `[gluster.NAME]` section, or from a class
that carries it in `restuserkey`. Only the last is kept, in a file that nobody else can read: the
volume outlives the class, and deleting it needs the key. Addresses are kept there too, so that
volumes of classes can be listed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from holdfast.backends import errors
from holdfast.backends.gluster.identity import Connection
from holdfast.backends.gluster.rest import Credentials, Service
from holdfast.backends.gluster.settings import Instance
from holdfast.kit import files

FILE = "services.json"


class Connections:
    """All services of one backend; opened when they are first asked."""

    def __init__(self, instances: Mapping[str, Instance], directory: Path) -> None:
        self._instances = instances
        self._directory = directory
        self._services: dict[tuple[str, Path | None], Service] = {}
        # By connection: the key a class gave, or "".
        self._kept: dict[str, str] | None = None

    async def close(self) -> None:
        """Close all connections."""
        while self._services:
            _, service = self._services.popitem()
            await service.aclose()

    def service(self, connection: Connection) -> Service:
        """Return the service. Raises Invalid for an instance that is not configured."""
        instance = self._instance(connection)
        url = instance.url if connection.instance and instance else connection.url
        ca_file = instance.ca_file if instance is not None else None
        if (url, ca_file) not in self._services:
            try:
                self._services[url, ca_file] = Service(url, ca_file)
            except OSError as error:
                raise errors.Unavailable(
                    f"the certificates in {ca_file} cannot be used ({error})", url, "see ca_file"
                ) from error
        return self._services[url, ca_file]

    async def credentials(
        self, connection: Connection, secrets: Mapping[str, str], key: str = ""
    ) -> Credentials:
        """Return as whom to ask; `key` is what the class itself gives."""
        instance = self._instance(connection)
        user = connection.user
        if connection.instance and instance is not None:
            user = instance.user
        found = _of_secret(secrets) or key or (await self._read()).get(str(connection), "")
        if not found and instance is not None and user in ("", instance.user):
            user = instance.user
            if instance.key_file is not None:
                found = await asyncio.to_thread(_of_file, instance.key_file)
        return Credentials(user, found if user else "")

    async def keep(self, connection: Connection, key: str) -> None:
        """Remember a class's service, and its key if the class itself gives one."""
        kept = await self._read()
        if connection.instance or kept.get(str(connection)) == key:
            return
        if str(connection) in kept and not key:
            return
        self._kept = {**kept, str(connection): key}
        await asyncio.to_thread(self._write, self._kept)

    async def known(self) -> list[Connection]:
        """Return the configured services, then those that classes have named."""
        configured = [Connection(instance=name) for name in self._instances]
        return [*configured, *(Connection.parse(text) for text in sorted(await self._read()))]

    def configured(self) -> list[Connection]:
        """Return the services of the configuration."""
        return [Connection(instance=name) for name in self._instances]

    def can_clone(self, connection: Connection) -> bool:
        """Whether the configuration does not say otherwise."""
        instance = self._instance(connection)
        return instance is None or instance.clones

    def _instance(self, connection: Connection) -> Instance | None:
        if connection.instance:
            found = self._instances.get(connection.instance)
            if found is None:
                raise errors.Invalid(
                    f"there is no section [gluster.{connection.instance}]",
                    "holdfast.toml",
                    "write it again: volumes were made through it",
                )
            return found
        return next((i for i in self._instances.values() if i.url == connection.url), None)

    async def _read(self) -> dict[str, str]:
        if self._kept is None:
            self._kept = await asyncio.to_thread(_load, self._directory / FILE)
        return self._kept

    def _write(self, kept: dict[str, str]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomic(self._directory / FILE, msgspec.json.encode(kept), 0o600)


def _load(path: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise errors.Unavailable(
            f"cannot be read ({error})", str(path), "repair it, or move it away: keys are in it"
        ) from error


def _of_secret(secrets: Mapping[str, str]) -> str:
    """Return the key in a secret: under `key`, or else its only value."""
    if "key" in secrets:
        return secrets["key"]
    return next(iter(secrets.values())) if len(secrets) == 1 else ""


def _of_file(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.Unauthorized(
            "the key file cannot be read", str(path), "put the user's key into it, mode 0600"
        ) from error
