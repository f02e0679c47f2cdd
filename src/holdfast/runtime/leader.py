"""Leader election by Lease: of several replicas one works, the others wait.

The rules are those of Kubernetes' own controllers (client-go's leaderelection). The holder renews
the Lease every few seconds. Another replica takes it when it has seen it unchanged for the lease's
duration, by its own clock, so clocks need not agree. Who cannot renew in time stops before
another may start.

Invariant: the work runs only while this replica has renewed within `renew` seconds, and it has
stopped before the lease is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from holdfast.api import errors, kinds
from holdfast.kit import clock
from holdfast.runtime.client import Client, Object

log = logging.getLogger("holdfast.runtime")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: how long a lease lasts, how long renewing may fail, how often it is tried."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0


class Election:
    """One replica's part in the election of the holder of a Lease."""

    def __init__(
        self,
        client: Client,
        *,
        name: str,
        namespace: str,
        identity: str,
        timing: Timing | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._namespace = namespace
        self.identity = identity
        self._timing = timing or Timing()
        # The lease as last seen, and when it was first seen so.
        self._seen: tuple[str, str] | None = None
        self._seen_at = 0.0
        self.leading = False

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, do the work while it is held, and start over when it is lost.

        Returns when the work returns. Cancelled, it ends the work first and then gives the
        lease back, so that another replica need not wait for it to run out.
        """
        while True:
            await self._acquire()
            log.info("leading", extra={"lease": self._name, "identity": self.identity})
            self.leading = True
            finished = False
            try:
                finished = await self._lead(work)
            finally:
                self.leading = False
                # Nobody else works yet: the lease still stands in our name.
                with contextlib.suppress(errors.StatusError, OSError):
                    await asyncio.shield(self._release())
            if finished:
                return
            log.warning("no longer leading", extra={"lease": self._name})

    async def _acquire(self) -> None:
        held = await self._try()
        while not held:
            await asyncio.sleep(self._timing.retry)
            held = await self._try()

    async def _lead(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Return whether the work came to its end by itself."""
        task = asyncio.ensure_future(work())
        renewing = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait((task, renewing), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
                return True
            return False
        finally:
            for each in (task, renewing):
                each.cancel()
            await asyncio.gather(task, renewing, return_exceptions=True)

    async def _renew(self) -> None:
        """Return when the lease could not be renewed in time."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while loop.time() - renewed < self._timing.renew:
            await asyncio.sleep(self._timing.retry)
            left = self._timing.renew - (loop.time() - renewed)
            began = loop.time()
            try:
                async with asyncio.timeout(max(left, 0.01)):
                    if await self._try():
                        renewed = began
            except TimeoutError:
                return

    async def _try(self) -> bool:
        """Take or renew the lease; False when another has it, or the API does not answer."""
        try:
            return await self._take()
        except (errors.Conflict, errors.AlreadyExists):
            return False
        except (errors.StatusError, OSError) as error:
            log.warning("lease not reached", extra={"lease": self._name, "error": str(error)})
            return False

    async def _take(self) -> bool:
        now = clock.rfc3339_micro(clock.now())
        try:
            found = await self._client.get(kinds.LEASE, self._name, self._namespace)
        except errors.NotFound:
            await self._client.create(kinds.LEASE, self._lease(now), self._namespace)
            return True
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self.identity) and not self._expired(spec):
            return False
        transitions = int(spec.get("leaseTransitions") or 0)
        mine = holder == self.identity
        wanted = {
            **spec,
            **self._lease(now)["spec"],
            "acquireTime": spec.get("acquireTime", now) if mine else now,
            "leaseTransitions": transitions if mine else transitions + 1,
        }
        # The version it was read at goes along: of two replicas that take it, one succeeds.
        await self._client.replace(kinds.LEASE, {**found, "spec": wanted})
        return True

    def _expired(self, spec: Object) -> bool:
        now = asyncio.get_running_loop().time()
        seen = (str(spec.get("holderIdentity")), str(spec.get("renewTime")))
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        return now - self._seen_at > float(spec.get("leaseDurationSeconds") or self._timing.lease)

    def _lease(self, now: str) -> Object:
        return {
            "apiVersion": kinds.LEASE.api_version,
            "kind": kinds.LEASE.name,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": max(1, round(self._timing.lease)),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }

    async def _release(self) -> None:
        found = await self._client.get(kinds.LEASE, self._name, self._namespace)
        spec = found.get("spec") or {}
        if spec.get("holderIdentity") != self.identity:
            return
        now = clock.rfc3339_micro(clock.now())
        kept = {"leaseTransitions": spec.get("leaseTransitions") or 0}
        given_up = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now}
        await self._client.replace(
            kinds.LEASE, {**found, "spec": {**kept, **given_up, "acquireTime": now}}
        )
