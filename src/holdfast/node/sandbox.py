"""Sandboxes: how one program is fenced in on this machine, without an image.

The program sees the machine's own root file system, read-only, with what it was given
laid over it: its volumes, files made for it, a /dev, /proc, /tmp and /run of its own. It
has its own mount, PID, IPC and UTS namespaces, no way to gain privileges, and the
capabilities a container has by default. The network is the machine's.

`View` makes the root: an overlay whose upper layer is a skeleton on a tmpfs, holding the
mount points that the machine does not have. `arguments` tells bubblewrap the rest.

The invariant: only the mounts listed here exist inside, so a running program keeps no
other volume of the machine busy. Environments may hold secrets: they go through a
descriptor, never through an argument list.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.backends import mountinfo
from holdfast.node import mounts, places, syscalls

PROGRAMS = {
    "bwrap": "bubblewrap",
    "setpriv": "util-linux",
    "nsenter": "util-linux",
    "setsid": "util-linux",
}
# What a container may do as root; making device nodes is not part of it.
CAPABILITIES = (
    *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service"),
    *("net_raw", "setfcap", "setgid", "setpcap", "setuid", "sys_chroot"),
)
# Private to each sandbox; what the machine has there is not seen.
PRIVATE = ("/tmp", "/run", "/var/tmp")
FIRST_INHERITED = 3  # the descriptors of `arguments` and of the status, in this order
# Parts of the system that may be file systems of their own; anything else mounted below
# the root is somebody's data and stays outside.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt")
# What root could change for the whole machine, and what tells about it, below /proc.
_GUARDED = ("/proc/sys", "/proc/sysrq-trigger")
_MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug")
_VIEW_SIZE = "size=4m,mode=755"


@dataclass(frozen=True, slots=True)
class Bind:
    """A file, directory or device of the machine that appears at `target`."""

    source: str
    target: str
    read_only: bool = False
    device: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a program runs as; `dropped` are capabilities it does without."""

    user: int = 0
    group: int = 0
    groups: tuple[int, ...] = ()
    dropped: frozenset[str] = frozenset()

    @property
    def capabilities(self) -> list[str]:
        """The capabilities left, in setpriv's spelling."""
        if "all" in self.dropped:
            return []
        return [name for name in CAPABILITIES if name not in self.dropped]


@dataclass(frozen=True, slots=True)
class Program:
    """What is to run and what it gets to see; `env` may hold secrets."""

    argv: tuple[str, ...]
    hostname: str
    directory: str = "/"
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    binds: tuple[Bind, ...] = ()
    hidden: tuple[str, ...] = ()
    identity: Identity = Identity()


def obstacle() -> str:
    """Say why this machine cannot run sandboxes, or "" when nothing is known against it."""
    if not mounts.may_mount() or os.geteuid() != 0:
        return "running containers needs root (CAP_SYS_ADMIN)"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"{program} is missing on this machine: install the package {package}"
    return ""


class View:
    """The root of one sandbox, at `root` while it is made; everything of it is `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._skeleton = directory / "skeleton"
        self.root = directory / "root"

    def open(self) -> None:
        """Make the place that `hold` and `make` fill. Raises OSError, backends.errors."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        if not mounts.is_mounted(self._directory):
            mounts.mount(Path("tmpfs"), self._directory, "tmpfs", ["nosuid", "nodev", _VIEW_SIZE])

    def make(self, program: Program) -> None:
        """Mount it. Raises OSError, backends.errors. Blocks, but not for long."""
        self.open()
        self._skeleton.mkdir(exist_ok=True)
        self.root.mkdir(exist_ok=True)
        for name in ("/proc", "/sys", "/dev", *PRIVATE, program.directory):
            self._place(name, directory=True)
        for bind in _outermost(program.binds):
            self._place(bind.target, directory=Path(bind.source).is_dir())
        self._write_names(program.hostname)
        if not mounts.is_mounted(self.root):
            layers = f"lowerdir={_escaped(self._skeleton)}:/"
            syscalls.mount("overlay", str(self.root), "overlay", syscalls.MS_RDONLY, layers)

    def hold(self, source: Path, name: str) -> Path:
        """Bind something whose path will not last to one that lasts as long as the view."""
        target = self._directory / "held" / name
        places.bind_onto(source, target)
        return target

    def remove(self) -> None:
        """Unmount everything of it; nothing there is a success. Raises errors.Conflict."""
        for found in reversed(mountinfo.beneath(self._directory)):
            mounts.unmount(Path(found.point))
        mounts.unmount(self._directory)
        if self._directory.is_dir():
            self._directory.rmdir()

    def _place(self, target: str, *, directory: bool) -> None:
        """Make a mount point in the skeleton, looking as the machine's own does."""
        place = self._skeleton / target.lstrip("/")
        self._make_parents(place.parent)
        if directory:
            self._make_directory(place)
        elif not place.exists():
            place.touch(mode=0o644)

    def _make_parents(self, place: Path) -> None:
        for parent in reversed([place, *place.parents]):
            if parent.is_relative_to(self._skeleton):
                self._make_directory(parent)

    def _make_directory(self, place: Path) -> None:
        if place.is_dir():
            return
        place.mkdir(mode=0o755)
        try:
            found = (Path("/") / place.relative_to(self._skeleton)).stat()
        except OSError:
            return
        if stat.S_ISDIR(found.st_mode):
            place.chmod(stat.S_IMODE(found.st_mode))
            os.chown(place, found.st_uid, found.st_gid)

    def _write_names(self, hostname: str) -> None:
        """Give the sandbox its own name files; /run, where some live, is not seen inside."""
        self._make_parents(self._skeleton / "etc")
        for name in ("hosts", "resolv.conf"):
            try:
                text = Path("/etc", name).read_text()
            except OSError:
                text = ""
            if name == "hosts":
                text = f"{text.rstrip()}\n127.0.0.1\t{hostname}\n"
            (self._skeleton / "etc" / name).write_text(text)
        (self._skeleton / "etc" / "hostname").write_text(f"{hostname}\n")


def arguments(program: Program, root: Path) -> list[str]:
    """What bubblewrap reads from the descriptor of `--args`."""
    said = ["--ro-bind", str(root), "/", *_system()]
    for target in PRIVATE:
        said += ["--perms", "1777" if target.endswith("tmp") else "755", "--tmpfs", target]
    for target in program.hidden:
        if Path(target).is_dir() and not _below(target, PRIVATE):
            said += ["--tmpfs", target, "--remount-ro", target]
    for bind in sorted(program.binds, key=lambda each: each.target.count("/")):
        option = "--dev-bind" if bind.device else "--ro-bind" if bind.read_only else "--bind"
        said += [option, bind.source, bind.target]
    said += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", program.hostname]
    said += ["--chdir", program.directory, "--clearenv", "--cap-drop", "ALL"]
    for name in program.identity.capabilities:
        said += ["--cap-add", f"CAP_{name.upper()}"]
    for name, value in program.env.items():
        said += ["--setenv", name, value]
    return said


def _system() -> list[str]:
    """What of the machine's system is seen, beside its root."""
    said = []
    for target in _system_mounts():
        said += ["--ro-bind", target, target]
    said += ["--ro-bind", "/sys", "/sys", "--dev", "/dev", "--proc", "/proc"]
    for target in _GUARDED:
        said += ["--ro-bind-try", target, target]
    for target in _MASKED:
        if Path(target).exists():
            said += ["--ro-bind", "/dev/null", target]
    return said


def command(program: Program, *, session: bool, bound: bool) -> list[str]:
    """The argument list to start.

    `session` unless a terminal is to control it; `bound` when it is to end with the process
    that started it.
    """
    new = [*(["--new-session"] if session else []), *(["--die-with-parent"] if bound else [])]
    read, write = str(FIRST_INHERITED), str(FIRST_INHERITED + 1)
    return [
        *("bwrap", "--args", read, "--json-status-fd", write, *new, "--"),
        *lead(terminal=not session),
        *become(program.identity),
        *program.argv,
    ]


def lead(*, terminal: bool) -> list[str]:
    """The program that makes what follows lead a session, so that shells can control jobs.

    A session from outside has no number in the sandbox, and no shell can work with that.
    """
    return [_path_of("setsid"), "--ctty"] if terminal else []


def become(identity: Identity) -> list[str]:
    """The program that changes who is running, in front of what is to run."""
    groups = ",".join(str(each) for each in identity.groups)
    chosen = ["--groups", groups] if groups else ["--clear-groups"]
    who = ["--reuid", str(identity.user), "--regid", str(identity.group)]
    return [_path_of("setpriv"), *who, *chosen, "--"]


def enter(leader: int, identity: Identity, argv: Sequence[str], *, terminal: bool) -> list[str]:
    """The argument list that runs a command inside the sandbox that `leader` is the first of."""
    kept = ["-all", *(f"+{name}" for name in identity.capabilities)]
    limits = ["--no-new-privs", "--bounding-set", ",".join(kept), "--inh-caps", "-all"]
    setpriv, *who = become(identity)
    namespaces = ["--mount", "--uts", "--ipc", "--pid", "--root", "--wd"]
    inside = [*lead(terminal=terminal), setpriv, *limits, *who, *argv]
    return ["nsenter", "--target", str(leader), *namespaces, "--", *inside]


def _path_of(program: str) -> str:
    """Where a program is; the search path that counts inside is the sandbox's."""
    return shutil.which(program) or program


def resolved(target: str) -> str:
    """Follow the machine's symbolic links, such as /var/run, in a path of the sandbox."""
    return os.path.realpath(target)


def provides(program: str, search: str, binds: Sequence[Bind], hidden: Sequence[str]) -> bool:
    """Whether a command would be found inside: by its path, or along `search`."""
    if "/" in program:
        return _exists(program, binds, hidden)
    return any(
        _exists(f"{directory.rstrip('/')}/{program}", binds, hidden)
        for directory in search.split(":")
        if directory.startswith("/")
    )


def _exists(path: str, binds: Sequence[Bind], hidden: Sequence[str]) -> bool:
    for bind in sorted(binds, key=lambda each: len(each.target), reverse=True):
        if path == bind.target or path.startswith(f"{bind.target.rstrip('/')}/"):
            source = bind.source + path[len(bind.target.rstrip("/")) :]
            # A link in a volume means something only inside.
            return os.path.lexists(source)
    return not _below(path, (*PRIVATE, "/dev", *hidden)) and Path(path).exists()


def _below(path: str, directories: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in directories)


def _outermost(binds: Sequence[Bind]) -> list[Bind]:
    """The binds whose mount point is not made inside another one or a private directory."""
    targets = [bind.target for bind in binds]
    taken = ("/dev", "/proc", "/sys", *PRIVATE)
    return [
        bind
        for bind in binds
        if not _below(bind.target, taken)
        and not any(bind.target.startswith(f"{other.rstrip('/')}/") for other in targets)
    ]


def _system_mounts() -> list[str]:
    return [found.point for found in mountinfo.read() if _below(found.point, _SYSTEM)]


def _escaped(path: Path) -> str:
    """A path inside the options of an overlay, where commas and colons separate."""
    return re.sub(r"([\\,:])", r"\\\1", str(path))
