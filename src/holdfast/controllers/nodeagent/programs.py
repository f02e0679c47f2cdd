"""From a container of a pod to the program that runs in its sandbox.

Images are not pulled. A container that says its command runs that command, as far as this
machine has it; any other sleeps: its volumes are there, and so are `exec` and `cp`.

The invariant: everything a program gets to see of a volume is a mount made from a path
that was resolved beneath the volume's own root.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.api import views
from holdfast.backends import errors
from holdfast.controllers.nodeagent import environment
from holdfast.controllers.nodeagent.containerspecs import Container, Spec
from holdfast.controllers.nodeagent.environment import ConfigError
from holdfast.kit import clock
from holdfast.node import sandbox, subpaths
from holdfast.node.containers import MESSAGE, About

ROOT_USER = "container has runAsNonRoot and image will run as root"


def describe(
    container: Container,
    spec: Spec,
    env: Mapping[str, str],
    binds: Sequence[sandbox.Bind],
    *,
    host: str,
    hidden: Sequence[str],
) -> tuple[sandbox.Program, About]:
    """The program of a container and what is to be remembered of it. Raises ConfigError."""
    who = identity(container, spec)
    argv = environment.expand_all((*container.command, *container.args), env)
    sleeps = _why_it_sleeps(container, argv, env, binds, hidden)
    program = sandbox.Program(
        argv=(shutil.which("sleep") or "sleep", "infinity") if sleeps else argv,
        hostname=host,
        directory=sandbox.resolved(container.working_dir or "/"),
        env=env,
        binds=tuple(binds),
        hidden=tuple(hidden),
        identity=who,
    )
    about = About(
        started=clock.rfc3339(clock.now()),
        sleeps=sleeps,
        terminal=container.tty and not sleeps,
        stdin=container.stdin and not sleeps,
        identity=who,
    )
    return program, about


def identity(container: Container, spec: Spec) -> sandbox.Identity:
    """Whom the container runs as: its own security context, then the pod's. Raises ConfigError."""
    own, pod = container.security_context, spec.security_context
    user = own.run_as_user if own.run_as_user is not None else pod.run_as_user
    group = own.run_as_group if own.run_as_group is not None else pod.run_as_group
    not_root = own.run_as_non_root if own.run_as_non_root is not None else pod.run_as_non_root
    if not_root and not user:
        raise ConfigError(ROOT_USER)
    groups = [*pod.supplemental_groups, *([] if pod.fs_group is None else [pod.fs_group])]
    dropped = (name.lower().removeprefix("cap_") for name in own.capabilities.drop)
    return sandbox.Identity(user or 0, group or 0, tuple(dict.fromkeys(groups)), frozenset(dropped))


def binds(
    container: Container,
    volumes: Mapping[str, Path],
    env: Mapping[str, str],
    view: sandbox.View,
    directory: Path,
) -> list[sandbox.Bind]:
    """What the container sees of its volumes. Raises ConfigError. Blocks."""
    found = []
    for index, mount in enumerate(container.volume_mounts):
        try:
            source = _source(mount, volumes, env, view, index)
        except (errors.BackendError, OSError) as error:
            raise ConfigError(
                f'failed to prepare subPath for volumeMount "{mount.name}" of container '
                f'"{container.name}": {error}'
            ) from error
        target = sandbox.resolved(mount.mount_path)
        found.append(sandbox.Bind(str(source), target, read_only=mount.read_only))
    for device in container.volume_devices:
        source = _volume(device.name, volumes)
        found.append(sandbox.Bind(str(source), device.device_path, device=True))
    if container.termination_message_path:
        target = sandbox.resolved(container.termination_message_path)
        found.append(sandbox.Bind(str(directory / MESSAGE), target))
    return found


def _source(
    mount: views.VolumeMount,
    volumes: Mapping[str, Path],
    env: Mapping[str, str],
    view: sandbox.View,
    index: int,
) -> Path:
    volume = _volume(mount.name, volumes)
    path = mount.sub_path or environment.expand(mount.sub_path_expr, env)
    if not path:
        return volume
    with subpaths.opened(volume, path, create=not mount.read_only) as opened:
        return view.hold(opened, str(index))


def _volume(name: str, volumes: Mapping[str, Path]) -> Path:
    volume = volumes.get(name)
    if volume is None:
        raise ConfigError(f'the volume "{name}" of a volumeMount is not in the pod')
    return volume


def _why_it_sleeps(
    container: Container,
    argv: Sequence[str],
    env: Mapping[str, str],
    binds: Sequence[sandbox.Bind],
    hidden: Sequence[str],
) -> str:
    """Say why the command does not run here, or "" when it does."""
    if not container.command:
        return f'image "{container.image}" is not pulled and its own command is not known'
    program = argv[0]
    if "/" in program:
        program = os.path.normpath(os.path.join(container.working_dir or "/", program))  # noqa: PTH118
    if sandbox.provides(program, env.get("PATH", environment.PATH), binds, hidden):
        return ""
    return f'"{argv[0]}" is not on this machine and image "{container.image}" is not pulled'


def hostname(pod: Mapping[str, Any], spec: Spec) -> str:
    """The name of the pod's machine: its hostname, else the pod's name, cut to what fits."""
    return (spec.hostname or str(pod["metadata"]["name"]))[:63].rstrip("-.")
