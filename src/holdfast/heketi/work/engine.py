"""Runs operations: one transaction, work on the nodes, one transaction - through crashes too.

An operation is in the database from its build to its end. What it does on the nodes may be
repeated, so after a crash it is done again from the start; one that cannot be completed is undone;
one that cannot be undone either stays, marked failed, and is tried again by the cleaner. A client's
ticket outlives all of this.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from msgspec.structs import replace

from holdfast.heketi import entries, errors
from holdfast.heketi.entries import Brick, Cluster, Node, Operation, Ticket
from holdfast.heketi.executors.protocol import Executor
from holdfast.heketi.settings import Settings
from holdfast.heketi.state import State, Transaction

log = logging.getLogger("holdfast.heketi")
T = TypeVar("T")
Build = Callable[[Transaction, Operation], Operation]
_TICKET_SECONDS = 86400
_NO_GLUSTERD = "Connection failed"


class Work(Protocol):
    """One type of operation."""

    async def execute(self, operation: Operation) -> None:
        """Do it, or complete what an earlier try began."""

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """Record that it is done; the path of what was made."""

    async def undo(self, operation: Operation) -> bool:
        """Take back what was begun; False when it turned out to be done after all."""

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """Record that it was taken back."""

    def again(self, transaction: Transaction, operation: Operation) -> Operation | None:
        """Another try after it was taken back; None for none."""


class Engine:
    """See the module."""

    def __init__(self, state: State, executor: Executor, settings: Settings) -> None:
        self.state = state
        self.executor = executor
        self.settings = settings
        # Nodes whose glusterd did not answer the monitor.
        self.down: set[str] = set()
        self.running: set[str] = set()
        self._works: dict[str, Work] = {}
        self._ready: asyncio.Queue[str] = asyncio.Queue()

    def register(self, name: str, work: Work) -> None:
        """Say who does operations of a type."""
        self._works[name] = work

    # Accepting

    def start(self, kind: str, role: str, build: Build) -> str:
        """Build an operation and have it run; the ticket. Raises `Refused`."""
        if len(self.running) >= self.settings.inflight:
            raise errors.Busy()
        now = int(time.time())
        operation = Operation(id=entries.new_id(), type=kind, started=now, ticket=entries.new_id())
        with self.state.transaction() as transaction:
            operation = build(transaction, operation)
            ticket = Ticket(id=operation.ticket, created=now, operation=operation.id, role=role)
            transaction.put(operation, ticket)
        self._submit(operation.id)
        return operation.ticket

    def done(self, role: str, location: str = "", error: str = "") -> str:
        """A ticket for something that was done, or refused, at once."""
        ticket = Ticket(
            id=entries.new_id(),
            created=int(time.time()),
            done=True,
            location=location,
            error=error,
            role=role,
        )
        with self.state.transaction() as transaction:
            transaction.put(ticket)
        return ticket.id

    def _submit(self, key: str) -> None:
        self.running.add(key)
        self._ready.put_nowait(key)

    # Running

    async def run(self) -> None:
        """Resume what an earlier life left and run what comes, until cancelled."""
        if self.settings.resume:
            self._resume()
        async with asyncio.TaskGroup() as group:
            while True:
                key = await self._ready.get()
                group.create_task(self._perform(key))

    def _resume(self) -> None:
        left = [each for each in self.state.all(Operation) if self._is_alone(each)]
        with self.state.transaction() as transaction:
            for operation in self.state.all(Operation):
                if not operation.status:
                    transaction.put(replace(operation, status="stale"))
        for operation in left:
            log.info(
                "resuming an operation", extra={"id": operation.id, "operation": operation.type}
            )
            self._submit(operation.id)

    def _is_alone(self, operation: Operation) -> bool:
        """Whether no other operation runs it: it has no parent, or the parent has ended."""
        return not operation.parent or self.state.find(Operation, operation.parent) is None

    async def _perform(self, key: str) -> None:
        operation = self.state.find(Operation, key)
        try:
            if operation is not None:
                await self.perform(operation)
        except Exception as error:
            if not isinstance(error, errors.ExecutionFailed | errors.Refused):
                log.exception("an operation broke off", extra={"id": key})
            self._mark_failed(key, str(error))
        finally:
            self.running.discard(key)

    async def perform(self, operation: Operation) -> None:
        """Run one to its end. Raises what it failed with, after it was undone or marked."""
        work = self._works[operation.type]
        tries = self.settings.retries if operation.status != "failed" else 0
        while True:
            try:
                if operation.status == "failed":
                    # Its client was told so: it must not come true now.
                    raise errors.Refused(operation.error)
                await work.execute(operation)
            except (errors.ExecutionFailed, errors.Refused) as error:
                following = await self._take_back(work, operation, error, tries)
                if following is None:
                    return
                operation, tries = following, tries - 1
            else:
                self._finish(work, operation)
                return

    def _finish(self, work: Work, operation: Operation) -> None:
        with self.state.transaction() as transaction:
            current = self.state.find(Operation, operation.id) or operation
            location = work.finish(transaction, current)
            transaction.finish(operation.ticket, location)
            transaction.remove(current)

    async def _take_back(
        self, work: Work, operation: Operation, error: Exception, tries: int
    ) -> Operation | None:
        """Undo; the operation of another try, None when this is the end."""
        current = self.state.find(Operation, operation.id) or operation
        log.warning(
            "an operation failed and is undone",
            extra={"id": current.id, "operation": current.type, "error": str(error)},
        )
        if not await work.undo(current):
            self._finish(work, current)
            return None
        with self.state.transaction() as transaction:
            work.forget(transaction, current)
            following = None
            if tries > 0:
                try:
                    following = work.again(transaction, avoiding(current, error))
                except errors.NoSpace:
                    following = None
            if following is not None:
                transaction.put(following)
                return following
            transaction.remove(current)
            transaction.finish(current.ticket, error=str(error))
        if current.parent:
            raise error
        return None

    async def perform_child(self, operation: Operation) -> None:
        """Run one for another; what can neither be done nor undone outlives that one."""
        try:
            await self.perform(operation)
        except (errors.ExecutionFailed, errors.Refused) as error:
            self._mark_failed(operation.id, str(error))
            raise

    def _mark_failed(self, key: str, text: str) -> None:
        operation = self.state.find(Operation, key)
        if operation is None:
            return
        with self.state.transaction() as transaction:
            transaction.put(replace(operation, status="failed", error=text))
            transaction.finish(operation.ticket, error=text)

    def retry(self, keys: Iterable[str] = ()) -> None:
        """Try failed operations again: those named, or all."""
        wanted = set(keys)
        for operation in self.state.all(Operation):
            named = not wanted or operation.id in wanted
            idle = operation.id not in self.running and self._is_alone(operation)
            if operation.status and named and idle:
                self._submit(operation.id)

    async def clean(self) -> None:
        """Try failed operations again now and then, and forget old tickets; until cancelled."""
        await asyncio.sleep(self.settings.cleaner_first)
        while True:
            self.retry()
            oldest = int(time.time()) - _TICKET_SECONDS
            with self.state.transaction() as transaction:
                for ticket in self.state.all(Ticket):
                    if ticket.done and ticket.created < oldest:
                        transaction.remove(ticket)
            await asyncio.sleep(self.settings.cleaner_seconds)

    async def monitor(self) -> None:
        """Ask every node's glusterd now and then whether it is there; until cancelled."""
        await asyncio.sleep(self.settings.monitor_first)
        while True:
            for node in self.state.all(Node):
                try:
                    await self.executor.check(node.manage)
                    self.down.discard(node.id)
                except errors.ExecutionFailed as error:
                    log.warning("a node does not answer", extra={"error": str(error)})
                    self.down.add(node.id)
            await asyncio.sleep(self.settings.monitor_seconds)

    # What operations need

    def nodes(self, cluster: str) -> list[Node]:
        """The nodes that can be asked, those known to be down last."""
        entry = self.state.find(Cluster, cluster)
        found = [] if entry is None else self.state.below(entry, Node)
        usable = [node for node in found if node.state == "online"]
        return sorted(usable or found, key=lambda node: (node.id in self.down, node.id))

    async def on_any(self, cluster: str, work: Callable[[str], Awaitable[T]]) -> T:
        """Do it on one of the nodes: the next is asked when one is not there at all."""
        last: errors.ExecutionFailed | None = None
        for node in self.nodes(cluster):
            try:
                return await work(node.manage)
            except errors.ExecutionFailed as error:
                if not isinstance(error, errors.Unreachable) and _NO_GLUSTERD not in error.said:
                    raise
                last = error
        if last is not None:
            raise last
        raise errors.Refused("No nodes in cluster")

    async def each(self, works: Iterable[Awaitable[object]]) -> None:
        """Do all of them at once; every one ends before the first failure is raised."""
        ended = await asyncio.gather(*works, return_exceptions=True)
        for each in ended:
            if isinstance(each, BaseException):
                raise each

    def node_of(self, brick: Brick) -> Node:
        """Where a brick is. Raises `Refused` when its device is not known."""
        node = self.state.node_of(brick)
        if node is None:
            raise errors.Refused(f"brick {brick.id} is on device {brick.device}, which is unknown")
        return node


def avoiding(operation: Operation, error: Exception) -> Operation:
    """The operation, with the host that does not answer noted so that it is left out."""
    if not isinstance(error, errors.Unreachable):
        return operation
    hosts = [*operation.request.get("avoid", []), error.host]
    return replace(operation, request={**operation.request, "avoid": hosts})
