"""Users, projects, roles and endpoints of the test cloud, and the files clients read.

`admin` administers. `k8s` is a plain member of project `kubernetes`: what Holdfast runs as.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack
import yaml

from servers.openstack.configuration import (
    ADMIN_PASSWORD,
    HOST,
    REGION,
    SERVICE_PASSWORD,
    USER_PASSWORD,
    Ports,
)

# Volume types: the backend each goes to, and further extra specs.
TYPES: dict[str, dict[str, str]] = {
    "file": {"volume_backend_name": "file"},
    "tight": {"volume_backend_name": "tight"},
    "shared": {"volume_backend_name": "file", "multiattach": "<is> True"},
    "nowhere": {"volume_backend_name": "no-such-backend"},
}


def _auth(ports: Ports, user: str, password: str, project: str) -> dict[str, str]:
    return {
        "auth_url": ports.auth_url,
        "username": user,
        "password": password,
        "project_name": project,
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }


@contextlib.contextmanager
def connected(ports: Ports, *, admin: bool = True) -> Iterator[Any]:
    """Connect as the administrator, or as the user of project kubernetes."""
    who = ("admin", ADMIN_PASSWORD, "admin") if admin else ("k8s", USER_PASSWORD, "kubernetes")
    with warnings.catch_warnings():
        # The library warns of its own statistics, which nobody asked for.
        warnings.simplefilter("ignore")
        connection = openstack.connect(
            load_yaml_config=False,
            load_envvars=False,
            auth=_auth(ports, *who),
            region_name=REGION,
        )
    try:
        yield connection
    finally:
        connection.close()


def fill(directory: Path, ports: Ports, nova: bool) -> None:
    """Make what is in Keystone, and write cloud.conf and clouds.yaml."""
    with connected(ports) as connection:
        project = _people(connection.identity)
        _endpoints(connection.identity, ports, nova)
    (directory / "cloud.conf").write_text(
        f"[Global]\nauth-url={ports.auth_url}\nusername=k8s\npassword={USER_PASSWORD}\n"
        f"domain-name=Default\ntenant-id={project}\nregion={REGION}\n"
        "[BlockStorage]\nbs-version=v3\n"
        "[Metadata]\nsearch-order=configDrive,metadataService\n"
    )
    clouds = {
        "k8s": {"region_name": REGION, "auth": _auth(ports, "k8s", USER_PASSWORD, "kubernetes")},
        "admin": {"region_name": REGION, "auth": _auth(ports, "admin", ADMIN_PASSWORD, "admin")},
    }
    (directory / "clouds.yaml").write_text(yaml.safe_dump({"clouds": clouds}))


def make_types(ports: Ports) -> None:
    """Make the volume types and a flavour for servers; Cinder has to be there."""
    with connected(ports) as connection:
        present = {each.name for each in connection.block_storage.types()}
        for name, specs in TYPES.items():
            if name not in present:
                connection.block_storage.create_type(name=name, extra_specs=specs)


def _people(identity: Any) -> str:
    roles = {each.name: each for each in identity.roles()}
    service = identity.create_project(name="service", domain_id="default")
    kubernetes = identity.create_project(name="kubernetes", domain_id="default")
    for name in ("cinder", "nova", "placement", "neutron"):
        _user(identity, name, SERVICE_PASSWORD, service, roles["admin"], roles["service"])
    _user(identity, "k8s", USER_PASSWORD, kubernetes, roles["member"])
    return str(kubernetes.id)


def _user(identity: Any, name: str, password: str, project: Any, *roles: Any) -> None:
    user = identity.create_user(
        name=name, password=password, domain_id="default", default_project_id=project.id
    )
    for role in roles:
        identity.assign_project_role_to_user(project, user, role)


def _endpoints(identity: Any, ports: Ports, nova: bool) -> None:
    cinder = f"http://{HOST}:{ports.cinder}/v3/%(project_id)s"
    endpoints = [("volumev3", "cinderv3", cinder), ("block-storage", "cinder", cinder)]
    if nova:
        endpoints += [
            ("compute", "nova", f"http://{HOST}:{ports.nova}/v2.1"),
            ("placement", "placement", f"http://{HOST}:{ports.placement}"),
            ("network", "neutron", f"http://{HOST}:{ports.network}"),
            ("image", "glance", f"http://{HOST}:{ports.network}"),
        ]
    for type_, name, url in endpoints:
        service = identity.create_service(name=name, type=type_)
        for interface in ("public", "internal", "admin"):
            identity.create_endpoint(
                service_id=service.id, interface=interface, url=url, region_id=REGION
            )


def set_quota(ports: Ports, **limits: int) -> None:
    """Set what project kubernetes may have of volumes, gigabytes and snapshots."""
    with connected(ports) as connection:
        project = connection.identity.find_project("kubernetes")
        connection.block_storage.update_quota_set(project.id, **limits)


def set_backend(ports: Ports, type_: str, backend: str) -> bool:
    """Let the volumes of a type go to another backend; False while a volume of it exists."""
    with connected(ports) as connection:
        found = connection.block_storage.find_type(type_)
        specs = {"volume_backend_name": backend}
        try:
            connection.block_storage.update_type_extra_specs(found, **specs)
        except openstack.exceptions.BadRequestException:
            return False
        return True


def write_admin_conf(ports: Ports, path: Path) -> None:
    """Write a cloud.conf of an administrator who works in project kubernetes."""
    with connected(ports) as connection:
        identity = connection.identity
        project = identity.find_project("kubernetes")
        if identity.find_user("operator") is None:
            admin = identity.find_role("admin")
            member = identity.find_role("member")
            _user(identity, "operator", USER_PASSWORD, project, admin, member)
    path.write_text(
        f"[Global]\nauth-url={ports.auth_url}\nusername=operator\npassword={USER_PASSWORD}\n"
        f"domain-name=Default\ntenant-id={project.id}\nregion={REGION}\n"
    )


def write_stranger_conf(ports: Ports, path: Path) -> None:
    """Write a cloud.conf of a plain member of another project."""
    with connected(ports) as connection:
        identity = connection.identity
        project = identity.find_project("strangers")
        if project is None:
            project = identity.create_project(name="strangers", domain_id="default")
            _user(identity, "stranger", USER_PASSWORD, project, identity.find_role("member"))
    path.write_text(
        f"[Global]\nauth-url={ports.auth_url}\nusername=stranger\npassword={USER_PASSWORD}\n"
        f"domain-name=Default\ntenant-id={project.id}\nregion={REGION}\n"
    )


def trusted_conf(ports: Ports) -> str:
    """Let the stranger act in project kubernetes; return the cloud.conf for that."""
    with connected(ports) as connection:
        stranger = connection.identity.find_user("stranger")
    with connected(ports, admin=False) as member:
        trust = {
            "trustor_user_id": member.current_user_id,
            "trustee_user_id": stranger.id,
            "impersonation": True,
            "project_id": member.current_project_id,
            "roles": [{"name": "member"}],
        }
        made = member.identity.post("/OS-TRUST/trusts", json={"trust": trust}).json()["trust"]
    return (
        f"[Global]\nauth-url={ports.auth_url}\ntrustee-id={stranger.id}\n"
        f"trustee-password={USER_PASSWORD}\ntrust-id={made['id']}\nregion={REGION}\n"
    )
