"""`holdfast status`: does it run, what does it serve, what is wrong.

The first part comes from the lock and /proc and works whatever state the API
is in; the second asks the API. A problem is anything that waits or failed,
with the newest warning about it. Exit code 0: runs; 1: does not.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from holdfast.cli import connection, process, terminal
from holdfast.kit import clock
from holdfast.server import kubeconfig, rundir

Object = dict[str, Any]

# What is counted: heading and path. The phases that are a problem stand in _WRONG.
_KINDS: Mapping[str, str] = {
    "nodes": "/api/v1/nodes",
    "claims": "/api/v1/persistentvolumeclaims",
    "volumes": "/api/v1/persistentvolumes",
    "pods": "/api/v1/pods",
}
_WRONG: Mapping[str, tuple[str, ...]] = {
    "nodes": ("NotReady",),
    "claims": ("Pending", "Lost"),
    "volumes": ("Pending", "Failed"),
    "pods": ("Pending", "Failed", "Unknown"),
}
_SINGULAR = {"nodes": "node", "claims": "pvc", "volumes": "pv", "pods": "pod"}
_SHOWN_PROBLEMS = 20


@click.command("status")
@terminal.data_dir_option
def command(data_dir: Path) -> None:
    """Show whether Holdfast runs, what it serves and what is wrong."""
    holder = rundir.holder(data_dir)
    if holder is None:
        terminal.say(f"Holdfast is not running on {data_dir}.")
        sys.exit(1)
    if holder.info is None:
        terminal.say(f"Holdfast on {data_dir}: {holder}.")
        sys.exit(1)
    terminal.say(f"Holdfast {holder.info.version} runs at {holder.info.url}")
    rows = _process_rows(data_dir, holder.info)
    with connection.Connection(kubeconfig.read(kubeconfig.path_in(data_dir))) as api:
        found = {kind: api.items(path) for kind, path in _KINDS.items()}
        problems = list(_problems(api, found))
    rows += [(kind, _counts(kind, objects)) for kind, objects in found.items()]
    for line in terminal.table(rows):
        terminal.say(line)
    terminal.say("no problems" if not problems else f"problems ({len(problems)}):")
    for text in problems[:_SHOWN_PROBLEMS]:
        terminal.say(f"  {text}")
    if len(problems) > _SHOWN_PROBLEMS:
        terminal.say(f"  and {len(problems) - _SHOWN_PROBLEMS} more: kubectl get events -A")


def phase_of(kind: str, obj: Object) -> str:
    """Give the state an object is counted under."""
    status = obj.get("status") or {}
    if kind == "nodes":
        conditions = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
        return "Ready" if conditions.get("Ready") == "True" else "NotReady"
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    return str(status.get("phase") or "Pending")


def _process_rows(data_dir: Path, info: rundir.RunInfo) -> list[tuple[str, str]]:
    uptime = clock.age((clock.now() - clock.parse(info.started)).total_seconds())
    memory = process.resident_bytes(info.pid)
    return [
        ("process", f"{info.pid}, up {uptime}"),
        ("memory", terminal.size(memory) if memory is not None else "unknown"),
        ("data", str(data_dir)),
        ("kubeconfig", str(kubeconfig.path_in(data_dir))),
    ]


def _counts(kind: str, objects: list[Object]) -> str:
    phases = Counter(phase_of(kind, obj) for obj in objects)
    parts = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    return f"{len(objects)} ({parts})" if parts else "0"


def _problems(api: connection.Connection, found: Mapping[str, list[Object]]) -> Iterable[str]:
    wrong = [
        (kind, obj)
        for kind, objects in found.items()
        for obj in objects
        if phase_of(kind, obj) in _WRONG[kind]
    ]
    reasons = _reasons(api.items("/api/v1/events")) if wrong else {}
    for kind, obj in wrong:
        meta = obj["metadata"]
        name = f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]
        reason = reasons.get(meta["uid"]) or (obj.get("status") or {}).get("message")
        text = f"{_SINGULAR[kind]} {name} is {phase_of(kind, obj)}"
        yield f"{text}: {reason}" if reason else text


def _reasons(events: list[Object]) -> dict[str, str]:
    """Give the newest event's text by the UID of its object, a warning before a normal one."""

    def rank(event: Object) -> tuple[bool, str]:
        return event.get("type") == "Warning", str(event.get("lastTimestamp") or "")

    return {
        str(event["involvedObject"].get("uid")): str(event.get("message", "")).strip()
        for event in sorted(events, key=rank)
    }
