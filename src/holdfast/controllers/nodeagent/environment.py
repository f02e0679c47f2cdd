"""The environment of a container: values, references to objects and fields, expansion.

`$(NAME)` stands for a variable defined before, in values, commands, arguments and
subPaths; `$$` is a dollar sign; a name that is not known stays as it is written.

The invariant: values may be secret, so they are in no error and no log.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.api import errors, kinds
from holdfast.controllers.nodeagent import content
from holdfast.controllers.nodeagent.containerspecs import Container, EnvSource, EnvVar
from holdfast.runtime.client import Client

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


class ConfigError(Exception):
    """The container cannot be made from what its pod says; the text is shown to users."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace the references of a text."""

    def value(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return env.get(found[2], found[0])

    return _REFERENCE.sub(value, text)


def expand_all(texts: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Replace the references of several texts."""
    return tuple(expand(text, env) for text in texts)


class Environments:
    """Makes environments; config maps and secrets are read when a container starts."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def of(self, pod: Mapping[str, Any], container: Container, host: str) -> dict[str, str]:
        """The whole environment of a container. Raises ConfigError."""
        env = {"PATH": PATH, "HOSTNAME": host, "HOME": "/root"}
        if container.tty:
            env["TERM"] = "xterm"
        for source in container.env_from:
            env |= await self._all_of(pod, source)
        for variable in container.env:
            value = await self._value(pod, container, variable)
            if value is not None:
                env[variable.name] = value if variable.value_from else expand(value, env)
        return env

    async def _all_of(self, pod: Mapping[str, Any], source: EnvSource) -> dict[str, str]:
        kind = kinds.CONFIG_MAP if source.config_map_ref is not None else kinds.SECRET
        reference = source.config_map_ref or source.secret_ref or {}
        data = await self._data(pod, kind, reference)
        named = {f"{source.prefix}{key}": value for key, value in (data or {}).items()}
        return {name: value for name, value in named.items() if _NAME.fullmatch(name)}

    async def _value(
        self, pod: Mapping[str, Any], container: Container, variable: EnvVar
    ) -> str | None:
        source = variable.value_from
        if source is None:
            return variable.value
        if "fieldRef" in source:
            return _field(pod, source["fieldRef"].get("fieldPath", ""))
        if "resourceFieldRef" in source:
            return _resource(container, source["resourceFieldRef"])
        if "configMapKeyRef" in source:
            return await self._key(pod, kinds.CONFIG_MAP, source["configMapKeyRef"])
        if "secretKeyRef" in source:
            return await self._key(pod, kinds.SECRET, source["secretKeyRef"])
        raise ConfigError(f"environment variable {variable.name}: valueFrom names no known source")

    async def _key(
        self, pod: Mapping[str, Any], kind: kinds.Kind, reference: Mapping[str, Any]
    ) -> str | None:
        data = await self._data(pod, kind, reference)
        if data is None:
            return None
        key = reference.get("key", "")
        if key not in data and not reference.get("optional"):
            name = f"{pod['metadata']['namespace']}/{reference.get('name', '')}"
            said = "ConfigMap" if kind is kinds.CONFIG_MAP else "Secret"
            raise ConfigError(f"couldn't find key {key} in {said} {name}")
        return data.get(key)

    async def _data(
        self, pod: Mapping[str, Any], kind: kinds.Kind, reference: Mapping[str, Any]
    ) -> dict[str, str] | None:
        name = reference.get("name", "")
        try:
            obj = await self._client.get(kind, name, pod["metadata"]["namespace"])
        except errors.NotFound as error:
            if reference.get("optional"):
                return None
            raise ConfigError(f'{kind.singular} "{name}" not found') from error
        data: Mapping[str, str] = obj.get("data") or {}
        if kind is kinds.CONFIG_MAP:
            return dict(data)
        return {key: base64.b64decode(text).decode(errors="replace") for key, text in data.items()}


def _field(pod: Mapping[str, Any], path: str) -> str:
    spec, status = pod.get("spec", {}), pod.get("status", {})
    values = {
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.hostIP": status.get("hostIP", ""),
        "status.podIP": status.get("podIP", ""),
        "status.hostIPs": status.get("hostIP", ""),
        "status.podIPs": status.get("podIP", ""),
    }
    value = values[path] if path in values else content.pod_field(pod, path)
    if value is None:
        raise ConfigError(f"fieldRef: the field {path} is not known")
    return str(value)


def _resource(container: Container, reference: Mapping[str, Any]) -> str:
    resources = {"limits": container.resources.limits, "requests": container.resources.requests}
    text = content.amount_of(resources, reference)
    if text is None:
        raise ConfigError(f"resourceFieldRef: {reference.get('resource')} is not known")
    return text
