"""The one way to all vCenters: sessions by who asks, threads, tasks, and inventory readers.

What blocks runs in the gateway's own threads. A vCenter's task is started in a thread and
waited for without one, so that fifty volumes being made occupy nobody.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from holdfast.backends import errors
from holdfast.backends.protocol import NO_SECRETS
from holdfast.backends.vsphere import configuration, faults, tasks
from holdfast.backends.vsphere.configuration import Center, Workspace
from holdfast.backends.vsphere.inventory import Reader
from holdfast.backends.vsphere.policies import Policies
from holdfast.backends.vsphere.sdk import vim
from holdfast.backends.vsphere.secretlogins import SecretLogins
from holdfast.backends.vsphere.session import Session
from holdfast.backends.vsphere.tagging import Tagging
from holdfast.backends.vsphere.tasks import TaskWaiter

THREADS = 24

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Link:
    """A vCenter as one user reaches it."""

    session: Session
    reader: Reader
    tasks: TaskWaiter
    tagging: Tagging
    policies: Policies
    workspace: Workspace

    @property
    def center(self) -> Center:
        """The vCenter's address."""
        return self.session.center


class Gateway:
    """All vCenters of all instances. Belongs to one event loop."""

    def __init__(
        self, workspaces: Mapping[str, Workspace], logins: SecretLogins | None = None
    ) -> None:
        self.workspaces = dict(workspaces)
        self.logins = logins or SecretLogins()
        self._links: dict[tuple[str, str], Link] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="vsphere")

    @property
    def home(self) -> Workspace:
        """The instance that is meant when none is named: the first."""
        for workspace in self.workspaces.values():
            return workspace
        raise errors.Invalid(
            "no vCenter is configured",
            "holdfast.toml",
            'add [vsphere.NAME] with config = "/etc/kubernetes/vsphere.conf"',
        )

    def link(self, center: str = "", secrets: Mapping[str, str] = NO_SECRETS) -> Link:
        """Return the way to a vCenter by its name; empty for home. Raises NotFound."""
        workspace, found = self._find(center)
        who = ""
        reader = self.logins.reader(found)
        if secrets:
            given = configuration.from_secret(secrets, found.server, "the class's secret")
            digest = hashlib.sha256(given.password.encode()).hexdigest()
            who = f"{given.user} {digest}"
            reader = _always(given)
        with self._lock:
            link = self._links.get((found.name, who))
            if link is None:
                session = Session(found, reader)
                link = Link(
                    session,
                    Reader(session),
                    TaskWaiter(session),
                    Tagging(session),
                    Policies(session),
                    workspace,
                )
                self._links[found.name, who] = link
            return link

    def links(self) -> list[Link]:
        """Return the way to every configured vCenter."""
        return [
            self.link(center.name)
            for workspace in self.workspaces.values()
            for center in workspace.centers
        ]

    def calls(self) -> collections.Counter[str]:
        """Return how often each call was made so far."""
        total: collections.Counter[str] = collections.Counter()
        with self._lock:
            for link in self._links.values():
                total.update(link.session.calls)
        return total

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what blocks in a thread of the gateway's; raises backends.errors."""
        loop = asyncio.get_running_loop()
        self.logins.enter(loop)
        where = next((each.session.where for each in args if isinstance(each, Link)), "vSphere")

        def call() -> T:
            with faults.translated(where):
                return function(*args, **kwargs)

        return await loop.run_in_executor(self._pool, call)

    async def finish(self, link: Link, start: Callable[[], Any]) -> Any:
        """Start a task and return its result; raises what the task failed with."""
        return await self.wait(link, await self.begin(link, start))

    async def begin(self, link: Link, start: Callable[[], Any]) -> Any:
        """Start a task and return it."""

        def call(_: Link) -> Any:
            return start()

        return await self.run(call, link)

    async def wait(self, link: Link, task: Any) -> Any:
        """Return the result of a task that was started; raises what it failed with."""
        return await asyncio.wrap_future(link.tasks.add(task))

    async def settle(self, link: Link, task: str) -> bool:
        """Wait until a task has ended; return whether it may have done its work.

        Raises only when vCenter cannot be asked, for then the task may still be under way.
        """
        ref = link.session.ref(vim.Task, task)
        try:
            await self.wait(link, ref)
        except tasks.Forgotten:
            return True
        except errors.BackendError:
            found = await self.run(link.reader.properties, [ref], ["info.state"])
            if found[0].get("info.state") != "error":
                raise
            return False
        return True

    async def close(self) -> None:
        """Wait for running calls, log out everywhere, end the threads."""
        await asyncio.to_thread(self.shut)

    def shut(self) -> None:
        """Do what `close` does, from a thread."""
        self._pool.shutdown()
        for link in self._links.values():
            link.tasks.close()
            link.tagging.close()
            link.session.close()

    def _find(self, name: str) -> tuple[Workspace, Center]:
        if not name:
            return self.home, self.home.home
        for workspace in self.workspaces.values():
            for center in workspace.centers:
                if center.name == name or center.server == name:
                    return workspace, center
        raise errors.NotFound(
            f'vCenter "{name}" is not configured', "holdfast.toml", "add a [vsphere.NAME] for it"
        )


def _always(credentials: configuration.Credentials) -> Callable[[], configuration.Credentials]:
    return lambda: credentials
