"""`holdfast demo`: take one claim through the running system and show what came of it.

Applies the three manifests of the quickstart through the API as kubectl would,
waits until the claim is bound and the pod runs, then reads back where the
volume is mounted. Repeating it changes nothing and shows the same. It needs no
kubectl, and it prints the commands to go on with.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import click
import yaml

from holdfast.cli import connection, process, terminal
from holdfast.server import kubeconfig, rundir

_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.02
_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
_CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
_PODS = "/api/v1/namespaces/default/pods"
_EVENTS = "/api/v1/namespaces/default/events"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The three objects as they came to be, and after how many seconds."""

    storage_class: Object
    claim: Object
    pod: Object
    bound_after: float
    running_after: float


@click.command("demo")
@terminal.data_dir_option
def command(data_dir: Path) -> None:
    """Get a claim, a volume and a pod with the volume mounted, and show them.

    Holdfast must be running (holdfast up). Running this again is harmless.
    """
    holder = rundir.holder(data_dir)
    if holder is None or holder.info is None:
        raise terminal.CommandError(f"Holdfast is not running on {data_dir}: holdfast up --detach")
    access = kubeconfig.read(kubeconfig.path_in(data_dir))
    with connection.Connection(access) as api:
        outcome = _play(api, image=process.can_mount(holder.pid))
    _show(outcome, data_dir)
    _show_next(data_dir)


def manifest(name: str) -> Object:
    """Read one of the quickstart's manifests: class, claim or pod."""
    text = resources.files("holdfast.cli").joinpath("quickstart", f"{name}.yaml").read_text("utf-8")
    document: Object = yaml.safe_load(text)
    return document


def _play(api: connection.Connection, *, image: bool) -> _Outcome:
    with terminal.Progress("applying the quickstart") as progress:
        storage_class = _apply(api, _CLASSES, _class_to_apply(api, image=image))
        claim = _apply(api, _CLAIMS, manifest("claim"))
        pod = _apply(api, _PODS, manifest("pod"))

        def wait(path: str, obj: Object, phase: str) -> tuple[Object, float]:
            name = obj["metadata"]["name"]
            progress.tick(f"waiting until {obj['kind']} {name} is {phase}")
            return _until(api, f"{path}/{name}", _in_phase(phase), progress), progress.seconds

        claim, bound_after = wait(_CLAIMS, claim, "Bound")
        pod, running_after = wait(_PODS, pod, "Running")
    return _Outcome(storage_class, claim, pod, bound_after, running_after)


def _class_to_apply(api: connection.Connection, *, image: bool) -> Object:
    """Fit the class to this machine: no image without root."""
    document = manifest("class")
    if not image:
        document["parameters"]["layout"] = "directory"
    return document


def _apply(api: connection.Connection, path: str, obj: Object) -> Object:
    """Create the object, or give the one that is there; waits out one that is being deleted."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        if created := api.create(path, obj):
            return created
        existing = api.get(f"{path}/{_name(obj)}")
        if existing and "deletionTimestamp" not in existing["metadata"]:
            return existing
        time.sleep(_POLL_SECONDS)
    raise terminal.CommandError(
        f"{obj['kind']} {_name(obj)} is being deleted and does not go: "
        f"see `kubectl describe {obj['kind'].lower()} {_name(obj)}`"
    )


def _in_phase(phase: str) -> Callable[[Object], bool]:
    def arrived(obj: Object) -> bool:
        return bool((obj.get("status") or {}).get("phase") == phase)

    return arrived


def _until(
    api: connection.Connection,
    path: str,
    arrived: Callable[[Object], bool],
    progress: terminal.Progress,
) -> Object:
    while progress.seconds < _WAIT_SECONDS:
        obj = api.get(path)
        if obj is None:
            raise terminal.CommandError(f"{path} was deleted while the demo waited for it")
        if arrived(obj):
            return obj
        progress.tick()
        time.sleep(_POLL_SECONDS)
    raise terminal.CommandError(_stuck(api, path))


def _stuck(api: connection.Connection, path: str) -> str:
    """Say what kept the object, in the words of its newest warning."""
    obj = api.get(path) or {}
    phase = (obj.get("status") or {}).get("phase", "gone")
    text = f"{path} is still {phase} after {_WAIT_SECONDS:.0f} s"
    uid = obj.get("metadata", {}).get("uid")
    events = [event for event in api.items(_EVENTS) if event["involvedObject"].get("uid") == uid]
    if events:
        newest = max(events, key=lambda event: str(event.get("lastTimestamp") or ""))
        return f"{text}: {newest.get('reason')}: {newest.get('message')}"
    return f"{text}, and no event says why: see `holdfast status`"


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _show(outcome: _Outcome, data_dir: Path) -> None:
    claim, pod = outcome.claim, outcome.pod
    volume = str(claim["spec"]["volumeName"])
    layout = (outcome.storage_class.get("parameters") or {}).get("layout", "image")
    capacity = claim["status"]["capacity"]["storage"]
    node = pod["spec"]["nodeName"]
    rows = [
        ("class", _name(outcome.storage_class), f"layout {layout}"),
        ("claim", _name(claim), f"Bound after {outcome.bound_after:.2f} s, {capacity}"),
        ("volume", volume, ""),
        ("pod", _name(pod), f"Running after {outcome.running_after:.2f} s, on node {node}"),
    ]
    for line in terminal.table(rows):
        terminal.say(line)
    if where := mount_of(data_dir, pod["metadata"]["uid"], volume):
        terminal.say(f"  mount   {where}")
        terminal.say(f"          {_usage(where)}")


def mount_of(data_dir: Path, pod_uid: str, volume: str) -> Path | None:
    """Find where the node has mounted the volume for the pod."""
    pattern = f"nodes/*/pods/{pod_uid}/volumes/*/{volume}/mount"
    return next(iter(sorted(data_dir.glob(pattern))), None)


def _usage(path: Path) -> str:
    with contextlib.suppress(OSError):
        usage = os.statvfs(path)
        total, free = usage.f_blocks * usage.f_frsize, usage.f_bavail * usage.f_frsize
        used = total - usage.f_bfree * usage.f_frsize
        text = (
            f"{terminal.size(total)} size, {terminal.size(used)} used, {terminal.size(free)} free"
        )
        own = path.stat().st_dev != path.parent.stat().st_dev
        return text if own else f"{text} (shared: the size of a directory is not enforced)"
    return "its use cannot be read as this user"


def _show_next(data_dir: Path) -> None:
    path = kubeconfig.path_in(data_dir)
    terminal.say(f"kubeconfig: {path}")
    terminal.say("Try next:")
    terminal.say(f"  export KUBECONFIG={path}")
    terminal.say("  kubectl get storageclass,pv,pvc,pod")
    terminal.say("  kubectl describe pvc first-claim")
    terminal.say("  kubectl delete pod first-pod; kubectl delete pvc first-claim")
