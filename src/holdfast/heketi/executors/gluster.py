"""The `gluster` command: what is asked of glusterd and how its XML is read.

With `--xml` the exit code is mostly 0 even when a command failed; `opRet` tells. Error texts are
matched where glusterd has no number for them. A volume carries its id as the option
`user.heketi.id`, which is how a lost database is found again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from holdfast.heketi import errors
from holdfast.heketi.executors.protocol import Heal, Transport, VolumeFacts, VolumeSpec

ID_OPTION = "user.heketi.id"
_TYPES = {"distribute": "none", "replicate": "replicate", "disperse": "disperse"}
# glusterd's own words for "it is so already".
_ALREADY_STARTED = "already started"
_NOT_STARTED = "not in the started state"
_GONE = "does not exist"
# How often a heal is asked for after a brick was replaced.
_HEALS = 8


class Gluster:
    """Runs `gluster` on nodes."""

    def __init__(self, transport: Transport, timeout: int = 600) -> None:
        self._transport = transport
        self._timeout = timeout

    async def ask(self, host: str, *words: str, fine: Sequence[str] = ()) -> ElementTree.Element:
        """Run a command; raises `ExecutionFailed` unless it succeeded or said one of `fine`."""
        argv = ["gluster", "--mode=script", f"--timeout={self._timeout}", "--xml", *words]
        done = await self._transport.run(host, argv, timeout=self._timeout + 60.0, check=False)
        what = f"gluster {' '.join(words)}"
        try:
            root = ElementTree.fromstring(done.stdout)
        except ElementTree.ParseError as error:
            said = done.stderr or done.stdout
            raise errors.ExecutionFailed(host, what, said, done.code) from error
        said = root.findtext("opErrstr") or ""
        if root.findtext("opRet") != "0" and not any(each in said for each in fine):
            raise errors.ExecutionFailed(host, what, said or done.stderr, done.code)
        return root

    # The pool

    async def check(self, host: str) -> None:
        """Fail unless glusterd answers."""
        await self.ask(host, "pool", "list")

    async def probe(self, host: str, address: str) -> None:
        """Take a node into the pool."""
        await self.ask(host, "peer", "probe", address)

    async def detach(self, host: str, address: str) -> None:
        """Let a node go."""
        await self.ask(host, "peer", "detach", address, fine=("is not part of cluster",))

    # Volumes

    async def create(self, host: str, volume: VolumeSpec) -> None:
        """Create what does not exist, set the options, start."""
        if await self.describe(host, volume.name) is None:
            await self.ask(host, "volume", "create", volume.name, *_kind(volume), *volume.bricks)
        for key, value in _options(volume):
            await self.ask(host, "volume", "set", volume.name, key, value)
        await self.start(host, volume.name)

    async def start(self, host: str, name: str) -> None:
        """Start it."""
        await self.ask(host, "volume", "start", name, fine=(_ALREADY_STARTED,))

    async def delete(self, host: str, name: str) -> None:
        """Stop and delete; a refusal to delete leaves it running as it was."""
        await self.ask(host, "volume", "stop", name, "force", fine=(_NOT_STARTED, _GONE))
        try:
            await self.ask(host, "volume", "delete", name, fine=(_GONE,))
        except errors.ExecutionFailed:
            if await self.describe(host, name) is not None:
                await self.start(host, name)
            raise

    async def extend(self, host: str, volume: VolumeSpec) -> None:
        """Add bricks; those it has are left out, so it may be repeated."""
        there = await self.describe(host, volume.name)
        if there is None:
            raise errors.ExecutionFailed(host, f"volume {volume.name}", "it does not exist")
        fresh = [brick for brick in volume.bricks if brick not in there.bricks]
        if fresh:
            await self.ask(host, "volume", "add-brick", volume.name, *fresh)
        await self.ask(
            host,
            "volume",
            "rebalance",
            volume.name,
            "start",
            fine=("already started", "is in progress", "not a distribute volume"),
        )

    async def describe(self, host: str, name: str) -> VolumeFacts | None:
        """A volume, None when there is none."""
        root = await self.ask(host, "volume", "info", name, fine=(_GONE,))
        return next(_volumes(root), None)

    async def volumes(self, host: str) -> list[VolumeFacts]:
        """All volumes."""
        return list(_volumes(await self.ask(host, "volume", "info")))

    async def heals(self, host: str, name: str) -> dict[str, Heal]:
        """Entries to be healed, by brick."""
        root = await self.ask(host, "volume", "heal", name, "info")
        found = {}
        for brick in root.iterfind(".//bricks/brick"):
            count = brick.findtext("numberOfEntries") or "-"
            connected = (brick.findtext("status") or "") == "Connected"
            entries = int(count) if count.isdigit() else 0
            found[brick.findtext("name") or ""] = Heal(entries if connected else None)
        return found

    async def replace(self, host: str, name: str, old: str, new: str) -> None:
        """Replace a brick and have the new one filled; done already is fine."""
        there = await self.describe(host, name)
        if there is None or new not in there.bricks or old in there.bricks:
            await self.ask(host, "volume", "replace-brick", name, old, new, "commit", "force")
        with contextlib.suppress(errors.ExecutionFailed):
            await self._heal(host, name)

    async def _heal(self, host: str, name: str) -> None:
        """Ask for a heal until nothing is left, for a moment.

        What the healing daemons miss while they connect to a new brick they look for only ten
        minutes later, unless they are asked. Much data takes its time without being asked again.
        """
        for _ in range(_HEALS):
            # Refused while the daemons are being started.
            with contextlib.suppress(errors.ExecutionFailed):
                await self.ask(host, "volume", "heal", name)
            await asyncio.sleep(1)
            found = (await self.heals(host, name)).values()
            if not any(heal.entries is None or heal.entries for heal in found):
                return

    async def clone(self, host: str, source: str, snapshot: str, clone: VolumeSpec) -> None:
        """Snapshot, activate, clone, start, and drop the snapshot."""
        if await self.describe(host, clone.name) is None:
            await self.ask(
                host,
                "snapshot",
                "create",
                snapshot,
                source,
                "no-timestamp",
                fine=("already exists",),
            )
            await self.ask(host, "snapshot", "activate", snapshot, fine=("already activated",))
            await self.ask(host, "snapshot", "clone", clone.name, snapshot)
        for key, value in _options(clone):
            await self.ask(host, "volume", "set", clone.name, key, value)
        await self.start(host, clone.name)
        await self.delete_snapshot(host, snapshot)

    async def delete_snapshot(self, host: str, name: str) -> None:
        """Delete a snapshot."""
        await self.ask(host, "snapshot", "delete", name, fine=(_GONE,))


def _kind(volume: VolumeSpec) -> list[str]:
    if volume.type == "replicate":
        words = ["replica", str(volume.replica)]
        return [*words, "arbiter", "1"] if volume.arbiter else words
    if volume.type == "disperse":
        return ["disperse-data", str(volume.data), "redundancy", str(volume.redundancy)]
    return []


def _options(volume: VolumeSpec) -> Iterator[tuple[str, str]]:
    for text in volume.options:
        key, _, value = text.strip().partition(" ")
        if key:
            yield key, value.strip()
    yield ID_OPTION, volume.id


def _volumes(root: ElementTree.Element) -> Iterator[VolumeFacts]:
    for volume in root.iterfind(".//volumes/volume"):
        number = {
            key: int(volume.findtext(f"{key}Count") or 0)
            for key in ("replica", "arbiter", "disperse", "redundancy")
        }
        kind = (volume.findtext("typeStr") or "").lower().rpartition("-")[2]
        bricks = [
            (brick.findtext("name") or "", brick.findtext("isArbiter") == "1")
            for brick in volume.iterfind("bricks/brick")
        ]
        yield VolumeFacts(
            name=volume.findtext("name") or "",
            uuid=volume.findtext("id") or "",
            started=volume.findtext("statusStr") == "Started",
            type=_TYPES.get(kind, kind),
            bricks=tuple(name for name, _ in bricks),
            set_size=max(1, number["disperse"] if kind == "disperse" else number["replica"]),
            replica=number["replica"],
            redundancy=number["redundancy"],
            arbiters=tuple(name for name, arbiter in bricks if arbiter),
            options={
                option.findtext("name") or "": option.findtext("value") or ""
                for option in volume.iterfind("options/option")
            },
        )
