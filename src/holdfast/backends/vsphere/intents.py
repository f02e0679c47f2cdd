"""Notes about disks that are being made: where, and by which task of vCenter.

A create that is killed leaves its task running in vCenter, for an hour when it writes zeroes
to a terabyte. The note lets the next attempt wait for that very task, on the datastore that
was chosen then, although placement might choose another one today. Without the directory
nothing breaks: what exists is then found by name.

Invariant: the note is on the disk before vCenter is asked, and it is gone only after the
volume was returned or removed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from holdfast.backends.vsphere.gateway import Gateway, Link
from holdfast.kit import files


@dataclass(frozen=True, slots=True)
class Intent:
    """One disk on its way. `task` is empty until vCenter has taken the order."""

    name: str
    center: str
    datacenter: str
    datastore: str  # managed object id
    kind: str  # vmdk | fcd
    task: str = ""


class Intents:
    """The notes of one backend; what is not async blocks for the disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "creating"
        self._ready = False

    def get(self, name: str) -> Intent | None:
        """Return the note for a volume's name."""
        try:
            return Intent(**json.loads(self._path(name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, intent: Intent) -> Intent:
        """Write the note down; returns it."""
        if not self._ready:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._ready = True
        content = json.dumps(asdict(intent)).encode()
        if intent.task:
            # Losing this with the machine costs a look at the datastore, no more.
            path = self._path(intent.name)
            scratch = path.with_suffix(".new")
            scratch.write_bytes(content)
            scratch.replace(path)
        else:
            files.write_atomic(self._path(intent.name), content)
        return intent

    def begun(self, intent: Intent, task: str) -> Intent:
        """Add the task to a note."""
        return self.put(replace(intent, task=task))

    def remove(self, name: str) -> None:
        """Forget the note; one that is not there is a success."""
        self._path(name).unlink(missing_ok=True)

    async def resumed(self, gateway: Gateway, link: Link, name: str) -> Intent | None:
        """Return the note about a disk, having waited for its task; None when that failed."""
        intent = await gateway.run(self.get, name)
        if intent is None or not intent.task or await gateway.settle(link, intent.task):
            return intent
        await gateway.run(self.remove, name)
        return None

    def all(self) -> list[Intent]:
        """Return all notes."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(Intent(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):
                continue
        return found

    def _path(self, name: str) -> Path:
        return self._directory / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
