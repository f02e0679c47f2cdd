"""Asks GlusterFS itself: which peers are connected, which bricks are up, what has to be healed.

It is asked over the network with its own tools, so they have to be on this machine and nothing has
to be done on the nodes. The tool for healing wants a glusterd on the same machine unless it is
given the volume's description, which any glusterd hands out.
"""

from __future__ import annotations

import re
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.backends import errors, tools
from holdfast.backends.gluster.documents import Node
from holdfast.backends.protocol import Finding
from holdfast.kit import process

_SECONDS = 20.0
_HEALERS = (
    "/usr/lib/*/glusterfs/glfsheal",
    "/usr/libexec/glusterfs/glfsheal",
    "/usr/lib/glusterfs/glfsheal",
)
# Each volume takes a twentieth of a second; the rest are counted and not asked.
_MOST_HEALS = 200
_STARTED = "1"
_NOT_ANSWERED = "-"


@dataclass(frozen=True, slots=True)
class BrickHealth:
    """What one brick says of itself; counts are None when it cannot be asked."""

    name: str
    pending: int | None
    split_brain: int | None


@dataclass(frozen=True, slots=True)
class VolumeHealth:
    """A started volume. `spare` is how many bricks of a set may be down."""

    name: str
    bricks: Sequence[str]
    down: Sequence[str]
    set_size: int
    spare: int

    def lost(self) -> bool:
        """Whether more bricks of one set are down than it can do without."""
        sets = [
            self.bricks[at : at + self.set_size] for at in range(0, len(self.bricks), self.set_size)
        ]
        return any(sum(b in self.down for b in each) > self.spare for each in sets)


async def of_cluster(nodes: Sequence[Node]) -> list[Finding]:
    """Test the pool of a cluster's nodes; says so when the tools are not there."""
    if not nodes:
        return []
    if tools.missing("gluster"):
        what = "peers, bricks and healing were not looked at: gluster is not on this machine"
        return [Finding("peers", "warning", what, "", "install the package glusterfs-cli")]
    answered, silent = "", []
    for node in nodes:
        try:
            pool = await _asked(node.address, "pool", "list")
        except (process.CommandFailed, errors.BackendError) as error:
            silent.append(f"{node.label} ({_first_line(error)})")
            continue
        answered = node.address
        break
    if not answered:
        what = f"no glusterd answers: {', '.join(silent)}"
        return [Finding("peers", "error", what, "", "start glusterd on the nodes")]
    try:
        found = [_peers(pool, nodes)]
        volumes = await volumes_of(answered)
        return [*found, *_bricks(volumes), *await _heals(answered, volumes)]
    except (process.CommandFailed, errors.BackendError) as error:
        return [
            Finding("bricks", "error", _first_line(error), answered, "see gluster volume status")
        ]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _peers(pool: ElementTree.Element, nodes: Sequence[Node]) -> Finding:
    labels = {node.address: node.label for node in nodes}
    gone = []
    peers = pool.findall(".//peer")
    for peer in peers:
        if peer.findtext("connected") == "1":
            continue
        names = [name.text or "" for name in peer.findall(".//hostname")]
        gone.append(next((labels[name] for name in names if name in labels), names[0]))
    if gone:
        what = f"not connected: {', '.join(gone)}; the machine, its network or its glusterd is down"
        remedy = "start it: what was written meanwhile is healed by itself"
        return Finding("peers", "error", what, "", remedy)
    return Finding("peers", "ok", f"{len(peers)} of {len(peers)} connected")


async def volumes_of(address: str) -> list[VolumeHealth]:
    """Return every started volume with the bricks that are down. Raises CommandFailed."""
    info = await _asked(address, "volume", "info", "all")
    started = [v for v in info.findall(".//volume") if v.findtext("status") == _STARTED]
    if not started:
        return []
    status = await _asked(address, "volume", "status", "all")
    up: dict[str, set[str]] = {}
    for volume in status.findall(".//volume"):
        up[volume.findtext("volName") or ""] = {
            f"{node.findtext('hostname')}:{node.findtext('path')}"
            for node in volume.findall("node")
            if node.findtext("status") == "1"
        }
    return [_volume(volume, up) for volume in started]


def _volume(volume: ElementTree.Element, up: Mapping[str, set[str]]) -> VolumeHealth:
    name = volume.findtext("name") or ""
    bricks = [brick.findtext("name") or "" for brick in volume.findall("./bricks/brick")]
    replicas, dispersed, redundancy = (
        int(volume.findtext(key) or 0)
        for key in ("replicaCount", "disperseCount", "redundancyCount")
    )
    if dispersed:
        size, spare = dispersed, redundancy
    elif replicas > 1:
        size, spare = replicas, (replicas - 1) // 2
    else:
        size, spare = 1, 0
    down = [brick for brick in bricks if brick not in up.get(name, set())]
    return VolumeHealth(name, bricks, down, size, spare)


def _bricks(volumes: Sequence[VolumeHealth]) -> list[Finding]:
    found = []
    for volume in volumes:
        if not volume.down:
            continue
        what = f"{len(volume.down)} of {len(volume.bricks)} bricks are down: " + ", ".join(
            volume.down
        )
        if volume.lost():
            what += "; files cannot be written, or not be found"
            severity, remedy = "error", "bring the nodes back, then gluster volume start NAME force"
        else:
            what += "; the volume goes on with the others"
            severity, remedy = "warning", "bring the node back; it is healed by itself"
        where = f"volume {volume.name}"
        found.append(
            Finding("bricks", "error" if severity == "error" else "warning", what, where, remedy)
        )
    if found or not volumes:
        return found
    count = sum(len(volume.bricks) for volume in volumes)
    return [Finding("bricks", "ok", f"{count} bricks of {len(volumes)} volumes are up")]


async def _heals(address: str, volumes: Sequence[VolumeHealth]) -> list[Finding]:
    redundant = [volume for volume in volumes if volume.set_size > 1]
    if not redundant:
        return []
    if not healers():
        what = "healing was not looked at: glfsheal is not on this machine"
        return [Finding("heal", "warning", what, "", "install the package glusterfs-client")]
    found = []
    for volume in redundant[:_MOST_HEALS]:
        try:
            found += _heal(volume, await heal_of(address, volume.name))
        except (process.CommandFailed, errors.BackendError) as error:
            found.append(Finding("heal", "warning", _first_line(error), f"volume {volume.name}"))
    if len(redundant) > _MOST_HEALS:
        what = f"only {_MOST_HEALS} of {len(redundant)} volumes were asked"
        found.append(Finding("heal", "warning", what))
    return found or [Finding("heal", "ok", "nothing has to be healed")]


def _heal(volume: VolumeHealth, bricks: Sequence[BrickHealth]) -> list[Finding]:
    where = f"volume {volume.name}"
    split = max((brick.split_brain or 0 for brick in bricks), default=0)
    pending = max((brick.pending or 0 for brick in bricks), default=0)
    if split:
        what = f"{split} files differ between bricks and no one knows which is right (split-brain)"
        remedy = f"gluster volume heal {volume.name} info split-brain, then choose a source"
        return [Finding("heal", "error", what, where, remedy)]
    if pending:
        what = f"{pending} entries were written while a brick was away and wait to be healed"
        remedy = "it happens by itself when the brick is back"
        return [Finding("heal", "warning", what, where, remedy)]
    return []


def healers() -> list[Path]:
    """Return where glfsheal is; distributions differ."""
    root = Path("/")
    return [path for pattern in _HEALERS for path in root.glob(pattern.lstrip("/"))]


async def heal_of(address: str, volume: str) -> list[BrickHealth]:
    """Return what the bricks of a volume have to heal. Raises CommandFailed."""
    got = await process.run(
        ["gluster", "--mode=script", f"--remote-host={address}", "system::", "getspec", volume],
        timeout=_SECONDS,
    )
    with tempfile.NamedTemporaryFile(prefix="holdfast-", suffix=".vol") as file:
        file.write(got.stdout)
        file.flush()
        argv = [str(healers()[0]), volume, "info-summary", "volfile-path", file.name]
        said = await process.run(argv, timeout=_SECONDS)
    return _read_heal(said.stdout.decode(errors="replace"))


def _read_heal(text: str) -> list[BrickHealth]:
    found = []
    for block in re.split(r"^Brick ", text, flags=re.MULTILINE)[1:]:
        name = block.splitlines()[0].strip()
        pending = _count(block, "Number of entries in heal pending")
        found.append(BrickHealth(name, pending, _count(block, "Number of entries in split-brain")))
    return found


def _count(block: str, label: str) -> int | None:
    match = re.search(rf"^{label}: (\d+|{_NOT_ANSWERED})$", block, flags=re.MULTILINE)
    return int(match[1]) if match is not None and match[1] != _NOT_ANSWERED else None


async def _asked(address: str, *words: str) -> ElementTree.Element:
    """Ask a glusterd; its tool ends well even when it was refused."""
    argv = ["gluster", "--mode=script", "--xml", f"--remote-host={address}", *words]
    done = await process.run(argv, timeout=_SECONDS)
    try:
        document = ElementTree.fromstring(done.stdout)
    except ElementTree.ParseError as error:
        raise errors.Unavailable("gluster printed no XML", address) from error
    if document.findtext("opRet") != "0":
        raise errors.Unavailable(f"gluster: {document.findtext('opErrstr')}", address)
    return document
