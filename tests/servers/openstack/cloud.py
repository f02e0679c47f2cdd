"""A real Keystone, Cinder, Placement and Nova on the loopback address, for one test run.

`tools/servers/openstack` installs them; `Cloud` makes their databases in a directory of its own,
starts them and stops them by pid. The guests of Nova's fake hypervisor are directories below
`guests`, where volumes appear as links to loop devices.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servers.openstack import catalog, configuration
from servers.openstack.configuration import HOST, Ports

PROGRAMS = Path(__file__).parent / "programs"
COMPUTE_HOSTS = ("c1", "c2")
KEYSTONE, CINDER, PLACEMENT, NOVA, NETWORK = "keystone", "cinder", "placement", "nova", "network"


class Failed(AssertionError):
    """The cloud did not come up; the text has the end of a log."""


def installed() -> Path:
    """Return the environment of the services; fails where there is none."""
    cache = os.environ.get("HOLDFAST_CACHE") or Path("~/.cache/holdfast").expanduser()
    venv = Path(cache) / "openstack/venv"
    if not (venv / "bin/nova-manage").exists():
        raise Failed(f"no OpenStack in {venv}: run tools/servers/openstack")
    return venv


class Cloud:
    """See the module's text. `token_seconds` is how long a token is valid."""

    def __init__(self, directory: Path, *, nova: bool = True, token_seconds: int = 3600) -> None:
        self.directory = directory
        self.guests = directory / "guests"
        self.with_nova = nova
        self.ports = Ports(*_free_ports(6))
        self._venv = installed()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        configuration.write(directory, self._venv, self.ports, token_seconds)

    @property
    def cloud_conf(self) -> Path:
        """The file as Kubernetes' cloud provider reads it, for the user of project kubernetes."""
        return self.directory / "cloud.conf"

    @property
    def clouds_yaml(self) -> Path:
        """The clouds `k8s` (a member) and `admin`."""
        return self.directory / "clouds.yaml"

    def start(self) -> Cloud:
        """Make the databases, start everything and fill the catalogue."""
        self._make_databases()
        self.start_service(KEYSTONE, CINDER)
        self.ready(KEYSTONE)
        catalog.fill(self.directory, self.ports, self.with_nova)
        if self.with_nova:
            self.start_service(NETWORK, PLACEMENT)
            self.ready(PLACEMENT)
            self.start_service(NOVA)
            self.ready(NOVA)
        self.ready(CINDER)
        return self

    def stop(self) -> None:
        """Stop everything, unmount nothing, and give back the volumes' loop devices."""
        for name in reversed(list(self._processes)):
            self.kill_service(name, signal.SIGTERM)
        self.release_loops()

    def restart(self, *names: str) -> None:
        """Start services again and wait until they answer."""
        self.start_service(*names)
        for name in names:
            self.ready(name)

    def start_service(self, *names: str) -> None:
        """Start services without waiting for them."""
        for name in names:
            log = (self.directory / "log" / f"{name}.log").open("ab")
            with log:
                self._processes[name] = subprocess.Popen(
                    [str(self._venv / "bin/python"), *self._arguments(name)],
                    env=self._environment(),
                    cwd=self.directory / "run",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def kill_service(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a service and wait for its end; one that does not obey is killed."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def ready(self, name: str) -> None:
        """Wait until a service answers over HTTP."""
        deadline = time.monotonic() + 240
        port = getattr(self.ports, name)
        while not _answers(port):
            if self._processes[name].poll() is not None or time.monotonic() > deadline:
                log = (self.directory / "log" / f"{name}.log").read_text(errors="replace")
                raise Failed(f"{name} is not there:\n{log[-2000:]}")
            time.sleep(0.05)

    @contextlib.contextmanager
    def held(self, backend: str = "file") -> Any:
        """Let creations and copies on a backend wait until the block is left."""
        name = "hold" if backend == "file" else f"hold-{backend}"
        hold = self.directory / "state" / name
        hold.touch()
        try:
            yield
        finally:
            hold.unlink(missing_ok=True)

    def metadata_service(self, server: str, project: str) -> tuple[subprocess.Popen[bytes], str]:
        """Serve the metadata of one server; returns the process, for the caller to end, and URL."""
        (port,) = _free_ports(1)
        source = f"http://{HOST}:{self.ports.metadata}"
        address = f"{HOST}:{port}"
        process = subprocess.Popen(
            [
                str(self._venv / "bin/python"),
                str(PROGRAMS / "metadata_proxy.py"),
                *(address, source, server, project),
            ],
            env={**self._environment(), "METADATA_SECRET": configuration.METADATA_SECRET},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        while not _answers(port):
            if process.poll() is not None:
                raise Failed("the metadata proxy ended")
            time.sleep(0.05)
        return process, f"http://{address}"

    def files(self) -> list[str]:
        """The names of the files that hold volumes and snapshots, of both backends."""
        found = [
            each.name
            for directory in ("volumes", "volumes-tight")
            for each in (self.directory / "state" / directory).glob("*")
        ]
        return sorted(found)

    def _arguments(self, name: str) -> list[str]:
        etc = self.directory / "etc"
        address = f"{HOST}:{getattr(self.ports, name)}"
        serve = str(PROGRAMS / "serve.py")
        if name == KEYSTONE:
            return [serve, address, "keystone.wsgi.api"]
        if name == PLACEMENT:
            return [serve, address, "placement.wsgi.api"]
        if name == NETWORK:
            return [str(PROGRAMS / "network_stub.py"), str(self.ports.network)]
        configured = ["--config-file", str(etc / f"{name}.conf")]
        if name == CINDER:
            return [str(PROGRAMS / "cinder_all.py"), address, *configured]
        metadata = f"{HOST}:{self.ports.metadata}"
        hosts = ",".join(COMPUTE_HOSTS)
        return [str(PROGRAMS / "nova_all.py"), address, metadata, hosts, *configured]

    def _environment(self) -> Mapping[str, str]:
        etc = str(self.directory / "etc")
        path = f"{self.directory}/bin:{self._venv}/bin:{os.environ['PATH']}:/usr/sbin:/sbin"
        return {
            "PATH": path,
            "HOME": str(self.directory),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(PROGRAMS),
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONWARNINGS": "ignore",
            "GUESTS": str(self.guests),
            "OS_KEYSTONE_CONFIG_DIR": etc,
            "OS_KEYSTONE_CONFIG_FILES": "keystone.conf",
            "OS_PLACEMENT_CONFIG_DIR": etc,
        }

    def _make_databases(self) -> None:
        etc, data = self.directory / "etc", self.directory / "data"
        url = self.ports.auth_url
        keystone = f"keystone.cmd.manage --config-file {etc}/keystone.conf"
        urls = " ".join(f"--bootstrap-{each}-url {url}" for each in ("admin", "public", "internal"))
        bootstrap = f"bootstrap --bootstrap-password {configuration.ADMIN_PASSWORD} {urls}"
        lines = {
            "keystone": [
                f"{keystone} db_sync",
                f"{keystone} {bootstrap} --bootstrap-region-id {configuration.REGION}",
            ],
            "cinder": [f"cinder.cmd.manage --config-file {etc}/cinder.conf db sync"],
        }
        if self.with_nova:
            nova = f"nova.cmd.manage --config-file {etc}/nova.conf"
            cell = f"sqlite:///{data}/nova_cell0.db"
            lines["nova"] = [
                f"{nova} api_db sync",
                f"{nova} cell_v2 map_cell0 --database_connection {cell}",
                f"{nova} db sync",
                f"{nova} cell_v2 create_cell --name cell1",
            ]
        running = {name: self._manage(name, each) for name, each in lines.items()}
        for name, process in running.items():
            if process.wait(240) != 0:
                log = (self.directory / "log" / f"init-{name}.log").read_text(errors="replace")
                raise Failed(f"the database of {name} could not be made:\n{log[-2000:]}")

    def _manage(self, name: str, lines: list[str]) -> subprocess.Popen[bytes]:
        with (self.directory / "log" / f"init-{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self._venv / "bin/python"), str(PROGRAMS / "manage.py")],
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert process.stdin is not None
        process.stdin.write("\n".join(lines).encode() + b"\n")
        process.stdin.close()
        return process

    def release_loops(self, part: str = "") -> None:
        """Give back the loop devices of files of ours whose names hold `part`."""
        listed = subprocess.run(
            ["losetup", "-n", "-O", "NAME,BACK-FILE"], capture_output=True, text=True, check=True
        )
        for line in listed.stdout.splitlines():
            device, _, backing = line.partition(" ")
            if backing.strip().startswith(f"{self.directory}/") and part in backing:
                subprocess.run(["losetup", "-d", device], check=False)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
