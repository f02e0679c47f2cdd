"""The official sidecars, as a cluster runs them beside a driver.

`tools/servers/sidecars/build` makes them; it takes some minutes the first time. They reach the
driver over its socket and the cluster with a kubeconfig; each is ended by its pid.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_BUILD = Path(__file__).parents[3] / "tools/servers/sidecars/build"
_START_SECONDS = 1.0
# No limit on requests: the tests are not about client-go's.
_RATE = ("--kube-api-qps=200", "--kube-api-burst=400")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "csi-provisioner": (*_RATE, "--extra-create-metadata", "--strict-topology"),
    "csi-attacher": _RATE,
    "csi-resizer": (*_RATE, "--handle-volume-inuse-error=false"),
    "csi-snapshotter": (*_RATE, "--extra-create-metadata"),
    "snapshot-controller": _RATE,
}


class Failed(AssertionError):
    """A sidecar was not built or ended; the text has its log's end."""


def built() -> Path:
    """Return the directory of the programs, made now if need be."""
    done = subprocess.run([str(_BUILD)], capture_output=True, text=True, timeout=1500)
    if done.returncode:
        raise Failed(f"{_BUILD}:\n{done.stderr[-3000:]}")
    return Path(done.stdout.strip())


@contextlib.contextmanager
def running(
    programs: Path, directory: Path, socket: Path, kubeconfig: Path, *names: str
) -> Iterator[None]:
    """Run sidecars on a driver's socket; they must still run at the end."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in names:
            address = () if name == "snapshot-controller" else (f"--csi-address={socket}",)
            argv = [str(programs / name), f"--kubeconfig={kubeconfig}", *address]
            with (directory / f"{name}.log").open("ab") as log:
                started[name] = subprocess.Popen(
                    [*argv, "--v=5", *_OPTIONS[name]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=directory,
                    env={"HOME": str(directory), "POD_NAMESPACE": "kube-system"},
                )
        time.sleep(_START_SECONDS)
        _check(started, directory)
        yield
        _check(started, directory)
    finally:
        for process in started.values():
            process.kill()
            process.wait()


def _check(started: Mapping[str, subprocess.Popen[bytes]], directory: Path) -> None:
    for name, process in started.items():
        if process.poll() is not None:
            log = (directory / f"{name}.log").read_text()
            raise Failed(f"{name} ended with {process.returncode}:\n{log[-3000:]}")
