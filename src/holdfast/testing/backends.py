"""A backend that fails, hesitates or loses its answer when told to.

It stands in front of a real backend and passes every call on, so what it says exists does
exist. `fail` and `block` are for one method; both count down, so a test says how often.

The invariant: a fault never changes what the real backend does, only whether and when it is
asked and whether its answer arrives.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.protocol import (
    NO_SECRETS,
    Capacity,
    Finding,
    Volume,
    VolumePage,
    VolumeRequest,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """An error instead of the answer; `after` means that the work was done all the same."""

    error: Exception
    after: bool = False


class Gate:
    """Holds one call. `reached` is set when the call arrives; `open` lets it go on."""

    def __init__(self, *, after: bool) -> None:
        self.after = after
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Let the call go on."""
        self._opened.set()

    async def passed(self) -> None:
        """Wait until it is open."""
        self.reached.set()
        await self._opened.wait()


class FaultyBackend:
    """See the module's text."""

    clones: Literal[True] = True

    def __init__(self, real: LocalBackend) -> None:
        self.real = real
        # (method, volume), in the order of the calls.
        self.calls: list[tuple[str, str]] = []
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._gates: dict[str, deque[Gate]] = defaultdict(deque)

    def fail(self, method: str, error: Exception, *, times: int = 1, after: bool = False) -> None:
        """Have the next calls of a method raise; with `after`, when they have had their effect."""
        self._faults[method].extend([Fault(error, after)] * times)

    def heal(self) -> None:
        """Forget the faults that have not happened yet."""
        self._faults.clear()

    def block(self, method: str, *, after: bool = False) -> Gate:
        """Hold the next call of a method before (or after) it reaches the real backend."""
        gate = Gate(after=after)
        self._gates[method].append(gate)
        return gate

    async def existing(self) -> list[str]:
        """Return the ids of the volumes there really are, unfinished ones included."""
        return [found.id for found in (await self.real.list_volumes()).volumes]

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """See `Backend.create_volume`."""
        return await self._call(
            "create_volume", request.name, lambda: self.real.create_volume(request)
        )

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """See `Backend.find_volume`."""
        return await self._call("find_volume", request.name, lambda: self.real.find_volume(request))

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """See `Backend.delete_volume`."""
        await self._call("delete_volume", id, lambda: self.real.delete_volume(id))

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """See `Backend.get_volume`."""
        return await self._call("get_volume", id, lambda: self.real.get_volume(id))

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """See `Backend.list_volumes`."""
        return await self._call("list_volumes", "", lambda: self.real.list_volumes(token, limit))

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """See `Expander.expand`."""
        return await self._call("expand", id, lambda: self.real.expand(id, size))

    async def capacity(self, parameters: Mapping[str, str]) -> Capacity:
        """See `CapacityReporter.capacity`."""
        return await self.real.capacity(parameters)

    async def checks(self) -> Sequence[Finding]:
        """See `Backend.checks`."""
        return await self.real.checks()

    async def close(self) -> None:
        """Wait for running calls of the real backend and end its threads."""
        await self.real.close()

    async def _call(self, method: str, volume: str, work: Callable[[], Awaitable[T]]) -> T:
        self.calls.append((method, volume))
        gates, faults = self._gates[method], self._faults[method]
        gate = gates.popleft() if gates else None
        fault = faults.popleft() if faults else None
        if gate is not None and not gate.after:
            await gate.passed()
        if fault is not None and not fault.after:
            raise fault.error
        answer = await work()
        if gate is not None and gate.after:
            await gate.passed()
        if fault is not None:
            raise fault.error
        return answer
