"""The clouds that are configured, each with its connection, asked from a pool of threads.

A connection is opened when its cloud is first asked and kept. When the file it
came from has changed, or the login is refused and the file is another by now,
it is opened anew: credentials are replaced without a restart.

Volume ids: those of the first configured cloud (the one called `default` where
there is one) are Cinder's own, as in `cinder.csi.openstack.org`. Those of other
clouds have the cloud's name and a slash before them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from holdfast.backends import errors
from holdfast.backends.cinder import settings
from holdfast.backends.cinder.endpoint import Endpoint, Service
from holdfast.backends.cinder.settings import CloudSettings, Instance

# As many connections to one service as the HTTP library keeps open.
THREADS = 10
# How long a file that was looked at counts as unchanged, unless a login is refused.
LOOK_SECONDS = 1.0
CLOUD_KEY, CONF_KEY = "cloud", "cloud.conf"

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

T = TypeVar("T")


class Cloud:
    """One cloud. Its methods are coroutines and raise backends.errors."""

    def __init__(self, instance: Instance, pool: ThreadPoolExecutor, calls: Counter[str]) -> None:
        self.instance = instance
        self.name = instance.name
        self._pool = pool
        self._calls = calls
        self._lock = asyncio.Lock()
        self._stamp: tuple[object, ...] = ()
        self._looked = float("-inf")
        self._settings: CloudSettings | None = None
        self._endpoint: Endpoint | None = None
        self._retired: list[Endpoint] = []

    async def request(
        self,
        service: Service,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        version: str = "",
    ) -> Any:
        """See Endpoint.request."""
        return await self.run(
            lambda endpoint: endpoint.request(service, method, path, body, query, version)
        )

    async def run(self, ask: Callable[[Endpoint], T]) -> T:
        """Call `ask` with the open connection in a thread; once more with a new login."""
        endpoint = await self._current()
        try:
            return await self._in_thread(lambda: ask(endpoint))
        except errors.Unauthorized:
            if endpoint is self._endpoint and self._stamped() == self._stamp:
                raise
        self._looked = float("-inf")
        return await self._again(ask)

    async def settings(self) -> CloudSettings:
        """Return what the cloud's file says now."""
        await self._current()
        assert self._settings is not None
        return self._settings

    async def close(self) -> None:
        """Close the connection, and those it replaced."""
        for each in (*self._retired, self._endpoint):
            if each is not None:
                await self._in_thread(each.close)
        self._retired.clear()
        self._endpoint = None

    async def _again(self, ask: Callable[[Endpoint], T]) -> T:
        endpoint = await self._current()
        return await self._in_thread(lambda: ask(endpoint))

    async def _current(self) -> Endpoint:
        if self._endpoint is not None and self._looked_lately():
            return self._endpoint
        async with self._lock:
            if self._endpoint is not None and self._looked_lately():
                return self._endpoint
            stamp = await self._in_thread(self._stamped)
            if self._endpoint is None or stamp != self._stamp:
                read, stamp = await self._load()
                if self._endpoint is not None:
                    # Others may still be waiting for an answer on it.
                    self._retired.append(self._endpoint)
                self._settings, self._stamp = read, stamp
                self._endpoint = Endpoint(read, self.instance.where, self._calls)
            # Only now: what cannot be read is an error for everybody until it can.
            self._looked = asyncio.get_running_loop().time()
            return self._endpoint

    def _looked_lately(self) -> bool:
        return asyncio.get_running_loop().time() - self._looked < LOOK_SECONDS

    async def _load(self) -> tuple[CloudSettings, tuple[object, ...]]:
        try:
            read = await self._in_thread(lambda: settings.load(self.instance))
            # Which files count is known now; what changed in them since is read again.
            stamp = await self._in_thread(lambda: settings.stamp(self.instance, read))
            return await self._in_thread(lambda: settings.load(self.instance)), stamp
        except errors.Invalid as error:
            if self._endpoint is None:
                raise
            # Work has begun with what was there before, and nobody may take it for impossible.
            raise errors.Unavailable(error.what, error.where, error.remedy) from error

    def _stamped(self) -> tuple[object, ...]:
        return settings.stamp(self.instance, self._settings)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)


class Clouds:
    """All clouds of the configuration, and those that come in a class's Secret."""

    def __init__(self, given: Mapping[str, Mapping[str, object]]) -> None:
        self._instances = settings.instances(given)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="openstack")
        self.calls: Counter[str] = Counter()
        self._clouds = {
            name: Cloud(each, self._pool, self.calls) for name, each in self._instances.items()
        }
        self._from_secrets: dict[str, Cloud] = {}

    @property
    def default(self) -> str:
        """The name of the cloud whose volumes have plain ids; '' without clouds."""
        if settings.DEFAULT in self._clouds:
            return settings.DEFAULT
        return next(iter(self._clouds), "")

    def all(self) -> list[Cloud]:
        """The configured clouds, in the configuration's order."""
        return list(self._clouds.values())

    def seen(self) -> list[Cloud]:
        """The configured clouds, and those of Secrets that were used since the start."""
        return [*self._clouds.values(), *self._from_secrets.values()]

    def choose(self, name: str, secrets: Mapping[str, str]) -> Cloud:
        """Return the cloud called `name`, or the one a Secret holds or names, or the default.

        Raises errors.Invalid where there is none.
        """
        if not name and CONF_KEY in secrets:
            return self._of_secret(secrets[CONF_KEY], secrets.get(CLOUD_KEY, ""))
        name = name or secrets.get(CLOUD_KEY, "")
        if not self._clouds:
            raise errors.Invalid("no OpenStack cloud is configured", "", settings.HOW)
        found = self._clouds.get(name or self.default)
        if found is None:
            known = ", ".join(self._clouds)
            raise errors.Invalid(f"no cloud is called {name}", "", f"configured: {known}")
        return found

    def parse(self, id: str, secrets: Mapping[str, str]) -> tuple[Cloud, str]:
        """Return a volume's or snapshot's cloud and its id there.

        Raises errors.NotFound for what is no id, errors.Invalid for a cloud that is not configured.
        """
        name, _, uuid = id.rpartition("/")
        if not _UUID.fullmatch(uuid):
            raise errors.NotFound(f'"{id}" is not the id of anything in a cloud')
        return self.choose(name, secrets), uuid.lower()

    def id_of(self, cloud: Cloud, uuid: str) -> str:
        """Return the id that Holdfast uses for something in a cloud; `parse` reads it."""
        if cloud.name in ("", self.default):
            return uuid
        return f"{cloud.name}/{uuid}"

    async def close(self) -> None:
        """Close all connections and end the threads."""
        for each in self.seen():
            await each.close()
        await asyncio.to_thread(self._pool.shutdown)

    def _of_secret(self, text: str, section: str) -> Cloud:
        digest = hashlib.sha256(f"{section}\n{text}".encode()).hexdigest()
        if digest not in self._from_secrets:
            instance = Instance("", text=text, cloud=section)
            self._from_secrets[digest] = Cloud(instance, self._pool, self.calls)
        return self._from_secrets[digest]


def is_uuid(text: str) -> bool:
    """Return whether a text has the form of OpenStack's ids."""
    return _UUID.fullmatch(text) is not None
