"""A real GlusterFS cluster on one machine: every node its own network, mounts, names and processes.

A node is a shell that is process 1 of its namespaces and has a private root, /run and glusterd
state. Killing it is a power cut; starting it again boots it with its disks. Addresses are those of
a private bridge; volumes can be mounted from the machine itself. Nothing here outlives `down`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_INIT = Path(__file__).with_name("node-init.sh")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENV = {**os.environ, "PATH": _PATH, "LC_ALL": "C"}
PROGRAMS = ("glusterd", "gluster", "glusterfs", "mkfs.xfs", "ip", "nsenter", "unshare")


class Cluster:
    """Nodes 1..count; use it as a context manager."""

    def __init__(self, directory: Path, count: int = 3) -> None:
        missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
        if missing:
            raise RuntimeError(f"{', '.join(missing)} missing: run tools/servers/gluster")
        self.directory = directory
        self.count = count
        self._name = f"hfg{os.getpid()}"
        self._net = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        try:
            return self.up()
        except BaseException:
            self.down()
            raise

    def __exit__(self, *_: object) -> None:
        self.down()

    # What tests ask

    def address(self, node: int) -> str:
        """Where a node serves bricks."""
        return f"{self._net}.{10 + node}"

    def init_file(self, node: int) -> Path:
        """The file with the process id of a node's init."""
        return self.directory / f"n{node}" / "init.pid"

    def disk(self, node: int) -> Path:
        """A directory of a node for brick images; it has the same path inside."""
        return self.directory / f"n{node}" / "disk"

    def run(self, node: int, *argv: str, check: bool = True) -> str:
        """Run a program inside a node and return what it printed."""
        pid = self.init_file(node).read_text().strip()
        enter = ["nsenter", "-t", pid, "-m", "-u", "-n", "-p", "--", *argv]
        done = subprocess.run(enter, capture_output=True, env=_ENV, timeout=120, check=False)
        if check and done.returncode:
            raise AssertionError(f"node {node}: {argv}: {done.stdout!r} {done.stderr!r}")
        return done.stdout.decode()

    def volumes(self) -> list[str]:
        """The names of all volumes GlusterFS has."""
        said = self.run(1, "gluster", "--mode=script", "volume", "list", check=False)
        return sorted(line for line in said.splitlines() if line and "No volumes" not in line)

    def images(self) -> list[str]:
        """The names of all brick images on all nodes."""
        return sorted(
            f"{node}/{path.relative_to(self.disk(node))}"
            for node in range(1, self.count + 1)
            for path in self.disk(node).rglob("brick_*")
        )

    def mounted(self) -> list[str]:
        """Where bricks are mounted in the nodes."""
        return sorted(
            line.split()[1]
            for node in range(1, self.count + 1)
            for line in self.run(node, "cat", "/proc/mounts").splitlines()
            if "/mounts/vg_" in line
        )

    def fstab(self) -> str:
        """The lines of all nodes' fstabs."""
        return "".join(
            (self.directory / f"n{node}" / "heketi" / "fstab").read_text()
            for node in range(1, self.count + 1)
        )

    # Life

    def up(self) -> Cluster:
        """Start what is not running and wait until all nodes are one pool."""
        self._network()
        for node in range(1, self.count + 1):
            self.start(node)
        for node in range(2, self.count + 1):
            self.run(1, "gluster", "--mode=script", "peer", "probe", self.address(node))
        for node in range(1, self.count + 1):
            _await(60, functools.partial(self._connected, node), f"node {node} in the pool")
        return self

    def _connected(self, node: int) -> bool:
        said = self.run(node, "gluster", "--mode=script", "peer", "status", check=False)
        return said.count("Peer in Cluster (Connected)") >= self.count - 1

    def start(self, node: int) -> None:
        """Boot a node and its glusterd."""
        place = self.directory / f"n{node}"
        for name in ("lib", "log", "disk", "heketi/mounts", "root"):
            (place / name).mkdir(parents=True, exist_ok=True)
        (place / "heketi" / "fstab").touch()
        if not (place / "lib" / "groups").exists() and Path("/var/lib/glusterd/groups").exists():
            shutil.copytree("/var/lib/glusterd/groups", place / "lib" / "groups")
        self.init_file(node).unlink(missing_ok=True)
        log = (place / "init.log").open("wb")
        argv = ["nsenter", f"--net=/run/netns/{self._name}n{node}", "unshare", "--mount"]
        argv += ["--propagation", "private", "--uts", "--pid", "--fork", "--kill-child"]
        argv += ["sh", str(_INIT), str(self.directory), str(node)]
        with log:
            self._processes[node] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_ENV,
                start_new_session=True,
            )
        _await(20, self.init_file(node).exists, f"node {node} to boot ({place / 'init.log'})")
        self.run(node, "glusterd", "-p", "/run/glusterd.pid")
        _await(30, lambda: self._answers(node), f"glusterd of node {node}")

    def _answers(self, node: int) -> bool:
        return "UUID" in self.run(node, "gluster", "--mode=script", "pool", "list", check=False)

    def kill(self, node: int) -> None:
        """Cut a node's power: all of its processes end, nothing is unmounted first."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(self.init_file(node).read_text()), signal.SIGKILL)
        self._processes.pop(node).wait(timeout=30)

    def mount(self, volume: str, where: Path) -> None:
        """Mount a volume from the machine itself."""
        where.mkdir(parents=True, exist_ok=True)
        argv = ["mount", "-t", "glusterfs", f"{self.address(1)}:/{volume}", str(where)]
        subprocess.run(argv, check=True, env=_ENV, timeout=60, capture_output=True)

    def unmount(self, where: Path) -> None:
        """Take it away."""
        subprocess.run(["umount", str(where)], check=True, env=_ENV, timeout=60)

    def down(self) -> None:
        """End everything that was started, unmount, and remove the state."""
        self._unmount_all()
        for node in list(self._processes):
            self.kill(node)
        for node in range(1, self.count + 1):
            _await(20, functools.partial(self._ended, node), "the processes of a node to end")
            _quiet("ip", "netns", "del", f"{self._name}n{node}")
        _quiet("ip", "link", "del", f"{self._name}b")
        for image in self.directory.glob("n*/disk/**/*.img"):
            _await(20, functools.partial(_free, image), f"the loop device of {image}")

    def _ended(self, node: int) -> bool:
        """Whether no process is left in a node's network; those that are get killed."""
        argv = ["ip", "netns", "pids", f"{self._name}n{node}"]
        found = subprocess.run(argv, capture_output=True, env=_ENV, check=False).stdout.split()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return not found

    def _unmount_all(self) -> None:
        for line in Path("/proc/mounts").read_text().splitlines():
            source, where, kind = line.split()[:3]
            if kind == "fuse.glusterfs" and source.startswith(f"{self._net}."):
                subprocess.run(["umount", "-l", where], check=False, env=_ENV)

    def _network(self) -> None:
        Path("/run/netns").mkdir(exist_ok=True)
        Path("/var/lib/heketi").mkdir(exist_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "hosts").write_text("127.0.0.1 localhost\n")
        (self.directory / "resolv.conf").write_text("")
        gsyncd = self.directory / "gsyncd"
        gsyncd.write_text("#!/bin/sh\necho gsyncd stand-in\n")
        gsyncd.chmod(0o755)
        bridge = f"{self._name}b"
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{self._net}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for node in range(1, self.count + 1):
            space = f"{self._name}n{node}"
            _ip("netns", "add", space)
            _ip("link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", space, "master", bridge, "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, env=_ENV, timeout=30, capture_output=True)


def _quiet(*argv: str) -> None:
    subprocess.run(argv, check=False, env=_ENV, timeout=30, capture_output=True)


def _free(image: Path) -> bool:
    argv = ["losetup", "-j", str(image)]
    return not bool(subprocess.run(argv, capture_output=True, env=_ENV, check=False).stdout)


def _await(seconds: float, happened: Callable[[], object], what: str) -> None:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)
