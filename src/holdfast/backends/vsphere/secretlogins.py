"""Users of vCenters that `vsphere.conf` leaves in a Secret of the Kubernetes API (`secret-name`).

A login happens in a thread, deep below whoever asked for a volume, and the API is asked on the
event loop. So a thread waits here for the loop; the loop itself never does. The Secret is read at
each login and not kept, so that a new password counts at the next one.

Invariant: a Secret that is missing is never told as NotFound, which would mean "volume gone".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.backends import errors
from holdfast.backends.secretrefs import SecretRef, SecretSource
from holdfast.backends.vsphere import configuration
from holdfast.backends.vsphere.configuration import Center, Credentials

# The API is on this machine or near it.
PATIENCE = 30.0


class SecretLogins:
    """The way from a thread to the Secrets; without one, each vCenter's own reader counts."""

    def __init__(self) -> None:
        self._read: SecretSource | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def use(self, read: SecretSource) -> None:
        """Read Secrets by this from now on."""
        self._read = read

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note the loop on which Secrets are read."""
        self._loop = loop

    def reader(self, center: Center) -> Callable[[], Credentials]:
        """Return what reads a vCenter's user and password when somebody logs in."""
        if center.secret is None:
            return center.credentials

        def read() -> Credentials:
            return self._credentials(center)

        return read

    def _credentials(self, center: Center) -> Credentials:
        ref, loop = center.secret, self._loop
        if ref is None or self._read is None or loop is None:
            return center.credentials()
        if _runs_here(loop):
            raise errors.Unavailable("a login was tried on the event loop", f"secret {ref}", "")
        # A plain function's result need not be a coroutine, which the loop asks for.
        asked = asyncio.run_coroutine_threadsafe(_awaited(self._read, ref), loop)
        try:
            content = asked.result(PATIENCE)
        except TimeoutError as error:
            asked.cancel()
            raise errors.Unavailable(
                f"the API did not answer within {PATIENCE:g} s", f"secret {ref}", "tried again"
            ) from error
        except errors.NotFound as error:
            raise errors.Unauthorized(error.what, error.where, error.remedy) from error
        return configuration.from_secret(content, center.server, f"secret {ref}")


async def _awaited(read: SecretSource, ref: SecretRef) -> dict[str, str]:
    return dict(await read(ref))


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
