"""Makes a cloud ready for Kubernetes: a login of its own, cloud.conf, Secret and class.

An application credential is a login for one project that can be taken back
without changing anybody's password. It gets the role `member` only, whatever
its maker has, and cannot make further credentials. Keystone shows its secret
once, so it is written to cloud.conf at once; a second run finds the name taken
and says so rather than leaving a second login behind.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from holdfast.backends import errors
from holdfast.backends.cinder import legacy, making, settings
from holdfast.backends.cinder.clouds import Cloud, Clouds
from holdfast.kit import files

ROLE = "member"
SHOWN = "********"
NO_MORE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made. `login` are the keys of `[cinder.NAME]` that say who makes it."""

    login: Mapping[str, object] = field(repr=False)
    credential: str = "holdfast"
    secret: str = "cloud-config"
    namespace: str = "kube-system"
    storage_class: str = "csi-sc-cinderplugin"
    provisioner: str = legacy.DRIVER
    type: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made, or would be. `conf` and `manifests` hold the secret."""

    steps: Sequence[str]
    conf: str = field(repr=False)
    manifests: Sequence[Mapping[str, Any]] = field(repr=False)

    def shown(self, *, secrets: bool) -> str:
        """Return Secret and class as YAML; without `secrets` their values are hidden."""
        documents = [dict(each) for each in self.manifests]
        if not secrets:
            for each in documents:
                if each["kind"] == "Secret":
                    each["data"] = {key: SHOWN for key in each["data"]}
        return str(yaml.safe_dump_all(documents, sort_keys=False))


async def prepare(plan: Plan, *, dry_run: bool) -> Prepared:
    """Make the application credential and return the files that use it.

    Raises AlreadyExists when there is one of this name, Unauthorized, Invalid.
    """
    clouds = Clouds({settings.DEFAULT: plan.login})
    try:
        cloud = clouds.choose("", {})
        auth_url = await cloud.run(lambda endpoint: endpoint.auth_url())
        region = await cloud.run(lambda endpoint: endpoint.region())
        way = await cloud.run(lambda endpoint: endpoint.way())
        if plan.type:
            await making.type_id(cloud, plan.type)
        user = await cloud.run(lambda endpoint: endpoint.user())
        await _refuse_taken(cloud, user, plan.credential)
        steps = [
            f'application credential "{plan.credential}" with role {ROLE}',
            f"Secret {plan.namespace}/{plan.secret} with cloud.conf",
            f'StorageClass "{plan.storage_class}" for {plan.provisioner}',
        ]
        if dry_run:
            made: Mapping[str, str] = {"id": SHOWN, "secret": SHOWN}
        else:
            made = await _make(cloud, user, plan.credential)
        conf = cloud_conf(auth_url, region, made["id"], made["secret"], way)
        return Prepared(steps, conf, (secret(plan, conf), storage_class(plan)))
    finally:
        await clouds.close()


async def remove(plan: Plan, *, dry_run: bool = False) -> bool:
    """Take the application credential back; False when there is none of this name."""
    clouds = Clouds({settings.DEFAULT: plan.login})
    try:
        cloud = clouds.choose("", {})
        user = await cloud.run(lambda endpoint: endpoint.user())
        for each in await _credentials(cloud, user):
            if each["name"] == plan.credential:
                path = f"/users/{user}/application_credentials/{each['id']}"
                if not dry_run:
                    await cloud.request("identity", "DELETE", path)
                return True
        return False
    finally:
        await clouds.close()


def refuse_existing(path: Path) -> None:
    """Raise AlreadyExists when there is a file that `write` would replace."""
    if path.exists():
        raise errors.AlreadyExists("is there already", str(path), "name another with --conf")


def make_place(path: Path) -> None:
    """Make the directory for a file, before there is a secret that could be lost.

    Raises AlreadyExists, Unavailable.
    """
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise errors.Unavailable(
            f"nothing can be written there ({error.strerror})",
            str(path.parent),
            "name another place with --conf, or use sudo",
        ) from error


def write(path: Path, conf: str) -> None:
    """Write cloud.conf for its owner only. Raises AlreadyExists instead of replacing one."""
    make_place(path)
    files.write_atomic(path, conf.encode(), mode=0o600)


def cloud_conf(
    auth_url: str, region: str, id: str, secret: str, way: Mapping[str, str] = NO_MORE
) -> str:
    """Return the text of a cloud.conf with an application credential; `way` are further keys."""
    lines = ["[Global]", f"auth-url = {auth_url}"]
    lines += [f"application-credential-id = {id}", f"application-credential-secret = {secret}"]
    if region:
        lines.append(f"region = {region}")
    lines += [f'{key} = "{value}"' for key, value in way.items()]
    lines += ["", "[BlockStorage]", "bs-version = v3"]
    lines += ["", "[Metadata]", f"search-order = {','.join(settings.SOURCES)}", ""]
    return "\n".join(lines)


def secret(plan: Plan, conf: str) -> dict[str, Any]:
    """Return the Secret; its data is encoded once, as Kubernetes wants it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": plan.secret, "namespace": plan.namespace},
        "type": "Opaque",
        "data": {"cloud.conf": base64.b64encode(conf.encode()).decode()},
    }


def storage_class(plan: Plan) -> dict[str, Any]:
    """Return the class, which waits for a pod so that the volume is in the pod's zone."""
    parameters = {"type": plan.type} if plan.type else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": plan.storage_class},
        "provisioner": plan.provisioner,
        **({"parameters": parameters} if parameters else {}),
        "allowVolumeExpansion": True,
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def default_conf() -> Path:
    """Return where cloud.conf goes unless told otherwise."""
    return settings.home(os.environ) / "cloud.conf"


async def _credentials(cloud: Cloud, user: str) -> list[Mapping[str, Any]]:
    answer = await cloud.request("identity", "GET", f"/users/{user}/application_credentials")
    found: list[Mapping[str, Any]] = answer["application_credentials"]
    return found


async def _refuse_taken(cloud: Cloud, user: str, name: str) -> None:
    if any(each["name"] == name for each in await _credentials(cloud, user)):
        raise errors.AlreadyExists(
            f'there is an application credential "{name}" already, and Keystone does not show '
            "its secret again",
            f"Keystone of {cloud.instance.where}",
            "use the cloud.conf that was made with it, take it back with --remove, "
            "or name another with --name",
        )


async def _make(cloud: Cloud, user: str, name: str) -> Mapping[str, str]:
    body = {
        "application_credential": {
            "name": name,
            "description": "Holdfast: volumes for Kubernetes",
            "roles": [{"name": ROLE}],
            "unrestricted": False,
        }
    }
    path = f"/users/{user}/application_credentials"
    try:
        answer = await cloud.request("identity", "POST", path, body)
    except errors.Unauthorized as error:
        raise errors.Unauthorized(
            error.what,
            error.where,
            "log in with a user and password: an application credential may not make another",
        ) from error
    except errors.Invalid as error:
        raise errors.Invalid(
            error.what,
            error.where,
            f"the user needs the role {ROLE} itself: openstack role add --user USER "
            f"--project PROJECT {ROLE}",
        ) from error
    found = answer["application_credential"]
    return {"id": str(found["id"]), "secret": str(found["secret"])}
