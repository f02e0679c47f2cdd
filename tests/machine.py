"""A real `holdfast up` for tests: its own data directory, a free port, stopped by pid.

Everything goes through the public faces: the command line, the kubeconfig and
kubectl. Whatever a test leaves mounted below the data directory is unmounted
at the end, and its loop devices are detached, so that tests do not see each other.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

import holdfast
from holdfast.api import kinds
from holdfast.node import processes
from holdfast.server import kubeconfig

SOURCE = Path(holdfast.__file__).resolve().parent.parent
ROOT = SOURCE.parent
# Another interpreter than the tester's finds the same packages.
PYTHONPATH = os.pathsep.join([str(SOURCE), *(path for path in sys.path if "site-packages" in path)])
NODE = "node-1"
# The last two say over what kubectl talks to containers; tests set them.
_KEPT = (
    *("PATH", "LANG", "TMPDIR"),
    *("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"),
)
# Where kinds are read; `get` and `all` know these.
Value = TypeVar("Value")


class Failed(AssertionError):
    """A program the test needed ended with an error; the text has its output."""


def eventually(look: Callable[[], Value | None], seconds: float = 20.0, what: str = "") -> Value:
    """Call ``look`` until it gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:g} s: {what or look}")
        time.sleep(0.02)


class Machine:
    """One machine with Holdfast on it."""

    def __init__(
        self,
        directory: Path,
        kubectl: Path | None = None,
        *,
        user: int | None = None,
        python: str = sys.executable,
    ) -> None:
        """`user` is the uid its programs run as, which only root can choose, `python` with what."""
        self.data_dir = directory / "data"
        self.log = directory / "up.log"
        self._home = directory
        self._kubectl = kubectl
        self._user = user
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the running process."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig it wrote."""
        return self.data_dir / "kubeconfig"

    @property
    def url(self) -> str:
        """Where its API is."""
        url: str = self._run_info()["url"]
        return url

    def start(self, *options: str) -> Machine:
        """Start `holdfast up` in the foreground of a child and wait until it is ready."""
        argv = [self._python, "-P", "-m", "holdfast.cli", "up", "--data-dir", str(self.data_dir)]
        argv += ["--listen", "127.0.0.1:0", "--node-name", NODE, *options]
        if self._process is not None:
            self._process.wait(30)  # it was ended by `down`
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                **_as_user(self._user),
            )
        eventually(self._ready, 30, "holdfast up is ready")
        return self

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it with one signal, as Ctrl-C does, and return the exit code."""
        return self._end(number)

    def kill(self) -> int:
        """Kill it without warning."""
        return self._end(signal.SIGKILL)

    def holdfast(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `holdfast` command on this data directory."""
        name, *rest = arguments
        argv = [self._python, "-P", "-m", "holdfast.cli", name, "--data-dir", str(self.data_dir)]
        return _run([*argv, *rest], self.environment(), check=check, user=self._user)

    def node(self, verb: str, *names: str) -> str:
        """Run `holdfast node VERB NAME` on this data directory and return what it printed."""
        argv = [self._python, "-P", "-m", "holdfast.cli", "node", verb]
        argv += ["--data-dir", str(self.data_dir), *names]
        return _run(argv, self.environment(), user=self._user).stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run the real kubectl and return what it printed (with errors when not checked)."""
        assert self._kubectl is not None, "this machine was made without kubectl"
        done = _run([str(self._kubectl), *arguments], self.environment(), stdin=stdin, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def kubectl_started(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start kubectl and leave it running; its input is a pipe, its output goes nowhere."""
        assert self._kubectl is not None, "this machine was made without kubectl"
        return subprocess.Popen(
            [str(self._kubectl), *arguments],
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def apply(self, *objects: dict[str, Any]) -> str:
        """Apply objects with kubectl."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """Read one object; None when there is none."""
        return self._read(f"{_path(kind, namespace)}/{name}")

    def all(self, kind: str, namespace: str = "default") -> list[dict[str, Any]]:
        """Read all objects of a kind."""
        found = self._read(_path(kind, namespace))
        assert found is not None
        items: list[dict[str, Any]] = found["items"]
        return items

    def wait_for_phase(self, kind: str, name: str, phase: str, seconds: float = 20.0) -> Any:
        """Wait until an object is in a phase and return it."""

        def look() -> dict[str, Any] | None:
            obj = self.get(kind, name)
            return obj if obj and obj.get("status", {}).get("phase") == phase else None

        return eventually(look, seconds, f"{kind} {name} is {phase}")

    def create(self, document: str) -> str:
        """Create what a YAML document says; gives what kubectl printed, warnings too."""
        return self.kubectl("create", "-f", "-", stdin=document, check=False)

    def events(self, name: str, namespace: str = "default") -> list[tuple[str, str, str]]:
        """Give type, reason and message of every event about objects with a name."""
        return [
            (event["type"], event["reason"], event["message"])
            for event in self.all("event", namespace)
            if event["involvedObject"]["name"] == name
        ]

    def wait_for_event(self, name: str, reason: str, seconds: float = 20.0) -> str:
        """Wait until an object has an event with a reason and return its message."""

        def look() -> str | None:
            found = [text for _, why, text in self.events(name) if why == reason]
            return found[-1] if found else None

        return eventually(look, seconds, f"event {reason} of {name}")

    def row(self, kind: str, name: str) -> list[str]:
        """Give the cells `kubectl get` prints for an object."""
        return self.kubectl("get", kind, name, "--no-headers").split()

    def wait_until_gone(self, kind: str, name: str, seconds: float = 20.0) -> None:
        """Wait until there is no such object."""
        eventually(lambda: self.get(kind, name) is None, seconds, f"{kind} {name} is gone")

    def run_pod(self, pod: dict[str, Any], *others: dict[str, Any]) -> Path:
        """Create a pod with what it needs, wait until it runs, and give its volume `data`.

        The volume has to be a claim's.
        """
        self.apply(*others, pod)
        name = pod["metadata"]["name"]
        self.wait_for_phase("pod", name, "Running")
        return self.mount_of(name, self.volume_of(pod))

    def volume_of(self, pod: dict[str, Any]) -> str:
        """Give the name of the volume that the claim of a pod's first entry is bound to."""
        claim = self.get("pvc", pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"])
        assert claim is not None
        name: str = claim["spec"]["volumeName"]
        return name

    def mounts(self) -> dict[str, str]:
        """Give what is mounted below the data directory: target to the kernel's mount id."""
        rows = [row.split() for row in Path("/proc/self/mountinfo").read_text().splitlines()]
        return {row[4]: row[0] for row in rows if row[4].startswith(f"{self.data_dir}/")}

    def loops(self) -> set[str]:
        """Give the disk images below the data directory that have a loop device."""
        found = set()
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                found.add(path.read_text().strip())
        return {file for file in found if file.startswith(f"{self.data_dir}/")}

    def stored(self) -> set[str]:
        """Give the names in the local backend's directory, remains of unfinished work too."""
        return {path.name for path in (self.data_dir / "volumes").iterdir()}

    def mount_of(self, pod: str, volume: str) -> Path:
        """Give where a pod sees a volume, or one of its own volume entries."""
        obj = self.get("pod", pod)
        assert obj is not None, f"no pod {pod}"
        volumes = self.data_dir / "nodes" / NODE / "pods" / str(obj["metadata"]["uid"]) / "volumes"
        return next(volumes.glob(f"*/{volume}/mount"))

    def environment(self) -> dict[str, str]:
        """Give the environment of its programs: nothing of the tester's own configuration."""
        kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
        return kept | {
            "HOME": str(self._home),
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": PYTHONPATH,
        }

    def dispose(self) -> None:
        """Kill it if it still runs, and release what it left mounted."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        release(self.data_dir)

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise Failed(f"holdfast up ended:\n{self.log.read_text()}")
        with contextlib.suppress(FileNotFoundError):
            return bool(self._run_info()["pid"] == self._process.pid)
        return False

    def _read(self, path: str) -> dict[str, Any] | None:
        # Waiting for something asks often, and a kubectl for each question takes its time.
        access = kubeconfig.read(self.kubeconfig)
        trust = ssl.create_default_context(cadata=access.authority.decode())
        headers = {"Authorization": f"Bearer {access.token}", "Accept": "application/json"}
        where = urlsplit(access.url).netloc
        with contextlib.closing(http.client.HTTPSConnection(where, context=trust)) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            content: dict[str, Any] = json.loads(answer.read())
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Failed(f"GET {path}: {content}")
        return content

    def _run_info(self) -> dict[str, Any]:
        info: dict[str, Any] = json.loads((self.data_dir / "run.json").read_text())
        return info

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None, "not started"
        self._process.send_signal(number)
        return self._process.wait(30)


def release(directory: Path) -> None:
    """Unmount everything below a directory and detach its loop devices."""
    if os.geteuid() == 0:
        # Once the file of a loop device is unmounted its path says nothing any more.
        devices = loops_below(directory)
        end_containers(directory)
        _unmount_below(directory)
        for device in devices:
            subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)
        _end_daemons(directory)


def _as_user(user: int | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def _path(kind: str, namespace: str) -> str:
    """The path of a kind named as kubectl takes it: by its singular or a short name."""
    found = next(each for each in kinds.ALL if kind in (each.singular, *each.short_names))
    group = f"/apis/{found.api_version}" if found.group else "/api/v1"
    scope = f"/namespaces/{namespace}" if found.namespaced else ""
    return f"{group}{scope}/{found.plural}"


def end_containers(directory: Path) -> None:
    """Kill the containers that were started below a directory; they outlive Holdfast."""
    found = []
    for place, names, files in os.walk(directory):
        # Not into what is mounted: one of it is this machine's whole root.
        names[:] = [name for name in names if name not in ("view", "mount", "staging")]
        found += [Path(place, name) for name in files if name == "process.json"]
    for path in found:
        try:
            raw, status = path.read_bytes(), path.with_name("status").read_text()
        except FileNotFoundError:
            continue  # just removed
        identity = msgspec.json.decode(raw, type=processes.Identity)
        pidfd = processes.open_if_same(identity)
        if pidfd is None:
            continue
        # The first process inside takes everything along, the one outside included.
        inside = re.search(r'"child-pid": (\d+)', status)
        processes.end(int(inside[1]) if inside else identity.pid)
        if not select.select([pidfd], [], [], 5)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _run(
    argv: Sequence[str],
    env: dict[str, str],
    *,
    stdin: str | None = None,
    check: bool = True,
    user: int | None = None,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv,
        env=env,
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        **_as_user(user),
    )
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def _unmount_below(directory: Path) -> None:
    prefix = f"{directory}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    targets = [line.split()[4] for line in lines]
    # Later mounts may lie on earlier ones.
    for target in reversed([target for target in targets if target.startswith(prefix)]):
        subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)


def loops_below(directory: Path) -> list[str]:
    """Give the loop devices whose files lie below a directory."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if path.read_text().startswith(f"{directory}/"):
                found.append(f"/dev/{path.parents[1].name}")
    return found


def _end_daemons(directory: Path) -> None:
    """Kill what serves images of Ceph from a directory; it outlives Holdfast and its mounts."""
    for place in directory.glob("**/maps/*/pid") if directory.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            pid = int(place.read_text())
            if os.fsencode(place) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
