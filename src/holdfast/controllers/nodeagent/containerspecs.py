"""Typed views of what a pod says about running its containers.

`api.views` holds what every controller reads of a pod; this is what only the node agent
does: commands, environments, probes, hooks, security. Like all views they are snapshots
and are never written back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.api import views
from holdfast.api.views import Fields


class View(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What all views here share: frozen, wire names, unknown fields ignored."""


class EnvVar(View, frozen=True):
    name: str = ""
    value: str = ""
    value_from: Fields | None = None


class EnvSource(View, frozen=True):
    prefix: str = ""
    config_map_ref: Fields | None = None
    secret_ref: Fields | None = None


class ExecAction(View, frozen=True):
    command: list[str] = []


class HttpHeader(View, frozen=True):
    name: str = ""
    value: str = ""


class HttpGetAction(View, frozen=True):
    path: str = "/"
    port: int | str = 0
    host: str = ""
    scheme: str = ""
    http_headers: list[HttpHeader] = []


class TcpSocketAction(View, frozen=True):
    port: int | str = 0
    host: str = ""


class GrpcAction(View, frozen=True):
    port: int = 0
    service: str | None = None


class SleepAction(View, frozen=True):
    seconds: int = 0


class Probe(View, frozen=True):
    """A probe; at most one kind of action is there. Times in seconds."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None

    @property
    def asks(self) -> bool:
        """Whether it says what to do."""
        return any((self.exec, self.http_get, self.tcp_socket, self.grpc))


class Hook(View, frozen=True):
    """What is done after a start or before a stop; a TCP connection never could be."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(View, frozen=True):
    post_start: Hook | None = None
    pre_stop: Hook | None = None


class Capabilities(View, frozen=True):
    add: list[str] = []
    drop: list[str] = []


class Security(View, frozen=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: list[int] = []
    capabilities: Capabilities = Capabilities()


class ContainerPort(View, frozen=True):
    name: str = ""
    container_port: int = 0


class Container(View, frozen=True):
    name: str = ""
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    ports: list[ContainerPort] = []
    env: list[EnvVar] = []
    env_from: list[EnvSource] = []
    resources: views.Resources = views.Resources()
    volume_mounts: list[views.VolumeMount] = []
    volume_devices: list[views.VolumeDevice] = []
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle = Lifecycle()
    security_context: Security = Security()
    restart_policy: str = ""
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class Spec(View, frozen=True):
    node_name: str = ""
    hostname: str = ""
    service_account_name: str = ""
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    containers: list[Container] = []
    init_containers: list[Container] = []
    security_context: Security = Security()

    def container(self, name: str) -> Container | None:
        """The container of this name, an init container or not."""
        every = (*self.containers, *self.init_containers)
        return next((each for each in every if each.name == name), None)


def of(pod: Mapping[str, Any]) -> Spec:
    """View the spec of a pod."""
    return msgspec.convert(pod["spec"], Spec)
