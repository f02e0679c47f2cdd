"""A real `holdfast up` for tests: its own data directory, a free port, stopped by pid.

Everything goes through the public faces: the command line, the kubeconfig and
kubectl. Whatever a test leaves mounted below the data directory is unmounted
at the end, and its loop devices are detached, so that tests do not see each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import holdfast

SOURCE = Path(holdfast.__file__).resolve().parent.parent
NODE = "node-1"
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

    def __init__(self, directory: Path, kubectl: Path | None = None) -> None:
        self.data_dir = directory / "data"
        self.log = directory / "up.log"
        self._home = directory
        self._kubectl = kubectl
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
        argv = [sys.executable, "-P", "-m", "holdfast.cli", "up", "--data-dir", str(self.data_dir)]
        argv += ["--listen", "127.0.0.1:0", "--node-name", NODE, *options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment()
            )
        eventually(self._ready, 30, "holdfast up is ready")
        return self

    def stop(self) -> int:
        """Stop it as Ctrl-C does and return the exit code."""
        return self._end(signal.SIGINT)

    def kill(self) -> int:
        """Kill it without warning."""
        return self._end(signal.SIGKILL)

    def holdfast(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `holdfast` command on this data directory."""
        name, *rest = arguments
        argv = [sys.executable, "-P", "-m", "holdfast.cli", name, "--data-dir", str(self.data_dir)]
        return _run([*argv, *rest], self.environment(), check=check)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run the real kubectl and return what it printed (with errors when not checked)."""
        assert self._kubectl is not None, "this machine was made without kubectl"
        done = _run([str(self._kubectl), *arguments], self.environment(), stdin=stdin, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *objects: dict[str, Any]) -> str:
        """Apply objects with kubectl."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """Read one object with kubectl; None when there is none."""
        text = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] | None = json.loads(text) if text.strip() else None
        return found

    def wait_for_phase(self, kind: str, name: str, phase: str, seconds: float = 20.0) -> Any:
        """Wait until an object is in a phase and return it."""

        def look() -> dict[str, Any] | None:
            obj = self.get(kind, name)
            return obj if obj and obj.get("status", {}).get("phase") == phase else None

        return eventually(look, seconds, f"{kind} {name} is {phase}")

    def environment(self) -> dict[str, str]:
        """Give the environment of its programs: nothing of the tester's own configuration."""
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        return kept | {
            "HOME": str(self._home),
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": str(SOURCE),
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
        _unmount_below(directory)
        _detach_below(directory)


def _run(
    argv: Sequence[str], env: dict[str, str], *, stdin: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv, env=env, input=stdin or "", capture_output=True, text=True, timeout=90, check=False
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


def _detach_below(directory: Path) -> None:
    listed = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"],
        check=False,
        capture_output=True,
        text=True,
    )
    for line in listed.stdout.splitlines():
        device, _, file = line.partition(" ")
        if file.strip().startswith(f"{directory}/"):
            subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)
