"""The configuration files of the test cloud's services.

Everything is in one directory of the test's own: SQLite databases, fernet keys, the volumes'
files. Messages stay inside each process (`fake://`), so there is no broker. Two volume backends
are made of the loop-device driver: `file`, and `tight` with 3 GB in another zone.
"""

from __future__ import annotations

import base64
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
SERVICE_PASSWORD = "svc-password"
ADMIN_PASSWORD = "admin-password"
USER_PASSWORD = "k8s-password"
METADATA_SECRET = "metadata-secret"
REGION = "RegionOne"
# How many disks Nova gives a server, its root disk among them.
MOST_DISKS = 8


@dataclass(frozen=True)
class Ports:
    """Where each service listens on the loopback address."""

    keystone: int
    cinder: int
    placement: int
    nova: int
    metadata: int
    network: int

    @property
    def auth_url(self) -> str:
        """Keystone's address."""
        return f"http://{HOST}:{self.keystone}/v3"


def write(directory: Path, venv: Path, ports: Ports, token_seconds: int) -> None:
    """Write the files of all services below `directory`/etc."""
    etc = directory / "etc"
    for each in ("etc", "data", "state/nova", "run", "log", "guests"):
        (directory / each).mkdir(parents=True, exist_ok=True)
    for repository in ("fernet-keys", "credential-keys"):
        _write_keys(etc / repository)
    files = {
        "keystone.conf": _keystone(directory, token_seconds),
        "cinder.conf": _cinder(directory, venv, ports),
        "placement.conf": _placement(directory, ports),
        "nova.conf": _nova(directory, venv, ports),
    }
    for name, content in files.items():
        (etc / name).write_text(textwrap.dedent(content))
    (directory / "state/nova/compute_id").write_text("6f0a1c52-51f3-4a2f-8c0c-2f6f5d0f6b11\n")
    sudo = directory / "bin/sudo"
    sudo.parent.mkdir(exist_ok=True)
    sudo.write_text(_SUDO)
    sudo.chmod(0o755)


# The services run as root already: leave out sudo's options and rootwrap with its file.
_SUDO = """\
#!/bin/sh
while :; do case "$1" in -*) shift;; *) break;; esac; done
case "$1" in *-rootwrap) shift 2;; esac
exec "$@"
"""


def _write_keys(repository: Path) -> None:
    repository.mkdir(mode=0o700, exist_ok=True)
    for name in ("0", "1"):
        key = repository / name
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(base64.urlsafe_b64encode(os.urandom(32)))


def _auth(ports: Ports, user: str) -> str:
    return f"""\
        auth_url = {ports.auth_url}
        auth_type = password
        username = {user}
        password = {SERVICE_PASSWORD}
        project_name = service
        user_domain_name = Default
        project_domain_name = Default
        region_name = {REGION}"""


def _token(ports: Ports, user: str) -> str:
    return f"""\
        [keystone_authtoken]
        www_authenticate_uri = {ports.auth_url}
        service_token_roles = service
        service_token_roles_required = true
        token_cache_time = 5
{_auth(ports, user)}"""


def _keystone(directory: Path, token_seconds: int) -> str:
    return f"""\
        [database]
        connection = sqlite:///{directory}/data/keystone.db
        [token]
        provider = fernet
        expiration = {token_seconds}
        allow_expired_window = 0
        [fernet_tokens]
        key_repository = {directory}/etc/fernet-keys
        [fernet_receipts]
        key_repository = {directory}/etc/fernet-keys
        [credential]
        key_repository = {directory}/etc/credential-keys
        [cache]
        enabled = true
        backend = dogpile.cache.memory
        [identity]
        password_hash_rounds = 4
        """


def _cinder(directory: Path, venv: Path, ports: Ports) -> str:
    return f"""\
        [DEFAULT]
        transport_url = fake://
        auth_strategy = keystone
        host = cinder
        my_ip = {HOST}
        state_path = {directory}/state
        api_paste_config = {venv}/etc/cinder/api-paste.ini
        resource_query_filters_file = {venv}/etc/cinder/resource_filters.json
        rootwrap_config = {venv}/etc/cinder/rootwrap.conf
        enabled_backends = file,tight
        default_volume_type = __DEFAULT__
        storage_availability_zone = nova
        scheduler_driver_init_wait_time = 5
        backend_stats_polling_interval = 5
        periodic_interval = 5
        periodic_fuzzy_delay = 0
        report_interval = 3
        service_down_time = 12
        [database]
        connection = sqlite:///{directory}/data/cinder.db
        [oslo_concurrency]
        lock_path = {directory}/state/lock
{_token(ports, "cinder")}
        service_type = volumev3
        [nova]
{_auth(ports, "cinder")}
        [service_user]
        send_service_user_token = true
{_auth(ports, "cinder")}
        [file]
        volume_driver = filevol.FileDriver
        volume_backend_name = file
        file_dir = {directory}/state/volumes
        file_hold = {directory}/state/hold
        file_capacity_gb = 1000
        [tight]
        volume_driver = filevol.FileDriver
        volume_backend_name = tight
        backend_availability_zone = zone-b
        file_dir = {directory}/state/volumes-tight
        file_hold = {directory}/state/hold-tight
        file_capacity_gb = 3
        """


def _placement(directory: Path, ports: Ports) -> str:
    return f"""\
        [api]
        auth_strategy = keystone
        [placement_database]
        connection = sqlite:///{directory}/data/placement.db
        sync_on_startup = true
{_token(ports, "placement")}
        """


def _nova(directory: Path, venv: Path, ports: Ports) -> str:
    return f"""\
        [DEFAULT]
        transport_url = fake://
        host = controller
        my_ip = {HOST}
        state_path = {directory}/state/nova
        compute_driver = fakenode.NodeDriver
        sync_power_state_interval = -1
        default_availability_zone = nova
        report_interval = 2
        periodic_fuzzy_delay = 0
        service_down_time = 8
        block_device_allocate_retries_interval = 1
        [compute]
        max_disk_devices_to_attach = {MOST_DISKS}
        [wsgi]
        api_paste_config = {venv}/etc/nova/api-paste.ini
        [api_database]
        connection = sqlite:///{directory}/data/nova_api.db
        [database]
        connection = sqlite:///{directory}/data/nova.db
        [oslo_concurrency]
        lock_path = {directory}/state/nova/lock
{_token(ports, "nova")}
        [service_user]
        send_service_user_token = true
{_auth(ports, "nova")}
        [placement]
{_auth(ports, "nova")}
        [cinder]
{_auth(ports, "nova")}
        catalog_info = volumev3:cinderv3:publicURL
        os_region_name = {REGION}
        [neutron]
{_auth(ports, "nova")}
        service_metadata_proxy = true
        metadata_proxy_shared_secret = {METADATA_SECRET}
        [vnc]
        enabled = false
        """
