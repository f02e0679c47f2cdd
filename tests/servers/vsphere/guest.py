"""Stands in for the guest of a VM: what vCenter hangs into it appears as a device.

A real guest sees its disks as SCSI devices with links by their UUID; here each is a loop
device on a file of its size, and the link lies in a directory that the node side is told of.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path

from servers.vsphere.vcenter import VCenter


class Guest:
    """Plays the guest of a VM: a loop device for every volume that hangs in it."""

    def __init__(self, vcenter: VCenter, name: str, directory: Path) -> None:
        self.links = directory / "by-id"
        self.links.mkdir(parents=True)
        self._vcenter, self._name, self._directory = vcenter, name, directory
        self._loops: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take all devices away."""
        self._stop.set()
        self._thread.join()
        for loop in self._loops.values():
            subprocess.run(["losetup", "-d", loop], check=False)

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            with contextlib.suppress(AssertionError, KeyError):
                self._look()

    def _look(self) -> None:
        own = self._name.rpartition("/")[2]
        present = {}
        for each in self._vcenter.disks_of(self._name):
            backing = each["backing"]
            if f"] {own}/" not in backing["fileName"]:
                uuid = backing["uuid"].replace("-", "").lower()
                size = max(each.get("capacityInKB") or 0, 1 << 20)
                present[uuid] = max(size, self._first_class(backing["fileName"]))
        for uuid, size in present.items():
            image = self._directory / uuid
            if uuid in self._loops:
                self._grow(image, self._loops[uuid], size << 10)
            else:
                with image.open("ab") as file:
                    file.truncate(size << 10)
                done = subprocess.run(
                    ["losetup", "--find", "--show", str(image)],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                self._loops[uuid] = done.stdout.strip()
                (self.links / f"wwn-0x{uuid}").symlink_to(self._loops[uuid])
        for uuid in set(self._loops) - set(present):
            (self.links / f"wwn-0x{uuid}").unlink(missing_ok=True)
            subprocess.run(["losetup", "-d", self._loops.pop(uuid)], check=False)

    def _first_class(self, file: str) -> int:
        """The KiB of a First Class Disk, which the simulator does not tell its VM; else 0."""
        if "] fcd/" not in file:
            return 0
        store = file[1:].partition("]")[0]
        found = self._vcenter.json("disk.ls", "-ds", store)["objects"] or ()
        sizes = {e["config"]["backing"]["filePath"]: e["config"]["capacityInMB"] for e in found}
        return int(sizes.get(file, 0)) << 10

    @staticmethod
    def _grow(image: Path, loop: str, size: int) -> None:
        if image.stat().st_size < size:
            os.truncate(image, size)
            subprocess.run(["losetup", "--set-capacity", loop], check=True)
