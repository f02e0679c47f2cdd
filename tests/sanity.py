"""Runs csi-sanity against a driver's socket and reads what it found.

    result = sanity.run(sanity.Configuration(socket, parameters={"layout": "image"}), tmp_path)
    assert result.failed == {}, result.report()

For any backend: give the class's parameters, the secrets of each call, and sizes that are
whole units of the storage system. The directory must be short, for sockets lie below it.
"""

from __future__ import annotations

import json
import os
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import machine

GI = 1 << 30
PROGRAM = machine.ROOT / "tools" / "servers" / "csi-sanity"


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is tested, and with what. `secrets` is by call: `CreateVolumeSecret` and so on."""

    socket: Path
    controller: Path | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    snapshot_parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    size: int = GI
    expanded_size: int = 2 * GI
    block: bool = False
    attach_limit: bool = False
    options: Sequence[str] = ()
    seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Result:
    """Names of the specs that passed; texts of the failed and reasons of the skipped ones."""

    passed: Sequence[str]
    failed: Mapping[str, str]
    skipped: Mapping[str, str]
    output: str = field(repr=False)

    def report(self) -> str:
        """Return every failure with its text."""
        return "\n\n".join(f"{name}\n{text}" for name, text in self.failed.items())


def run(configuration: Configuration, directory: Path) -> Result:
    """Run all specs; files and mounts lie below `directory`."""
    report = directory / "sanity.xml"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [_program(), *_arguments(configuration, directory), f"--ginkgo.junit-report={report}"],
        capture_output=True,
        text=True,
        timeout=configuration.seconds,
        check=False,
    )
    output = done.stdout + done.stderr
    if not report.exists():
        raise machine.Failed(f"csi-sanity wrote no report (exit {done.returncode}):\n{output}")
    result = _read(report, output)
    if done.returncode != 0 and not result.failed:
        raise machine.Failed(f"csi-sanity ended with {done.returncode}:\n{output}")
    return result


def _program() -> str:
    """Build csi-sanity unless it is there; a machine that cannot build it fails."""
    done = subprocess.run([PROGRAM], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise machine.Failed(f"no csi-sanity: {done.stderr}")
    return done.stdout.strip()


def _arguments(configuration: Configuration, directory: Path) -> list[str]:
    found = [
        f"--csi.endpoint=unix:{configuration.socket}",
        f"--csi.controllerendpoint=unix:{configuration.controller or configuration.socket}",
        f"--csi.mountdir={directory}/mnt",
        f"--csi.stagingdir={directory}/stage",
        f"--csi.testvolumesize={configuration.size}",
        f"--csi.testvolumeexpandsize={configuration.expanded_size}",
        f"--csi.testvolumeparameters={_written(directory, 'class', configuration.parameters)}",
        f"--csi.testvolumeaccesstype={'block' if configuration.block else 'mount'}",
    ]
    if configuration.snapshot_parameters:
        path = _written(directory, "snapshot-class", configuration.snapshot_parameters)
        found.append(f"--csi.testsnapshotparameters={path}")
    if configuration.secrets:
        found.append(f"--csi.secrets={_written(directory, 'secrets', configuration.secrets)}")
    if configuration.attach_limit:
        found.append("--csi.testnodevolumeattachlimit")
    return [*found, *configuration.options]


def _written(directory: Path, name: str, content: Mapping[str, object]) -> Path:
    path = directory / f"{name}.yaml"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        # JSON is YAML.
        json.dump({key: _plain(value) for key, value in content.items()}, file)
    return path


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _read(report: Path, output: str) -> Result:
    passed: list[str] = []
    failed: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name, status = case.get("name", ""), case.get("status", "")
        if not name.startswith("[It] ") and status == "passed":
            continue  # set-up and reporting around the specs
        name = name.removeprefix("[It] ")
        if status == "passed":
            passed.append(name)
        elif status in ("skipped", "pending"):
            reason = case.find("skipped")
            skipped[name] = (reason.get("message") or "") if reason is not None else status
        else:
            texts = [child.text or child.get("message") or "" for child in case]
            failed[name] = "\n".join(text for text in texts if text) or status
    return Result(passed, failed, skipped, output)
