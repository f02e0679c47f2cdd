"""A real Ceph cluster for tests: one monitor, one OSD, a manager where usage figures matter.

No systemd and no cephadm: the daemons are started with a configuration file of their
own, know each other from a monitor map, and have every key in the monitor's store
from its first moment. The OSD keeps its data in a sparse file (BlueStore), so it
survives being killed.

Everything is below one directory, on ports that were free, and is stopped by pid.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

from holdfast.backends.rbd import preparing

PROGRAMS = ("ceph-mon", "ceph-osd", "ceph-mgr", "ceph", "rbd", "ceph-authtool", "monmaptool")
PLACEMENT_GROUPS = 8
_CONFIGURATION = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port},v1:127.0.0.1:{old_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {home}/keyring
run dir = {home}/run
pid file = {home}/run/$name.pid
admin socket = {home}/run/$name.asok
log file = {home}/log/$name.log
crash dir = {home}/log
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = {groups}
osd pool default pgp num = {groups}
osd pool default pg autoscale mode = off
[mon]
mon data = {home}/mon
mon cluster log file = {home}/log/cluster.log
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
auth allow insecure global id reclaim = false
mon data avail warn = 2
mon data avail crit = 1
paxos propose interval = 0.05
[osd]
osd data = {home}/osd
osd objectstore = bluestore
bluestore block size = {size}
osd memory target = 939524096
bdev aio poll ms = 10
osd client watch timeout = 10
osd fast shutdown = true
[mgr]
mgr data = {home}/mgr
mgr initial modules =
[client]
admin socket =
log file =
pid file =
objecter tick interval = 0.5
objecter timeout = 1
"""


class CephFailed(AssertionError):
    """A program of Ceph ended with an error; the text has its output."""


class Cluster:
    """One cluster below `home`; `start` makes it when there is none."""

    def __init__(self, home: Path, *, size: int = 10 << 30) -> None:
        self.home = home
        self.configuration = home / "ceph.conf"
        self.port = _free_ports()
        self._size = size

    @property
    def monitor(self) -> str:
        """The monitor's address as classes write it."""
        return f"127.0.0.1:{self.port}"

    def start(self, *, manager: bool = False) -> Cluster:
        """Start what is not running; return once clients are served."""
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        if missing:
            raise CephFailed(f"{', '.join(missing)} missing: run tools/servers/ceph")
        if not self.configuration.exists():
            self._make()
        self._run_daemon("mon", "a")
        if not (self.home / "osd" / "ready").exists():
            self._make_osd()
        self._run_daemon("osd", "0")
        if manager:
            self._run_daemon("mgr", "x")
            self._until(lambda: '"available": true' in self.ceph("mgr", "stat"), "a manager")
        return self

    def make_pool(self, name: str, user: str) -> str:
        """Make a pool for images and a user for it, and return the user's key."""
        self.ceph("osd", "pool", "create", name, str(PLACEMENT_GROUPS))
        self.rbd("pool", "init", name)
        caps = preparing.caps(preparing.Wish(name, user))
        given = [text for pair in caps.items() for text in pair]
        self.ceph("auth", "get-or-create", f"client.{user}", *given)
        return self.key_of(user)

    def key_of(self, user: str) -> str:
        """Return a user's key."""
        return self.ceph("auth", "get-key", f"client.{user}").strip()

    def ceph(self, *arguments: str) -> str:
        """Run `ceph` as the administrator."""
        return self._run("ceph", "--connect-timeout", "20", *arguments)

    def rbd(self, *arguments: str) -> str:
        """Run `rbd` as the administrator."""
        return self._run("rbd", *arguments)

    def rados(self, *arguments: str) -> str:
        """Run `rados` as the administrator."""
        return self._run("rados", *arguments)

    def images(self, pool: str) -> list[str]:
        """List the images of a pool."""
        return self.rbd("ls", pool).split()

    def objects(self, pool: str) -> set[str]:
        """List the RADOS objects of a pool."""
        return set(self.rados("-p", pool, "ls").split())

    def kill(self, daemon: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one of `mon`, `osd`, `mgr`, and return when it is gone."""
        name = {"mon": "mon.a", "osd": "osd.0", "mgr": "mgr.x"}[daemon]
        pid = self._pid(name)
        if pid is None:
            return
        os.kill(pid, number)
        self._until(lambda: _ended(pid), f"{name} ended")

    def stop(self) -> None:
        """Stop the daemons; the data stays."""
        for daemon in ("mgr", "osd", "mon"):
            with contextlib.suppress(CephFailed):
                self.kill(daemon, signal.SIGTERM)
            self.kill(daemon)

    def wipe(self) -> None:
        """Stop the daemons and remove the data."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def _make(self) -> None:
        for name in ("run", "log", "mon", "osd", "mgr"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        fsid = str(uuid.uuid4())
        text = _CONFIGURATION.format(
            fsid=fsid,
            port=self.port,
            old_port=self.port + 1,
            home=self.home,
            size=self._size,
            groups=PLACEMENT_GROUPS,
        )
        self.configuration.write_text(text)
        self._make_keys()
        addresses = f"[v2:127.0.0.1:{self.port},v1:127.0.0.1:{self.port + 1}]"
        map_file = str(self.home / "monmap")
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, map_file)
        keyring = str(self.home / "keyring")
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", map_file, "--keyring", keyring)

    def _make_keys(self) -> None:
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr")
        keys = {
            "mon.": ("--cap", "mon", "allow *"),
            "client.admin": (*everything, "allow *"),
            "osd.0": ("--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"),
            "mgr.x": ("--cap", "mon", "allow profile mgr", "--cap", "osd", "allow *"),
        }
        keyring = str(self.home / "keyring")
        self._run("ceph-authtool", "--create-keyring", keyring)
        for name, caps in keys.items():
            self._run("ceph-authtool", keyring, "--gen-key", "--name", name, *caps)

    def _make_osd(self) -> None:
        shutil.rmtree(self.home / "osd")
        (self.home / "osd").mkdir()
        known = self.home / "osd.uuid"
        if not known.exists():
            known.write_text(str(uuid.uuid4()))
        self.ceph("osd", "new", known.read_text(), "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", known.read_text())

    def _run_daemon(self, kind: str, name: str) -> None:
        if self._pid(f"{kind}.{name}") is None:
            self._run(f"ceph-{kind}", "-i", name)

    def _run(self, program: str, *arguments: str) -> str:
        argv = [program, *arguments, "--conf", str(self.configuration)]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
        )
        if done.returncode:
            raise CephFailed(f"{' '.join(argv)}: exit {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout

    def _pid(self, name: str) -> int | None:
        """Give the pid of a running daemon of ours; a zombie has no arguments."""
        try:
            pid = int((self.home / "run" / f"{name}.pid").read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.configuration) in arguments else None

    def _until(self, look: object, what: str, seconds: float = 30.0) -> None:
        assert callable(look)
        deadline = time.monotonic() + seconds
        while not look():
            if time.monotonic() > deadline:
                raise CephFailed(f"not within {seconds:g} s: {what}")
            time.sleep(0.02)


def _ended(pid: int) -> bool:
    """Whether the process has let go of everything; its arguments go earlier than its locks."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        # The first thread may be a zombie while others still hold files and their locks.
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX" and threads <= 1


def _free_ports() -> int:
    """Find two free ports in a row outside of the range that others get by chance."""
    for _ in range(200):
        port = 20000 + secrets.randbelow(10000)
        with contextlib.ExitStack() as stack:
            try:
                for each in (port, port + 1):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", each))
            except OSError:
                continue
            return port
    raise CephFailed("no two free ports in a row")
